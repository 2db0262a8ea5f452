/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam to whatever knows which pages the guest writes. Include ramlift.h, not this file.
 *
 * A source marks pages in the sink that start() gave it; it may do so from any thread, at any time
 * until stop() has returned. What it must keep to is rule 1, reset before read: a page is marked
 * only after the tracking of further writes to it has been armed again. The engine reads a page
 * after it was marked, so a write that comes later is seen by the next harvest.
 */
#ifndef RAMLIFT_DIRTY_SOURCE_H
#define RAMLIFT_DIRTY_SOURCE_H

#include <stdint.h>

struct ramlift_error;
struct ramlift_dirty_sink;

struct ramlift_dirty_source_ops {
	/* Begin tracking: every write after the return is reported. Called once a session. */
	int (*start)(void *source, struct ramlift_dirty_sink *sink, struct ramlift_error *error);

	/*
	 * Mark in the sink all pages written before the call; under a limit, what it allows, on
	 * average over seconds. After pause() and limit(0), all of them without exception.
	 * The session's thread.
	 */
	int (*harvest)(void *source, struct ramlift_error *error);

	/*
	 * Let the guest dirty at most so many pages a second, 0: no limit. -EOPNOTSUPP where it
	 * cannot; may be NULL, which means the same. The session's thread.
	 */
	int (*limit)(void *source, uint64_t pages_per_second, struct ramlift_error *error);

	/*
	 * Pages that wait in the source unharvested: a guest that is slowed down waits with full
	 * rings, of which the pages marked so far tell nothing. Cheap. May count pages more than
	 * once, and for no longer than moments too few. NULL: none ever wait. The session's thread.
	 */
	uint64_t (*backlog)(void *source);

	/* End tracking and leave the guest as it was. Called for every start() that succeeded, on
	 * any thread. */
	void (*stop)(void *source);
};

/*
 * Mark n_pages pages as dirty from first_page on, counted in RAMLIFT_PAGE_BYTES from the start of
 * the region with that index. Any thread; atomic, never blocks. What lies outside the region is
 * ignored.
 */
__attribute__((visibility("default"))) void ramlift_dirty_mark(struct ramlift_dirty_sink *sink,
							       unsigned region, uint64_t first_page,
							       uint64_t n_pages);

/*
 * The same from a bitmap: bit i of words[w] is page first_page + 64 * w + i. first_page must be a
 * multiple of 64.
 */
__attribute__((visibility("default"))) void
ramlift_dirty_mark_words(struct ramlift_dirty_sink *sink, unsigned region, uint64_t first_page,
			 const uint64_t *words, uint64_t n_words);

#endif
