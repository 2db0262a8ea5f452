/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's inside, shared by server*.c alone.
 *
 * Threads: the main one waits for signals and the end; the control thread handles requests; the
 * migration thread runs ramlift_source_run(), the incoming thread ramlift_destination_run(). What
 * they share is guarded by lock. Nobody holds it while closing the control socket, for the control
 * thread takes it in every request.
 */
#ifndef KVM_VMM_SERVER_PRIVATE_H
#define KVM_VMM_SERVER_PRIVATE_H

#include <pthread.h>

#include <jansson.h>

#include "kvm/vmm/audit.h"
#include "kvm/vmm/control_socket.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/options_security.h"
#include "kvm/vmm/server.h"

enum server_state {
	SERVER_WAITING,	  /* no guest yet */
	SERVER_INCOMING,  /* a session is bringing one */
	SERVER_RUNNING,	  /* the guest is ours */
	SERVER_MIGRATING, /* a session is taking it away */
	SERVER_IN_DOUBT,  /* paused; it may run at the destination */
	SERVER_MOVED,	  /* it runs at the destination */
	SERVER_STOPPED,	  /* somebody wants the process to end */
};

/* A client that waits for the outcome of the session. */
struct watcher {
	uint64_t client;
	const char *request; /* "migrate", "cancel" or "resolve" */
};

/* One attempt to move the guest away. */
struct migration {
	struct ramlift_source_config config;
	struct ramlift_source *source; /* NULL until its thread has made it */
	bool cancelled;		       /* before that */
	char *to;
	const struct ramlift_transport *transports[2];
	struct option_rails rails;
	struct option_security security;
	void *description; /* of the machine */
	uint64_t client;   /* gets progress */
	struct ucred asked_by;
	uint64_t next_progress_ns;
	enum ramlift_phase last_phase;

	/* While its outcome is in doubt. */
	struct ramlift_doubt doubt;
	char *fence_command; /* NULL: there is none */
	int interrupt_fd;    /* readable: the fence command is to end */
	enum ramlift_owner fence_said, operator_said;
	struct ucred operator;
	int64_t asked_s; /* when the destination was asked last; 0: not yet */
};

struct server {
	pthread_mutex_t lock;
	enum server_state state;
	struct machine_place place; /* machine: the thread that makes or frees it */
	struct machine *machine;    /* the same for all others; NULL: not made yet, or withdrawn */
	struct control_server *control;
	struct watcher watchers[CONTROL_MAX_CLIENTS];
	unsigned n_watchers;
	json_t *last_migration; /* the result of the last session */
	char state_dir[4096];
	struct audit audit;

	struct migration *migration; /* of the running session */
	pthread_t migration_thread;
	bool migration_joinable;
	char moved_to[320];

	/* Stays for as long as the guest, to answer a source that is in doubt. */
	struct ramlift_destination *destination;
	bool receiving; /* until the guest is ours */
	bool cancelled; /* the destination, by us: it is of no use any more */
	struct ramlift_destination_config incoming_config;
	char listen[320];
	pthread_t incoming_thread;
	bool incoming_joinable;
	struct server_incoming incoming;
	bool incoming_failed; /* with once: no guest came */

	unsigned n_signals; /* during the session */
	bool stop_after;    /* the session's end is to be the process's end */
	bool failure_told;
	bool given_up; /* in doubt */
	int wake_fd;   /* state has changed: the main thread looks */
	int signal_fd;
};

/* The main thread looks at the state. */
void server_wake(struct server *server);

/*
 * May machine_report() be asked? It reads guest RAM, which at a destination is half there, and the
 * peer's, until the hand-over. The lock is held.
 */
static inline bool server_has_report(const struct server *server)
{
	return server->machine && !server->receiving && server->state != SERVER_INCOMING &&
	       server->state != SERVER_WAITING;
}

/* Open the control socket for place.name. Without the lock. */
int server_open_control(struct server *server, struct ramlift_error *error);
void server_close_control(struct server *server);

/* One request; the control thread. */
void server_request(void *context, uint64_t client, const json_t *request);

/* Add to those who get the outcome. The lock is held. */
void server_watch(struct server *server, uint64_t client, const char *request);

/* Tell the outcome to all who wait for it, and forget them. Takes over result. The lock is held. */
void server_tell(struct server *server, json_t *result);

/* What status says of the session that runs, or NULL. The lock is held. */
json_t *server_session(struct server *server);

/* Begin a migration as the request says. The lock is held. */
int server_migrate(struct server *server, uint64_t client, const json_t *request,
		   struct ramlift_error *error);

/* Cancel the migration that runs; what ramlift_source_cancel() returns. The lock is held. */
int server_cancel_migration(struct server *server);

/* The same for the destination, which there must be; under the lock. */
int server_cancel_incoming(struct server *server);

/* Fill in a migration as the request says; server_migration_request.c. */
int migration_prepare(struct server *server, const json_t *request, struct migration *migration,
		      struct ramlift_error *error);

/*
 * server_doubt.c: a migration without an answer, from its thread. begin() reads what the journal
 * says, before anybody sees the state; settle() returns when it is known whose the guest is, or
 * nobody is to wait for that any more, and has set the state by then.
 */
void server_doubt_begin(struct server *server);
void server_doubt_settle(struct server *server);
/* The destination was asked again. */
void server_doubt_asked(struct server *server);
enum ramlift_owner server_fence(void *context, const struct ramlift_doubt *doubt);

/* Let settle() return without a result, or with an operator's word. The lock is held. */
void server_doubt_leave(struct server *server);
int server_doubt_resolve(struct server *server, uint64_t client, enum ramlift_owner owner,
			 struct ramlift_error *error);
/* The guest runs here, and only its journal says that it is in doubt: a line could not be written
 * then. -EINVAL: it does not say so. The lock is held. */
int server_doubt_clear(struct server *server, uint64_t client, enum ramlift_owner owner,
		       struct ramlift_error *error);

/* What status says of a doubt. The lock is held. */
void server_doubt_report(const struct server *server, json_t *reply);

/* Wait for the thread of an earlier migration. With the lock only once that has no source. */
void server_join_migration(struct server *server);

#endif
