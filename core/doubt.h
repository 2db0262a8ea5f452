/* SPDX-License-Identifier: Apache-2.0 */
/* Whose is a guest that was handed over without an answer? Asked on a connection of its own, of
 * whoever has the destination's journal by then. */
#ifndef CORE_DOUBT_H
#define CORE_DOUBT_H

#include "core/address.h"
#include "core/stream.h"
#include "core/wire.h"

struct question {
	const struct address *peer;
	const char *host; /* as the peer was named */
	const struct security *security;
	const struct ramlift_timeouts *timeouts;
	int interrupt_fd; /* readable: never mind; or -1 */
	struct ask ask;
};

/*
 * Ask once. Each of connecting, the handshake and the answer has its time. 0 and *word; -EREMOTEIO:
 * the peer will not say, in its words; -ECANCELED; why it cannot be asked.
 */
int doubt_ask(const struct question *question, enum answer_word *word, struct ramlift_error *error);

/* Whose that word says it is. */
enum ramlift_owner doubt_owner(enum answer_word word);

#endif
