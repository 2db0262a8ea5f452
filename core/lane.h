/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the lanes: what lanes.c, which keeps the threads, lane_sweep.c, which is what one of them
 * does, and lane_adopt.c, when one is lost, share. */
#ifndef CORE_LANE_H
#define CORE_LANE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/lanes.h"

#define NO_SLICE UINT32_MAX

/* A lane's part of a region: of every n stripes those with these numbers; n 0: none. */
struct lane_share {
	unsigned n;
	_Atomic uint64_t numbers; /* as bits; they grow as the lane adopts others' */
};

_Static_assert(RAMLIFT_MAX_LANES <= 64, "numbers and lanes are kept as bits");

/* Counters are written by the lane's own thread only and read by others as they are. */
struct lane {
	struct lanes *lanes;
	unsigned index;
	pthread_t thread;
	uint64_t token;
	struct lane_share shares[RAMLIFT_MAX_REGIONS];
	uint32_t held_slice; /* NO_SLICE: none */
	unsigned dry_pages;  /* looked at since the last page of zeros */
	unsigned dry_stripes;
	uint64_t taken_pages; /* from the set; read by others once the lane is lost */
	uint64_t paced_ns;    /* slept for the bandwidth limit */
	_Atomic int numa_node;
	_Atomic uint64_t bytes_sent, writes, zero_pages, sweeps, busy_ns;
	/* How often the lane was given stripes, its own included; and as of the last sweep. */
	_Atomic unsigned given, been_through;
	struct ramlift_error error; /* why it failed; read by others once it is done */
} __attribute__((aligned(64)));

/* Runs of pages that wait for one doorbell. On its thread's stack, and so on its NUMA node. */
struct batch {
	struct transport_write writes[TRANSPORT_MAX_BATCH];
	unsigned n;
	uint64_t bytes;
};

enum { RUNNING, FINISHING, STOPPING };

struct lanes {
	struct lanes_config config;
	_Atomic uint64_t *seen;	  /* with skip_zeros: a bit for each stripe that was looked at */
	_Atomic int state;	  /* leaves RUNNING under the lock */
	_Atomic uint64_t pace_ns; /* when the next batch may go, with a bandwidth limit */
	/* Lanes as bits, written under the lock: lost at any time; of those, the ones whose stripes
	 * others carry. */
	_Atomic uint64_t lost, replaced;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* any of the below, state, or a slice */
	uint64_t work;		/* counts lanes_wake() */
	unsigned n_idle;
	unsigned n_done;     /* have delivered their tokens */
	struct lane *failed; /* the first one that could not be replaced */

	unsigned n_started;
	struct lane lane[];
};

static inline bool lanes_stopping(struct lanes *lanes)
{
	return atomic_load(&lanes->state) == STOPPING;
}

static inline bool lane_is_lost(struct lanes *lanes, unsigned lane)
{
	return atomic_load(&lanes->lost) >> lane & 1;
}

/* lane_sweep.c: go once through what the lane has to send; *found: there was something. */
int lane_sweep(struct lane *lane, struct batch *batch, bool *found);

/* Let go of the slice that the lane posts to. What it has posted there must have completed. */
void lane_release_slice(struct lane *lane);

/* lane_adopt.c: the lane has failed. Under the lock. */
void lane_lose(struct lane *lane, int ret);

#endif
