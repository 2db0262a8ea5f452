/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages that still have to be sent, in the order in which sending them pays: quiet first.
 *
 *   guest writes -> dirty source -> incoming --fold--> recent --a tick of rest--> quiet -> lanes
 *                                                     ^                            |
 *                                                     '------- written again ------'
 *
 * A page that the guest keeps writing stays in recent, where lanes come only when their quiet
 * stripes are empty. A page is in recent or quiet, and at the same time perhaps in incoming; it
 * never leaves all three but through a lane. This is the struct ramlift_dirty_sink of the public
 * interface.
 */
#ifndef CORE_DIRTY_SET_H
#define CORE_DIRTY_SET_H

#include "core/dirty_bitmap.h"
#include "core/ram.h"

struct ramlift_dirty_sink {
	const struct ram *ram;
	struct dirty_bitmap incoming;
	struct dirty_bitmap recent;
	struct dirty_bitmap quiet;
};

/* -ENOMEM. ram must outlive the set. */
int dirty_set_init(struct ramlift_dirty_sink *set, const struct ram *ram);
void dirty_set_fini(struct ramlift_dirty_sink *set);

/*
 * Mark every page that may hold something as quiet: with skip_holes all but the holes of the
 * regions' memfds, which are zeros and stay so until a write that the dirty source sees. Call it
 * after the dirty source has started.
 */
void dirty_set_mark_present(struct ramlift_dirty_sink *set, bool skip_holes);

/* One tick has passed. Returns the number of pages that came in since the last call. One thread
 * only. */
uint64_t dirty_set_fold(struct ramlift_dirty_sink *set);

/* Pages in recent and quiet; exact only while no lane runs. */
uint64_t dirty_set_count(const struct ramlift_dirty_sink *set);

#endif
