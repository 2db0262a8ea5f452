/* SPDX-License-Identifier: Apache-2.0 */
/* Pins over the in-memory transport, which ends the process where a slice is written to that is not
 * registered, and a far side that answers. */
#ifndef TESTS_UNIT_CORE_PINS_RIG_H
#define TESTS_UNIT_CORE_PINS_RIG_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/clock.h"
#include "far_side.h"
#include "tests/support/memory_transport.h"

#define PAGE	    ((uint64_t)RAMLIFT_PAGE_BYTES)
#define SLICE_BYTES STRIPE_BYTES
#define N_FIRST	    6u
#define N_SECOND    3u /* the last of them is half a slice */
#define N_SLICES    (N_FIRST + N_SECOND)
#define N_LANES	    6u
#define LONG_NS	    (clock_now_ns() + 60 * NS_PER_S) /* against hangs only */
#define A_MOMENT_US 30000

struct rig {
	struct ramlift_region here[2], there[2];
	struct ram ram, ram_there;
	struct endpoint *from, *to;
	struct far_side far;
	struct pins *pins;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned n_usable; /* calls of usable() */
};

/* Registrations here wait while it is. */
extern atomic_bool gate_is_closed;

/* The first region's lanes are those of rail 0, the second's those of both. */
void rig_init(struct rig *rig, uint64_t budget_bytes, unsigned n_threads);
void rig_fini(struct rig *rig);

/* Hold a slice, as a lane does. */
void await(struct rig *rig, unsigned slice);
/* Until all that is wanted is usable; looks as a session does, each tick. */
void settle(struct rig *rig);
void await_far_orders(struct rig *rig, unsigned n);
void await_usable(struct rig *rig, unsigned n);
void assert_usable_calls(struct rig *rig, unsigned n);
void assert_order(struct rig *rig, unsigned index, unsigned slice, unsigned rails);

#endif
