/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public interface of libramlift: move the memory of a running guest to another host.
 *
 * A VMM describes its guest by three things: its regions, a table of calls to pause, save and
 * resume it (guest.h), and something that tells which pages it writes (dirty_source.h). On the
 * source it then runs a ramlift_source, on the destination a ramlift_destination; each is one
 * blocking call.
 *
 * Conventions: functions return 0 or -errno and leave out-parameters untouched on failure. A struct
 * ramlift_error carries the sentence for the user; it may be NULL where nobody wants to know.
 */
#ifndef RAMLIFT_H
#define RAMLIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RAMLIFT_API __attribute__((visibility("default")))

/* The unit of dirty tracking, whatever the host's page size is. */
#define RAMLIFT_PAGE_BYTES 4096u

#define RAMLIFT_MAX_LANES   64u /* of all rails together */
#define RAMLIFT_MAX_RAILS   8u
#define RAMLIFT_MAX_REGIONS 64u
#define RAMLIFT_MAX_NAME    64u /* a guest's name, with the final NUL */

/* What failed, as one sentence that says what to do; code is a negative errno, 0 while nothing
 * failed. */
struct ramlift_error {
	int code;
	char text[480];
};

/*
 * One contiguous block of guest RAM. The VMM owns the memory. While a session lives it must stay
 * mapped, and must not be discarded (no ballooning, no MADV_DONTNEED, no hole punching); unless it
 * is shared memory, the process must not fork.
 */
struct ramlift_region {
	uint64_t gpa;		  /* guest-physical address, a multiple of RAMLIFT_PAGE_BYTES */
	uint64_t size_bytes;	  /* a multiple of RAMLIFT_PAGE_BYTES, not 0 */
	void *hva;		  /* host-virtual address, page aligned */
	int memfd;		  /* the file behind it, or -1; holes in it are known to be zeros */
	uint64_t memfd_offset;	  /* where the region begins in memfd, in bytes */
	uint64_t page_size_bytes; /* host page size behind the region: 4 KiB, 2 MiB or 1 GiB */
	int numa_node;		  /* where the memory is; -1: unknown, or on several */
};

#include "dirty_source.h"
#include "guest.h"

/* How lanes move bytes; opaque here. Both are static objects that live as long as the program. */
struct ramlift_transport;

/* RDMA writes over librdmacm and libibverbs. */
RAMLIFT_API const struct ramlift_transport *ramlift_transport_rdma(void);

/* TCP, one connection a lane, for hosts without an RNIC. */
RAMLIFT_API const struct ramlift_transport *ramlift_transport_tcp(void);

/* Where a session is. docs/protocol.md draws the transitions; core/phase.c holds them. */
enum ramlift_phase {
	RAMLIFT_PHASE_IDLE,
	RAMLIFT_PHASE_PREFLIGHT, /* compare both sides before anything is allocated */
	RAMLIFT_PHASE_PREPARE,	 /* create the guest, connect lanes, register the first slices */
	RAMLIFT_PHASE_STREAM,	 /* pre-copy: the guest runs at the source */
	RAMLIFT_PHASE_STOP_AND_COPY, /* the guest is paused, what remains flows */
	RAMLIFT_PHASE_HAND_OVER,     /* FINAL is sent, PREPARED is awaited */
	RAMLIFT_PHASE_COMMITTED,     /* COMMIT is sent, STARTED is awaited */
	RAMLIFT_PHASE_DONE,	     /* the guest runs at the destination */
	RAMLIFT_PHASE_FAILED,	     /* the guest runs at the source, as before */
	RAMLIFT_PHASE_IN_DOUBT, /* COMMIT without an answer: the guest is paused at the source */
	RAMLIFT_PHASE_COUNT
};

/* The word for a phase, as `ramlift status` prints it; "unknown" for a number that is none. */
RAMLIFT_API const char *ramlift_phase_name(enum ramlift_phase phase);

struct ramlift_lane_stats {
	unsigned rail;		   /* index into the rails */
	int numa_node;		   /* where the lane's thread found itself running; -1 unknown */
	uint64_t bytes_sent;	   /* payload, without headers */
	uint64_t writes;	   /* runs of pages posted */
	uint64_t zero_pages;	   /* found zero in the first pass, not sent */
	uint64_t sweeps;	   /* times the lane went through all of its stripes */
	uint64_t busy_ns;	   /* time with something to send, pacing excluded */
	uint64_t rate_bytes_per_s; /* average since the lane began to stream */
	bool lost;		   /* it broke, and others carry on with its stripes */
};

