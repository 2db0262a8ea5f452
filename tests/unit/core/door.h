/* SPDX-License-Identifier: Apache-2.0 */
/* A destination's port, and who was turned away there. */
#ifndef TESTS_UNIT_CORE_DOOR_H
#define TESTS_UNIT_CORE_DOOR_H

#include <pthread.h>

#include "session_pair.h"

#define SOON_NS (60 * NS_PER_S) /* against hangs only */

/* Who was turned away, and why. */
struct door {
	struct pair pair;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned n_turned_away;
	struct ramlift_error last;
	char peer[80];
};

void door_init(struct door *door);
/* The destination is there; nobody waits for a guest yet. */
void door_fini(struct door *door);

/* Until so many were turned away; what the last one was told. */
struct ramlift_error await_turned_away(struct door *door, unsigned n);

/* A connection to it. */
int knock(const struct door *door);

/* A guest can move there now. */
void assert_moves(struct door *door);

#endif
