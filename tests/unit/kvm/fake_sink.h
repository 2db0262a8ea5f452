/* SPDX-License-Identifier: Apache-2.0 */
/* A dirty sink of bytes: which pages of which region were marked, and how often. */
#ifndef TESTS_UNIT_KVM_FAKE_SINK_H
#define TESTS_UNIT_KVM_FAKE_SINK_H

#include <stdbool.h>
#include <stdint.h>

#define FAKE_SINK_REGIONS 2u

struct ramlift_dirty_sink {
	uint64_t n_pages[FAKE_SINK_REGIONS];
	_Atomic uint8_t *marked[FAKE_SINK_REGIONS];
	_Atomic uint64_t marks; /* pages, all together */
	void (*on_mark)(void *context, unsigned region, uint64_t first_page, uint64_t n_pages);
	void *context;
};

void fake_sink_init(struct ramlift_dirty_sink *sink, const uint64_t *n_pages, unsigned n_regions);
void fake_sink_fini(struct ramlift_dirty_sink *sink);

/* Whether a page is marked; takes the mark off. */
bool fake_sink_take(struct ramlift_dirty_sink *sink, unsigned region, uint64_t page);

/* Take all marks off; how many pages were marked. */
uint64_t fake_sink_clear(struct ramlift_dirty_sink *sink);

#endif