/* The parts of the downtime, in the order in which they happen. All in ns. */
struct ramlift_downtime {
	uint64_t pause_ns;   /* kick every vCPU out of its run */
	uint64_t harvest_ns; /* the last harvest */
	uint64_t save_ns;    /* save vCPU and device state, while lanes drain */
	uint64_t drain_ns;   /* what was left to send once the state was saved, and the tokens */
	uint64_t verify_ns;  /* digest of all RAM on both sides; 0 without verify */
	uint64_t fence_ns;   /* destination: tokens consumed, queue pairs dead */
	uint64_t load_ns;    /* destination: load the state */
	uint64_t commit_ns;  /* journal and messages: the round trips of the hand-over */
	uint64_t start_ns;   /* destination: COMMIT read until the vCPUs run */
	uint64_t total_ns;   /* from the first kick until the source knows that the guest runs */
};

/* One moment of a session. Rates are bytes a second, measured over the last ticks. */
struct ramlift_stats {
	enum ramlift_phase phase;
	const char *transport; /* a static string, NULL before one was agreed on */
	uint64_t ram_bytes;
	uint64_t bytes_sent;
	uint64_t bytes_remaining; /* dirty now */
	uint64_t zero_pages;
	uint64_t dirty_rate_bytes_per_s;
	uint64_t send_rate_bytes_per_s;
	uint64_t passes;     /* sweeps over all stripes that the slowest lane has done */
	uint64_t elapsed_ns; /* since the session began */
	uint64_t phase_ns[RAMLIFT_PHASE_COUNT];
	struct ramlift_downtime downtime;
	uint64_t residual_bytes; /* dirty when the guest was paused */
	bool throttled;		 /* the guest is being slowed down */
	bool verified;		 /* both digests were taken and are equal */
	uint64_t digest;	 /* of all guest RAM, with verify */
	unsigned n_lanes;
	struct ramlift_lane_stats lanes[RAMLIFT_MAX_LANES];
};

/*
 * What to do with a guest that writes faster than the lanes send. Where the dirty source cannot
 * slow it down, throttling is to go on until max_total_ns.
 */
enum ramlift_on_divergence {
	RAMLIFT_DIVERGENCE_THROTTLE, /* harvest at the link's pace, so that full rings stop its
					vCPUs */
	RAMLIFT_DIVERGENCE_STOP,     /* switch over, whatever downtime that costs */
	RAMLIFT_DIVERGENCE_ABORT,    /* give up; the guest runs on at the source */
};

/* Which guest memory is registered with the RDMA device, and so pinned, on both sides. */
enum ramlift_pin {
	RAMLIFT_PIN_DEMAND, /* what the guest has touched, and then what it touches */
	RAMLIFT_PIN_ALL,    /* everything, from the beginning */
	RAMLIFT_PIN_BUDGET, /* as on demand, but never more than pin_budget_bytes at once */
};

/* Times that bound a session's waits. All in ns, none may be 0. */
struct ramlift_timeouts {
	uint64_t connect_ns;	  /* a control or lane connection */
	uint64_t authenticate_ns; /* for a stranger to become a source: handshake and first word */
	uint64_t io_ns;		  /* a completion, after which the lane counts as dead */
	uint64_t heartbeat_ns; /* silence on the control channel after which the peer counts as dead
				*/
	uint64_t prepare_ns;   /* the destination creates the guest and registers its first slice */
	uint64_t hand_over_ns; /* FINAL until PREPARED, digest included, and COMMIT until STARTED */
};

/*
 * Who may be the other side, and that nobody else can listen or speak: TLS 1.3, mutually
 * authenticated. Either tls_dir or psk_file. With neither, only a peer on the loopback is spoken
 * to, unless insecure says that the network is trusted. The same goes for the lanes of the TCP
 * transport; what RDMA writes carry is not encrypted (docs/security.md). What pointers point to
 * must outlive the session.
 */
