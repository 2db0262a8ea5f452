/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the lanes: what lanes.c, which keeps the threads, and lane_sweep.c, which is what one of
 * them does, share. */
#ifndef CORE_LANE_H
#define CORE_LANE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/lanes.h"

#define NO_SLICE UINT32_MAX

/* A lane's part of a region: of every n stripes the one with that number; n 0: none. */
struct lane_share {
	unsigned n, number;
};

/* Counters are written by the lane's own thread only and read by others as they are. */
struct lane {
	struct lanes *lanes;
	unsigned index;
	pthread_t thread;
	struct lane_share shares[RAMLIFT_MAX_REGIONS];
	uint32_t held_slice; /* NO_SLICE: none */
	unsigned dry_pages;  /* looked at since the last page of zeros */
	unsigned dry_stripes;
	uint64_t paced_ns; /* slept for the bandwidth limit */
	_Atomic int numa_node;
	_Atomic uint64_t bytes_sent, writes, zero_pages, sweeps, busy_ns;
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
	_Atomic uint64_t *seen; /* with skip_zeros: a bit for each stripe that was looked at */
	_Atomic int state;
	_Atomic uint64_t pace_ns; /* when the next batch may go, with a bandwidth limit */
	uint64_t token;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* any of the below, state, or a slice */
	uint64_t work;		/* counts lanes_wake() */
	unsigned n_idle;
	unsigned n_done;
	struct lane *failed; /* the first one */

	unsigned n_started;
	struct lane lane[];
};

static inline bool lanes_stopping(struct lanes *lanes)
{
	return atomic_load(&lanes->state) == STOPPING;
}

/* lane_sweep.c: go once through what the lane has to send; *found: there was something. */
int lane_sweep(struct lane *lane, struct batch *batch, bool *found);

/* Let go of the slice that the lane posts to. What it has posted there must have completed. */
void lane_release_slice(struct lane *lane);

#endif
