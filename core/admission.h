/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who comes in at the destination's port. Each connection has a short-lived thread of its own, in
 * which it proves who it is and says its first word, both within a time: so one that is silent
 * holds up nobody. An OFFER is handed to the session's thread, if that waits for one; an ASK is
 * answered; everybody else is turned away.
 */
#ifndef CORE_ADMISSION_H
#define CORE_ADMISSION_H

#include "core/channel.h"
#include "core/wire.h"

struct admission;

struct admission_config {
	int listen_fd; /* stays the caller's, as the next */
	const struct security *security;
	unsigned max_strangers;	  /* connections at once; more push out the oldest */
	uint64_t authenticate_ns; /* for the handshake and the first word */
	uint64_t heartbeat_ns;	  /* of the channels */

	/* What became of a session; -errno with a sentence, which the peer reads. Any thread. */
	int (*answer)(void *context, const struct ask *ask, enum answer_word *word,
		      struct ramlift_error *error);
	/* Somebody was refused. Any thread; may be NULL. */
	void (*turned_away)(void *context, const char *peer, const struct ramlift_error *why);
	void *context;
};

/* A connection that has made an offer which can be read. */
struct newcomer {
	struct channel *channel;
	struct message *offer;
	char peer[sizeof(((struct address *)0)->text)];
};

/* Begin to listen. -ENOMEM, -EMFILE, -EAGAIN. */
int admission_start(const struct admission_config *config, struct admission **admission,
		    struct ramlift_error *error);

/*
 * Wait for an offer. The channel and the message are the caller's then, and further offers are
 * turned away as long as admission_done() has not been called. -ECANCELED: interrupt_fd became
 * readable.
 */
int admission_await(struct admission *admission, int interrupt_fd, struct newcomer *newcomer,
		    struct ramlift_error *error);

/* The session is over. last: there will be no other, so that nobody needs to wait for it. */
void admission_done(struct admission *admission, bool last);

/* Turn everybody out, at once. NULL is fine. */
void admission_free(struct admission *admission);

#endif