struct ramlift_security {
	const char *tls_dir; /* ca.pem, cert.pem, key.pem (PEM; the key not readable by others) */
	/*
	 * With tls_dir: shell patterns (fnmatch(3)), one of which a name of the peer's certificate
	 * must match (subject alternative names, or else its common name). None: a source wants the
	 * name or address that it connects to, a destination takes everybody whom the CA has
	 * certified.
	 */
	const char *const *allow;
	unsigned n_allow;
	const char *psk_file; /* one line, 64 hexadecimal digits: 256 bits that both sides share */
	bool insecure;	      /* plaintext, with whoever it is */
};

/* Which side a guest belongs to. */
enum ramlift_owner {
	RAMLIFT_OWNER_UNKNOWN,	   /* nobody has said */
	RAMLIFT_OWNER_SOURCE,	   /* it has not run at the destination and never will */
	RAMLIFT_OWNER_DESTINATION, /* it runs there, or has run there */
};

#define RAMLIFT_SESSION_TEXT 33u /* a session's id in hexadecimal, with the final NUL */

/* A guest that was handed over without an answer: what the source's journal says of it. */
struct ramlift_doubt {
	char guest[RAMLIFT_MAX_NAME];
	char session[RAMLIFT_SESSION_TEXT];
	uint32_t generation; /* counts the sessions of this guest at this source */
	char peer[320];	     /* the destination, as the source was told it */
	int64_t time_s;	     /* when COMMIT was written; seconds since 1970 */
};

/* Who takes part in a session. Empty strings where it is not known (yet). */
struct ramlift_session_info {
	char guest[RAMLIFT_MAX_NAME];
	char session[RAMLIFT_SESSION_TEXT];
	uint32_t generation;
	char local[80], peer[80]; /* addresses of the control connection */
	char peer_name[256]; /* whom the peer has proved to be: a certificate's name, "psk", or ""
			      */
	const char *protection; /* a static string: "tls-certificate", "tls-psk", "plaintext"; "" */
};

struct ramlift_source_config {
	/* The guest. What pointers point to must outlive the source. */
	const char *guest_name;
	const struct ramlift_guest_ops *guest_ops;
	void *guest;
	const struct ramlift_dirty_source_ops *dirty_source_ops;
	void *dirty_source;
	const struct ramlift_region *regions;
	unsigned n_regions;
	const void *machine;  /* the VMM's own description, given to the destination's create(); may
				 be NULL */
	size_t machine_bytes; /* at most 64 KiB */

	/* The session. */
	const char *to;					   /* "host:port" or "[v6]:port" */
	const struct ramlift_transport *const *transports; /* in order of preference */
	unsigned n_transports;
	/*
	 * RDMA devices by name; rail i of one side is connected to rail i of the other, and carries
	 * the regions of its own NUMA node. None: one rail, by the device that reaches `to`.
	 */
	const char *const *rails;
	unsigned n_rails;
	unsigned lanes_per_rail;  /* 1 to RAMLIFT_MAX_LANES of all rails together */
	uint64_t max_downtime_ns; /* switch over once the prediction is below */
	uint64_t max_total_ns;	  /* give up after this long before the switchover; 0: never */
	uint64_t bandwidth_bytes_per_s; /* all lanes together, before the switchover; 0: no limit */
	enum ramlift_on_divergence on_divergence;
	bool verify;		   /* compare a digest of all RAM at the switchover */
	uint64_t slice_bytes;	   /* unit of registration; a multiple of 256 KiB, at most 4 GiB;
				      0: by the size of the guest, 2 MiB to 256 MiB */
	unsigned register_threads; /* registering slices in parallel */
	enum ramlift_pin pin;
	uint64_t pin_budget_bytes; /* with RAMLIFT_PIN_BUDGET, on each side; memory that several
				      rails carry is pinned once for each */
	bool on_demand_paging;	   /* the device faults pages in, and pins none; where it can */
	uint64_t tick_ns;	   /* how often the controller harvests and decides */
	const char *state_dir;	   /* where the journal of commits is kept; must exist */
	struct ramlift_timeouts timeouts;
	struct ramlift_security security;

