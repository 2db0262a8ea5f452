/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination as the source's pins know it: it hears ask() and retire(), does both in that
 * order on a thread of its own, over the in-memory transport, and answers what it has registered.
 */
#ifndef TESTS_UNIT_CORE_FAR_SIDE_H
#define TESTS_UNIT_CORE_FAR_SIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/pins.h"

struct far_order {
	unsigned slice, rails; /* rails 0: retire it */
};

struct far_side {
	struct endpoint *source, *endpoint; /* its own is the second */
	struct pins *pins;		    /* to be set once they are */
	void *context;			    /* the test's own */
	atomic_bool hold;		    /* answer nothing for now */
	atomic_int fail_ask, fail_retire;   /* -errno, instead of doing it */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* all below */
	struct far_order *orders;
	unsigned n_orders, n_room, n_done;
	bool quit;
	pthread_t thread;
};

void far_side_start(struct far_side *far, struct endpoint *source, struct endpoint *endpoint);
/* After the pins have ended. */
void far_side_stop(struct far_side *far);

/* For struct pins_config; context is the far side. */
int far_side_ask(void *context, unsigned slice, unsigned rails, struct ramlift_error *error);
int far_side_retire(void *context, unsigned slice, struct ramlift_error *error);

void far_side_hold(struct far_side *far, bool hold);

/* What it has heard so far. */
unsigned far_side_orders(struct far_side *far);
struct far_order far_side_order(struct far_side *far, unsigned index);

#endif
