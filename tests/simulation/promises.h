/* SPDX-License-Identifier: Apache-2.0 */
/* What the two sides have told each other, as it passed the network, and whether it is true. */
#ifndef TESTS_SIMULATION_PROMISES_H
#define TESTS_SIMULATION_PROMISES_H

#include "guest.h"
#include "host.h"

void promises_begin(void);
void promises_see(const struct frame *frame);

/* The process that took the last session that was committed is no more. */
bool promises_taker_died(void);

/* A copy that came by a session is about to run. */
void promises_arrived(const struct copy *copy);

#endif