	/* Called on the thread of ramlift_source_run(), about every tick and at each change of
	 * phase. May be NULL, as the next two. */
	void (*progress)(void *progress_context, const struct ramlift_stats *stats);
	/* A check of the session was passed (failed: NULL) or not. check is a static word, such as
	 * "security", "machine", "digest". */
	void (*checked)(void *progress_context, const char *check,
			const struct ramlift_error *failed);
	/*
	 * On the thread of ramlift_source_settle(), again and again while the guest is in doubt:
	 * make sure that the destination never runs it (power, lease), or find out. May take long,
	 * but not for ever. RAMLIFT_OWNER_UNKNOWN where it cannot tell.
	 */
	enum ramlift_owner (*fence)(void *progress_context, const struct ramlift_doubt *doubt);
	void *progress_context;
};

struct ramlift_destination_config {
	const struct ramlift_guest_ops *guest_ops;
	void *guest;	    /* given to guest_ops: the VMM before create(), the guest after it */
	const char *listen; /* "host:port", "0.0.0.0:port", "[::]:port"; port 0 takes a free one */
	const struct ramlift_transport *const *transports; /* what this side accepts */
	unsigned n_transports;
	const char *const *rails; /* as the source's, which names as many; none: the device that
				     has the address at which the source came in */
	unsigned n_rails;
	unsigned register_threads;
	bool on_demand_paging;
	const char *state_dir;	/* where the journal is kept; must exist */
	unsigned max_strangers; /* connections at once that have not said a word that makes sense */
	struct ramlift_timeouts timeouts;
	struct ramlift_security security;
	void (*progress)(void *progress_context, const struct ramlift_stats *stats);
	void (*checked)(void *progress_context, const char *check,
			const struct ramlift_error *failed); /* as the source's */
	/* A connection was refused before it became a session. On any thread. */
	void (*turned_away)(void *progress_context, const char *peer,
			    const struct ramlift_error *why);
	void *progress_context;
};

struct ramlift_source;
struct ramlift_destination;

/* Fill in the defaults: 4 lanes a rail, 300 ms downtime, throttle, pinning on demand, automatic
 * slices, 20 ms ticks, 4 s heartbeat. */
RAMLIFT_API void ramlift_source_config_init(struct ramlift_source_config *config);
RAMLIFT_API void ramlift_destination_config_init(struct ramlift_destination_config *config);

/*
 * Check the configuration and make a source for one session. Nothing is contacted yet but, for the
 * destination's name, a name server: it may block. -EINVAL: the configuration makes no sense (error
 * says which part); -ENOMEM.
 */
RAMLIFT_API int ramlift_source_new(const struct ramlift_source_config *config,
				   struct ramlift_source **source, struct ramlift_error *error);

/*
 * Move the guest. Blocks until it runs at the destination (0), or until the attempt has ended
 * otherwise. Call once. After any failure but -EINPROGRESS the guest runs at the source as before,
 * and dirty tracking is off.
 *
 * -EINPROGRESS: IN_DOUBT, the guest stays paused and only an operator may resume it. -ECANCELED:
 * ramlift_source_cancel() was heard. -EREMOTEIO: the destination refused or failed, in its words.
 * -ECONNREFUSED, -EHOSTUNREACH, -ECONNRESET, -EHOSTDOWN: the destination cannot be reached, or is
 * silent. -ETIMEDOUT: a step, or the session, took longer than allowed. -EPROTO: the peer broke the
 * protocol. -EBADMSG: the digests differ. -ENODEV: no RDMA device for that address. -EIO: a lane
 * broke. -EBUSY: the guest is in doubt over an earlier session, or has one that lives; nothing was
 * done. -ENOMEM, -E2BIG, -ENOSPC and what else a call-back, the system or the journal returned.
 */
RAMLIFT_API int ramlift_source_run(struct ramlift_source *source, struct ramlift_error *error);

/*
 * After -EINPROGRESS: find out whose the guest is. Asks the destination again, with growing pauses,
 * and the fence; blocks until one of them, or ramlift_source_resolve(), has said it. 0: the guest
 * is the destination's; -EREMOTEIO: it never ran there, and runs here again. What is learnt is in
 * the journal before it is acted on. -ECANCELED after ramlift_source_leave(): it is as much in
 * doubt as before. -ENOSPC and the like: the journal cannot be written; call it again. -EALREADY:
 * it is not in doubt.
 */
RAMLIFT_API int ramlift_source_settle(struct ramlift_source *source, struct ramlift_error *error);

/* An operator's word for ramlift_source_settle(), which acts on it; any thread. -EALREADY: somebody
 * has said it before; -EAGAIN: the session is not in doubt. */
