/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transport inside one process, for tests. Lane n holds back its last 16 * n writes until it is
 * drained, so that lanes run apart as they may on a real link: whoever sends one page on two lanes
 * sees the older content land last. What the engine may not do ends the process at once: to post to
 * a slice that is not registered for the lane's rail on both sides, or with the key of an earlier
 * registration; to register twice; to deregister what is not registered, or still being written; to
 * post to a stripe of a lane that has failed before that is fenced; to post on a lane that was
 * dropped, or fence one that was not.
 */
#ifndef TESTS_MEMORY_TRANSPORT_H
#define TESTS_MEMORY_TRANSPORT_H

#include <stdbool.h>

#include "core/transport.h"

struct memory_faults {
	unsigned long fail_post; /* the Nth post fails with -EIO; 0: none does */
	unsigned long fail_register;
	unsigned long fail_connect;
	unsigned long fail_accept;
	bool lose_tokens;
	/*
	 * By lane: its Nth post fails, and all that follow; 0: none does. Of what it holds back
	 * then, the older half arrives at the moment of the fence, the rest never.
	 */
	unsigned long fail_lane_post[RAMLIFT_MAX_LANES];
	uint64_t lose_token_of; /* of these lanes, as bits */
	bool fail_fence_lane;
	unsigned register_us; /* each registration takes so long */
};

#define MEMORY_MAX_SLICES 4096u

/* What one side has registered. */
struct memory_account {
	uint64_t bytes, most_bytes; /* now, and at any time so far */
	unsigned long n_registrations, n_deregistrations;
	bool ever[MEMORY_MAX_SLICES]; /* by slice: at any time so far */
};

/* Faults of the endpoints made from now on; NULL: none. */
void memory_transport_set_faults(const struct memory_faults *faults);

/* Writes that arrived after the fence, in all endpoints so far: anything but 0 is a defect. */
unsigned long memory_transport_late_writes(void);

/* Endpoints that are not closed. */
int memory_transport_open_endpoints(void);

/* Of the last endpoint of each side, closed or not; NULL: not that one. */
void memory_transport_accounts(struct memory_account *source, struct memory_account *destination);

/* The NUMA nodes of the first rails, those of the others are unknown. */
void memory_transport_set_rail_nodes(const int *nodes, unsigned n_rails);

const struct ramlift_transport *memory_transport(void);

/* The same, with rails that have names: "memory" and whatever follows. */
const struct ramlift_transport *memory_transport_with_rails(void);

#endif
