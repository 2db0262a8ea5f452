/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes over the in-memory transport and real pins, which a far side answers. The transport's table
 * of calls is wrapped by one that records: which lane carries which page, and what is told to fail.
 */
#ifndef TESTS_UNIT_CORE_LANES_RIG_H
#define TESTS_UNIT_CORE_LANES_RIG_H

#include <stdatomic.h>

#include "core/clock.h"
#include "core/lanes.h"
#include "far_side.h"
#include "tests/support/memory_transport.h"

#define PAGE		((uint64_t)RAMLIFT_PAGE_BYTES)
#define LONG_NS		(clock_now_ns() + 60 * NS_PER_S) /* against hangs only */
#define RIG_SLICE_BYTES (4 * STRIPE_BYTES)
#define RIG_TOKEN	0x1122334455667700ull /* and the lane */

/* Ragged ends everywhere; 130 stripes or so, so that summary words differ in where lanes begin. */
#define RIG_REGIONS 3u
#define RIG_PAGES_0 1u
#define RIG_PAGES_1 (64u * 9 + 5)
#define RIG_PAGES_2 (64u * 120 + 63)
#define RIG_PAGES   (RIG_PAGES_0 + RIG_PAGES_1 + RIG_PAGES_2)
#define RIG_STRIPES 256u /* numbers: 64 for the first, 64 for the second, 128 for the third */
extern const uint64_t rig_region_pages[RIG_REGIONS];

struct rig {
	struct ramlift_region source[RIG_REGIONS], destination[RIG_REGIONS];
	struct ram ram, there;
	struct ramlift_dirty_sink set;
	struct endpoint *from, *to;
	struct far_side far;
	struct pins *pins;
	struct lanes *lanes;
	unsigned n_rails, n_lanes;
	unsigned region_rails[RIG_REGIONS];
	uint64_t tokens[RAMLIFT_MAX_LANES]; /* once they are to finish */

	/* To be chosen between rig_init() and rig_start(). */
	uint64_t budget_bytes;
	bool far_is_silent; /* until far_side_hold() */
	bool replaces;	    /* lanes that are lost, whenever there is a tick */
};

/* What the wrapped calls see; one rig at a time. */
struct rig_seen {
	const struct rig *rig;
	_Atomic unsigned char owner[RIG_STRIPES * STRIPE_PAGES]; /* lane + 1 */
	_Atomic unsigned long posts, on_two_lanes, outside, tokens, after_token;
	atomic_bool has_token[RAMLIFT_MAX_LANES];
	atomic_bool block; /* posts wait until this is over, or abort() */
	atomic_bool block_registering;
	atomic_bool aborted;
	int fail_silently; /* posts return this, and say nothing */
	atomic_bool fenced[RAMLIFT_MAX_LANES];
};

extern struct rig_seen seen;

/* One rail. */
void rig_init(struct rig *rig, unsigned n_lanes);
void rig_init_with_rails(struct rig *rig, unsigned n_rails, unsigned n_lanes,
			 const unsigned region_rails[RIG_REGIONS]);
/* The lanes ask for the slices that they find something in. */
void rig_start(struct rig *rig, const struct lanes_config *extra);
/* And nothing was done that lanes must not do. */
void rig_fini(struct rig *rig);

void rig_write(struct rig *rig, unsigned region, uint64_t page, unsigned value);
/* Something into every page, and every page dirty. */
void rig_fill(struct rig *rig);
/* The third region only; but everything is dirty. */
void rig_dirty_all(struct rig *rig);
/* A guest that writes while the lanes run, with ticks in between. */
void rig_write_for_a_while(struct rig *rig, unsigned n_writes);
/* Wait until as many lanes are lost, replaced or not. */
void rig_await_lost(struct rig *rig, unsigned n);
/* What a session does for each lane that is lost now. 0 or what lanes_adopt() says. */
int rig_replace(struct rig *rig, struct ramlift_error *error);
/* lanes_finish(), with tokens of the rig's. */
void rig_tell_finish(struct rig *rig);
/* Tokens, and both sides' memory is the same. */
void rig_finish(struct rig *rig);
void rig_assert_same_memory(const struct rig *rig);
/* All lanes' together. */
void rig_sum_stats(struct rig *rig, struct ramlift_lane_stats *sum);

#endif