RAMLIFT_API int ramlift_source_resolve(struct ramlift_source *source, enum ramlift_owner owner);

/* Let ramlift_source_settle() return, now and whenever it is called again. Any thread, and signal
 * handlers. */
RAMLIFT_API void ramlift_source_leave(struct ramlift_source *source);

/* Who takes part. Any thread. */
RAMLIFT_API void ramlift_source_info(struct ramlift_source *source,
				     struct ramlift_session_info *info);

/*
 * The same doubt when the source's process is gone: what its journal in state_dir says of a guest.
 * 0: it is in doubt; -ENOENT: it is not. -EBADMSG: the journal cannot be read.
 */
RAMLIFT_API int ramlift_doubt_read(const char *state_dir, const char *guest,
				   struct ramlift_doubt *doubt, struct ramlift_error *error);

/* Ask the destination once. 0: *owner is its word, RAMLIFT_OWNER_UNKNOWN if it does not know the
 * session, or has not decided; else why it cannot be asked. */
RAMLIFT_API int ramlift_doubt_ask(const struct ramlift_doubt *doubt,
				  const struct ramlift_security *security,
				  const struct ramlift_timeouts *timeouts,
				  enum ramlift_owner *owner, struct ramlift_error *error);

/* Write to the journal whose the guest is: it is no longer in doubt. -EBUSY: the source's process
 * lives, and is to be told instead; -ENOENT: it is not in doubt over that session. */
RAMLIFT_API int ramlift_doubt_resolve(const char *state_dir, const struct ramlift_doubt *doubt,
				      enum ramlift_owner owner, struct ramlift_error *error);

/*
 * Ask a running session to end. Any thread, and signal handlers; returns at once. -EALREADY: COMMIT
 * has been written, so the guest belongs to the destination.
 */
RAMLIFT_API int ramlift_source_cancel(struct ramlift_source *source);

/* A copy of the figures as of now. Any thread. */
RAMLIFT_API void ramlift_source_stats(struct ramlift_source *source, struct ramlift_stats *stats);

/*
 * Tell that the VMM or one of its devices has written guest memory, after the write: dirty rings do
 * not see that. Any thread; never blocks. -ERANGE: not inside one region.
 */
RAMLIFT_API int ramlift_source_mark_dirty(struct ramlift_source *source, uint64_t gpa,
					  uint64_t length_bytes);

/* Free it; not while ramlift_source_run() is running. NULL is fine. */
RAMLIFT_API void ramlift_source_free(struct ramlift_source *source);

/* Bind, listen, and answer sources in doubt from now on, on threads of its own. -EINVAL,
 * -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -ENOMEM. */
RAMLIFT_API int ramlift_destination_new(const struct ramlift_destination_config *config,
					struct ramlift_destination **destination,
					struct ramlift_error *error);

/* The port that it listens on, for configurations with port 0. */
RAMLIFT_API uint16_t ramlift_destination_port(const struct ramlift_destination *destination);

/*
 * Wait for one session and receive its guest. Blocks until the guest runs here (0) or the session
 * has failed; then the guest has been discarded and the call may be made again. -ECANCELED after a
 * cancel. -EEXIST: a session that has been here before; -EBUSY: another process receives that guest
 * with the same state directory. -EINPROGRESS: resume() could not tell; the guest was left alone.
 *
 * From ramlift_destination_new() to ramlift_destination_free(), whether this runs or not, sources
 * that are in doubt are answered from the journal: keep the destination for as long as the guest
 * runs here.
 */
RAMLIFT_API int ramlift_destination_run(struct ramlift_destination *destination,
					struct ramlift_error *error);

/* Who takes part. Any thread. */
RAMLIFT_API void ramlift_destination_info(struct ramlift_destination *destination,
					  struct ramlift_session_info *info);

/* Ask ramlift_destination_run() to end, now and whenever it is called again. Any thread, and signal
 * handlers. -EALREADY: COMMIT has been read. */
RAMLIFT_API int ramlift_destination_cancel(struct ramlift_destination *destination);
RAMLIFT_API void ramlift_destination_stats(struct ramlift_destination *destination,
					   struct ramlift_stats *stats);
RAMLIFT_API void ramlift_destination_free(struct ramlift_destination *destination);

#ifdef __cplusplus
}
#endif

#endif
