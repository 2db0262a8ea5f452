/* SPDX-License-Identifier: Apache-2.0 */
/* A destination in a process of its own, which can fall at a certain moment, and one in this
 * process that comes up in its place, at the same port and with the same journal. */
#ifndef TESTS_UNIT_CORE_FORKED_DESTINATION_H
#define TESTS_UNIT_CORE_FORKED_DESTINATION_H

#include <sys/types.h>

#include "core/journal.h"
#include "session_pair.h"

enum fall {
	FALL_COMMITTED, /* COMMIT was read, STARTED is not in the journal yet */
	FALL_STARTED,	/* it is, and nothing has run */
	FALL_NEVER
};

struct forked {
	pid_t pid;
	char state_dir[32]; /* its own */
	char listen[32];
};

/* Fork, before this process has threads, and let the child wait for one guest over TCP. */
void forked_start(struct forked *forked, enum fall fall);
/* Wait until it has ended. True: somebody killed it. */
bool forked_join(struct forked *forked);
void forked_fini(struct forked *forked);

/* What its journal says of the one session. */
enum journal_event forked_last_word(const struct forked *forked);

#endif
