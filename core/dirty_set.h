/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages that still have to be sent, in the order in which sending them pays: quiet first.
 *
 *   guest writes -> dirty source -> incoming --fold, each tick--> dirty -> lanes
 *
 * A stripe that the guest wrote to in the last tick is hot for the next one: lanes leave it alone
 * while they have others. So a page that is written over and over waits, and is sent once, at the
 * end; what a stripe keeps waiting with it is at most 63 pages. A page is in dirty, and at the same
 * time perhaps in incoming; it never leaves both but through a lane. This is the struct
 * ramlift_dirty_sink of the public interface.
 */
#ifndef CORE_DIRTY_SET_H
#define CORE_DIRTY_SET_H

#include "core/dirty_bitmap.h"
#include "core/ram.h"

struct ramlift_dirty_sink {
	const struct ram *ram;
	struct dirty_bitmap incoming;
	struct dirty_bitmap dirty;
	_Atomic uint64_t *hot;	      /* a bit for each stripe; a hint, nothing depends on it */
	uint64_t *hot_words;	      /* which words of hot are not 0; fold's own */
	_Atomic uint64_t added_pages; /* that came into dirty, since init */
};

/* -ENOMEM. ram must outlive the set. */
int dirty_set_init(struct ramlift_dirty_sink *set, const struct ram *ram);
void dirty_set_fini(struct ramlift_dirty_sink *set);

/*
 * Mark every page that may hold something as dirty: with skip_holes all but the holes of the
 * regions' memfds, which are zeros and stay so until a write that the dirty source sees. Call it
 * after the dirty source has started.
 */
void dirty_set_mark_present(struct ramlift_dirty_sink *set, bool skip_holes);

/* The same for some stripes of one region: those whose number, modulo n, is a bit of numbers. */
void dirty_set_mark_stripes(struct ramlift_dirty_sink *set, unsigned region, unsigned n,
			    uint64_t numbers, bool skip_holes);

/* Pages of one stripe straight into dirty: they were not written just now. Any thread. */
void dirty_set_add(struct ramlift_dirty_sink *set, uint64_t stripe, uint64_t bits);

/* Is something dirty in these stripes? A moment's answer while lanes run. */
bool dirty_set_has(const struct ramlift_dirty_sink *set, uint64_t first_stripe, uint64_t n_stripes);

/* One tick has passed. Returns the number of pages that came in since the last call. One thread
 * only. */
uint64_t dirty_set_fold(struct ramlift_dirty_sink *set);

/* All that ever had to be sent, as often as it had to, in bytes. Any thread. */
static inline uint64_t dirty_set_added_bytes(const struct ramlift_dirty_sink *set)
{
	return atomic_load(&set->added_pages) * RAMLIFT_PAGE_BYTES;
}

/* Of the 64 stripes behind a summary word, those that are better left alone for now. */
static inline uint64_t dirty_set_hot(const struct ramlift_dirty_sink *set, uint64_t summary)
{
	return atomic_load_explicit(&set->hot[summary], memory_order_relaxed);
}

#endif
