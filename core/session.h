/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both sides of a session have in common: its phase and times, its control channel, the way to
 * cancel it. The session's thread changes it; stats and cancel come from any thread.
 */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/channel.h"
#include "core/phase.h"

/* Cancelling and committing exclude each other: whoever comes first has it. */
enum { SESSION_OPEN, SESSION_CANCELLED, SESSION_COMMITTED };

struct session {
	enum side side;
	uint8_t id[SESSION_ID_BYTES];
	uint32_t generation;
	enum ramlift_phase phase;
	uint64_t begin_ns, phase_begin_ns;
	struct channel *channel; /* NULL until there is a connection */
	int cancel_fd;		 /* readable once it is to be cancelled */
	_Atomic int fate;	 /* SESSION_OPEN... */

	/* Takes the pieces of a carried stream (carried.h); NULL where none is. */
	int (*carry)(void *carrier, unsigned stream, const void *bytes, size_t n_bytes,
		     struct ramlift_error *error);
	void *carrier;

	void (*progress)(void *context, const struct ramlift_stats *stats);
	void (*checked)(void *context, const char *check, const struct ramlift_error *failed);
	void *progress_context;
	struct ramlift_stats stats; /* the session's thread's own; published below */
	pthread_mutex_t lock;
	struct ramlift_stats published;
	struct ramlift_session_info info;
};

/* -EMFILE and the like. */
int session_init(struct session *session, enum side side);
void session_fini(struct session *session);

/* For the next session of the same object: back to IDLE, figures to 0; a cancel that came before
 * stays. */
void session_reset(struct session *session);

/* COMMIT has come to nothing: a cancel is heard again, as one for the next session. */
void session_reopen(struct session *session);

/* Change the phase; a transition that phase.c does not know is a bug of ours. Publishes. */
void session_enter(struct session *session, enum ramlift_phase phase);

/* Make the figures visible and call the progress call-back. */
void session_publish(struct session *session);
void session_copy_stats(struct session *session, struct ramlift_stats *stats);

/* Who takes part, for other threads: the guest, and as of now the id, the generation and whom the
 * channel, if there is one, reaches. */
void session_introduce(struct session *session, const char *guest);
void session_copy_info(struct session *session, struct ramlift_session_info *info);

/* Report that a check was passed (ret 0), or why it was not; a cancel is
 * no verdict. Returns ret. */
int session_checked(struct session *session, const char *check, int ret,
		    const struct ramlift_error *error);

/* Any thread, signal handlers. 0 or -EALREADY. */
int session_cancel(struct session *session);

/* Past this no cancel is heard. -ECANCELED if one was. */
int session_commit(struct session *session, struct ramlift_error *error);

/*
 * The next message that the phase allows, which the caller frees. Pieces of a carried stream go to
 * the carrier and are not seen here. An ABORT of the peer comes as an error: its code, its words.
 * -ETIMEDOUT at the deadline, with `what` in the sentence unless that is NULL; -ECANCELED;
 * -EPROTO...
 */
int session_receive(struct session *session, uint64_t deadline_ns, const char *what,
		    struct message **message, struct ramlift_error *error);

/* Send a piece of a carried stream. Any thread. */
int session_send_piece(struct session *session, unsigned stream, const void *bytes, size_t n_bytes,
		       struct ramlift_error *error);

/* Tell the peer why this side gives up, as far as it can still hear. */
void session_send_abort(struct session *session, const struct ramlift_error *error);
void session_refuse(struct channel *channel, const struct ramlift_error *error);

#endif
