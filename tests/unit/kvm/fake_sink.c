/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's part of the dirty source's seam, for tests of the other part. */
#include "fake_sink.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "core/ramlift.h"

void fake_sink_init(struct ramlift_dirty_sink *sink, const uint64_t *n_pages, unsigned n_regions)
{
	*sink = (struct ramlift_dirty_sink){ 0 };
	for (unsigned i = 0; i < n_regions; i++) {
		sink->n_pages[i] = n_pages[i];
		sink->marked[i] = calloc(n_pages[i], 1);
		if (!sink->marked[i])
			abort();
	}
}

void fake_sink_fini(struct ramlift_dirty_sink *sink)
{
	for (unsigned i = 0; i < FAKE_SINK_REGIONS; i++)
		free((void *)sink->marked[i]);
}

void ramlift_dirty_mark(struct ramlift_dirty_sink *sink, unsigned region, uint64_t first_page,
			uint64_t n_pages)
{
	if (sink->on_mark)
		sink->on_mark(sink->context, region, first_page, n_pages);
	for (uint64_t i = 0; i < n_pages; i++) {
		if (first_page + i < sink->n_pages[region])
			atomic_store(&sink->marked[region][first_page + i], 1);
	}
	atomic_fetch_add(&sink->marks, n_pages);
}

void ramlift_dirty_mark_words(struct ramlift_dirty_sink *sink, unsigned region, uint64_t first_page,
			      const uint64_t *words, uint64_t n_words)
{
	for (uint64_t i = 0; i < n_words * 64; i++) {
		if (words[i / 64] >> (i % 64) & 1)
			ramlift_dirty_mark(sink, region, first_page + i, 1);
	}
}

bool fake_sink_take(struct ramlift_dirty_sink *sink, unsigned region, uint64_t page)
{
	return atomic_exchange(&sink->marked[region][page], 0);
}

uint64_t fake_sink_clear(struct ramlift_dirty_sink *sink)
{
	uint64_t n = 0;

	for (unsigned region = 0; region < FAKE_SINK_REGIONS; region++) {
		for (uint64_t page = 0; page < sink->n_pages[region]; page++)
			n += fake_sink_take(sink, region, page);
	}
	return n;
}
