/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam to whatever moves pages: rdma/ with queue pairs, core/tcp_transport.c with sockets,
 * tests/support/memory_transport.c inside one process for tests. An endpoint is one side of one
 * session's data path: all its lanes and its slices.
 *
 * Threads: post(), drain() and token() of a lane come from that lane's thread alone;
 * register_slice() and deregister_slice() may come from several threads at once, for different
 * slices, while lanes run; abort() from any thread; everything else from the session's thread.
 * Every call that waits ends at its deadline, or soon after abort().
 */
#ifndef CORE_TRANSPORT_H
#define CORE_TRANSPORT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/ramlift.h"

struct endpoint; /* each transport's own */

#define SESSION_ID_BYTES 16

/* A unit of registration: a part of one region. */
struct slice {
	void *hva;
	uint64_t size_bytes;
};

/* What the destination announces of a slice that it has registered, and a source needs to write
 * there. */
struct slice_key {
	uint64_t address; /* RDMA: the slice's virtual address at the destination; else 0 */
	uint32_t rkeys[RAMLIFT_MAX_RAILS]; /* RDMA: by rail; 0 where it is not registered */
};

/* One run of pages: read from the slice at the source, written at the same place of the
 * destination's slice. */
struct transport_write {
	uint32_t slice;
	uint32_t length_bytes; /* at most TRANSPORT_MAX_WRITE_BYTES */
	uint64_t offset_bytes; /* from the start of the slice */
};

#define TRANSPORT_MAX_WRITE_BYTES (256u * 1024)
#define TRANSPORT_MAX_BATCH	  64u

struct transport_params {
	uint8_t session_id[SESSION_ID_BYTES]; /* only lanes that carry it may join */
	/*
	 * 32 bytes that only the two sides of the session have: lanes are encrypted, and only who
	 * has them may join. Read until connect() or accept() has returned. NULL: plain lanes, as
	 * RDMA's always are.
	 */
	const uint8_t *lane_secret;
	const char *const *rails; /* devices by name; NULL: one rail, which the address decides */
	unsigned n_rails;	  /* 1 to RAMLIFT_MAX_RAILS */
	unsigned n_lanes;	  /* of all rails, a multiple of n_rails; the first rail's first */
	bool on_demand_paging;	  /* register without pinning */
	const struct slice *slices; /* outlives the endpoint */
	unsigned n_slices;
	uint64_t pin_budget_bytes; /* the most that is registered at once; 0: all slices may be */
	int interrupt_fd;	   /* readable once the session is to end: every wait ends then with
				      -ECANCELED; or -1 */
	uint64_t io_timeout_ns; /* how long a completion may take before the lane counts as dead */
};

struct ramlift_transport {
	const char *name; /* as --transport and the OFFER message say it */

	/*
	 * Can this host reach peer (source), or be reached at local (destination), this way? 0,
	 * -ENODEV where there is no device for that address. Cheap; creates nothing. One of the two
	 * is NULL.
	 */
	int (*probe)(const struct sockaddr *local, const struct sockaddr *peer,
		     struct ramlift_error *error);

	/*
	 * Are there usable devices of these names? 0, -ENODEV with what is wrong with which one.
	 * NULL: this transport has no rails to name.
	 */
	int (*probe_rails)(const char *const *rails, unsigned n_rails, struct ramlift_error *error);

	/*
	 * Destination: listen for the session's lanes on ports of its own choosing: at local, or,
	 * where rails are named, at each device's own address. addresses, one a rail, tell the
	 * source where.
	 */
	int (*listen)(const struct transport_params *params, const struct sockaddr *local,
		      struct endpoint **endpoint, struct sockaddr_storage *addresses,
		      struct ramlift_error *error);

	/* Destination: return once all lanes have joined. Strangers are turned away and do not
	 * count. */
	int (*accept)(struct endpoint *endpoint, uint64_t deadline_ns, struct ramlift_error *error);

	/* Source: connect all lanes, each rail's to its peer. */
	int (*connect)(const struct transport_params *params, const struct sockaddr_storage *peers,
		       uint64_t deadline_ns, struct endpoint **endpoint,
		       struct ramlift_error *error);

	/* The NUMA node of a rail's device, -1 unknown. NULL: of no rail. */
	int (*rail_node)(const struct endpoint *endpoint, unsigned rail);

	/*
	 * Make a slice ready for the lanes of some rails (bit r: rail r): at the destination for
	 * remote writes (then *key is set), at the source for reading by the adapter (key may be
	 * NULL). A destination may register before accept().
	 */
	int (*register_slice)(struct endpoint *endpoint, unsigned slice, unsigned rails,
			      struct slice_key *key, struct ramlift_error *error);

	/* Undo that: nothing of the slice is pinned any more. No write to it may be in flight. It
	 * may be registered again. */
	void (*deregister_slice)(struct endpoint *endpoint, unsigned slice);

	/* Source: what the destination announced. The caller checked slice; happens before the
	 * first post() to it. */
	void (*set_peer_key)(struct endpoint *endpoint, unsigned slice,
			     const struct slice_key *key);

	/*
	 * Source: queue up to TRANSPORT_MAX_BATCH writes on a lane, in order; writes of one lane
	 * land in the order of their posting. Blocks while the lane's queue is full. The slices are
	 * registered on both sides.
	 */
	int (*post)(struct endpoint *endpoint, unsigned lane, const struct transport_write *writes,
		    unsigned n_writes, struct ramlift_error *error);

	/* Source: bytes that were posted on the lane and have not
	 * completed, as of now. Any thread. */
	uint64_t (*in_flight_bytes)(struct endpoint *endpoint, unsigned lane);

	/* Source: return once all writes posted on the lane have completed locally (which proves
	 * neither visibility nor life). */
	int (*drain)(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error);

	/* Source: send the lane's token behind all its writes, and drain. Nothing may be posted
	 * after it. */
	int (*token)(struct endpoint *endpoint, unsigned lane, uint64_t token,
		     struct ramlift_error *error);

	/* Destination: return once this process has consumed its token from every lane; 0: that
	 * lane was lost, and is not waited for. -EPROTO: another value came. A lane that breaks by
	 * itself is noticed here at the latest. */
	int (*await_tokens)(struct endpoint *endpoint, const uint64_t *tokens, uint64_t deadline_ns,
			    struct ramlift_error *error);

	/* Destination: after the return no lane can change memory any more. Deregisters nothing. */
	int (*fence)(struct endpoint *endpoint, struct ramlift_error *error);

	/*
	 * One lane is lost, and the others go on. Source, once its post(), drain() or token() has
	 * failed and no other will come: this end of it is dead, nothing more leaves. Destination,
	 * after that, and once for a lane: what fence() does, for this lane.
	 */
	void (*drop_lane)(struct endpoint *endpoint, unsigned lane);
	int (*fence_lane)(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error);

	/* Either side: make calls that wait return -ECANCELED, now and later. */
	void (*abort)(struct endpoint *endpoint);

	/* Free all: lanes, registrations, listener. No other call may be running. NULL is fine. */
	void (*close)(struct endpoint *endpoint);
};

#endif
