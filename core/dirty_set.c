/* SPDX-License-Identifier: Apache-2.0 */
#include "core/dirty_set.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int dirty_set_init(struct ramlift_dirty_sink *set, const struct ram *ram)
{
	uint64_t n_summary;

	*set = (struct ramlift_dirty_sink){ .ram = ram };
	if (dirty_bitmap_init(&set->incoming, ram->n_stripes) ||
	    dirty_bitmap_init(&set->dirty, ram->n_stripes))
		goto undo;
	n_summary = set->dirty.n_summary;
	set->hot = calloc(n_summary, sizeof(*set->hot));
	set->hot_words = calloc((n_summary + 63) / 64, sizeof(*set->hot_words));
	if (!set->hot || !set->hot_words)
		goto undo;
	return 0;

undo:
	dirty_set_fini(set);
	return -ENOMEM;
}

void dirty_set_fini(struct ramlift_dirty_sink *set)
{
	free(set->hot_words);
	free(set->hot);
	dirty_bitmap_fini(&set->dirty);
	dirty_bitmap_fini(&set->incoming);
}

static uint64_t region_pages(const struct ramlift_region *region)
{
	return region->size_bytes / RAMLIFT_PAGE_BYTES;
}

void dirty_set_add(struct ramlift_dirty_sink *set, uint64_t stripe, uint64_t bits)
{
	uint64_t fresh = dirty_bitmap_set(&set->dirty, stripe, bits);

	atomic_fetch_add(&set->added_pages, (uint64_t)__builtin_popcountll(fresh));
}

/* Stripes of a region, all of them or some: see dirty_set_mark_stripes(). */
struct choice {
	unsigned region, n;
	uint64_t numbers;
};

static void add_pages(struct ramlift_dirty_sink *set, const struct choice *choice,
		      uint64_t first_page, uint64_t n_pages)
{
	while (n_pages) {
		uint64_t stripe;
		uint64_t bits = stripe_take(&first_page, &n_pages, &stripe);

		stripe += set->ram->first_stripe[choice->region];
		if (choice->numbers >> stripe % choice->n & 1)
			dirty_set_add(set, stripe, bits);
	}
}

void ramlift_dirty_mark(struct ramlift_dirty_sink *sink, unsigned region, uint64_t first_page,
			uint64_t n_pages)
{
	n_pages = ram_clip(sink->ram, region, first_page, n_pages);
	while (n_pages) {
		uint64_t stripe;
		uint64_t bits = stripe_take(&first_page, &n_pages, &stripe);

		dirty_bitmap_set(&sink->incoming, sink->ram->first_stripe[region] + stripe, bits);
	}
}

void ramlift_dirty_mark_words(struct ramlift_dirty_sink *sink, unsigned region, uint64_t first_page,
			      const uint64_t *words, uint64_t n_words)
{
	uint64_t pages;

	if (region >= sink->ram->n_regions || first_page % STRIPE_PAGES)
		return;
	pages = region_pages(&sink->ram->regions[region]);
	for (uint64_t w = 0; w < n_words && first_page < pages; w++, first_page += STRIPE_PAGES) {
		uint64_t bits = words[w];

		if (pages - first_page < STRIPE_PAGES)
			bits &= (1ull << (pages - first_page)) - 1;
		dirty_bitmap_set(&sink->incoming,
				 sink->ram->first_stripe[region] + first_page / STRIPE_PAGES, bits);
	}
}

/* Mark the data of a memfd's part; false where the file cannot tell. */
static bool mark_data(struct ramlift_dirty_sink *set, const struct choice *choice)
{
	const struct ramlift_region *region = &set->ram->regions[choice->region];
	off_t begin = (off_t)region->memfd_offset;
	off_t end = begin + (off_t)region->size_bytes;
	off_t position = begin;

	while (position < end) {
		off_t data = lseek(region->memfd, position, SEEK_DATA);
		off_t hole;

		if (data < 0)
			return errno == ENXIO; /* no data from here on */
		if (data >= end)
			return true;
		hole = lseek(region->memfd, data, SEEK_HOLE);
		if (hole < 0)
			return false;
		if (hole > end)
			hole = end;
		add_pages(set, choice, (uint64_t)(data - begin) / RAMLIFT_PAGE_BYTES,
			  ((uint64_t)(hole - data) + RAMLIFT_PAGE_BYTES - 1) / RAMLIFT_PAGE_BYTES);
		position = hole;
	}
	return true;
}

void dirty_set_mark_stripes(struct ramlift_dirty_sink *set, unsigned region, unsigned n,
			    uint64_t numbers, bool skip_holes)
{
	const struct choice choice = { region, n, numbers };

	if (skip_holes && set->ram->regions[region].memfd >= 0 && mark_data(set, &choice))
		return;
	add_pages(set, &choice, 0, region_pages(&set->ram->regions[region]));
}

void dirty_set_mark_present(struct ramlift_dirty_sink *set, bool skip_holes)
{
	for (unsigned i = 0; i < set->ram->n_regions; i++)
		dirty_set_mark_stripes(set, i, 1, 1, skip_holes);
}

bool dirty_set_has(const struct ramlift_dirty_sink *set, uint64_t first_stripe, uint64_t n_stripes)
{
	for (uint64_t i = first_stripe; i < first_stripe + n_stripes && i < set->dirty.n_words;
	     i++) {
		if (atomic_load_explicit(&set->dirty.words[i], memory_order_relaxed))
			return true;
	}
	return false;
}

/* What was hot has had a tick of rest; what comes in now has not. */
static void cool(struct ramlift_dirty_sink *set)
{
	for (uint64_t i = 0; i < (set->dirty.n_summary + 63) / 64; i++) {
		for (unsigned j; bit_next(&set->hot_words[i], &j);)
			atomic_store_explicit(&set->hot[i * 64 + j], 0, memory_order_relaxed);
	}
}

static void heat(struct ramlift_dirty_sink *set, uint64_t summary, uint64_t stripes)
{
	set->hot_words[summary / 64] |= 1ull << (summary % 64);
	atomic_store_explicit(&set->hot[summary], stripes, memory_order_relaxed);
}

/* Move what came in behind a summary word; returns the number of pages,
 * adds those that were clean. */
static uint64_t fold_summary(struct ramlift_dirty_sink *set, uint64_t summary, uint64_t *n_fresh)
{
	uint64_t stripes = dirty_bitmap_claim(&set->incoming, summary, ~0ull);
	uint64_t n_pages = 0;

	heat(set, summary, stripes);
	for (unsigned i; bit_next(&stripes, &i);) {
		uint64_t bits = dirty_bitmap_take(&set->incoming, summary * 64 + i);
		uint64_t fresh = dirty_bitmap_set(&set->dirty, summary * 64 + i, bits);

		n_pages += (uint64_t)__builtin_popcountll(bits);
		*n_fresh += (uint64_t)__builtin_popcountll(fresh);
	}
	return n_pages;
}

/* Nobody else takes from incoming, so its top is emptied like the levels below it. */
uint64_t dirty_set_fold(struct ramlift_dirty_sink *set)
{
	struct dirty_bitmap *incoming = &set->incoming;
	uint64_t n_pages = 0, n_fresh = 0;

	cool(set);
	for (uint64_t top = 0; top < dirty_bitmap_n_top(incoming); top++) {
		uint64_t summaries = dirty_bitmap_take_top(incoming, top);

		for (unsigned i; bit_next(&summaries, &i);)
			n_pages += fold_summary(set, top * 64 + i, &n_fresh);
	}
	atomic_fetch_add(&set->added_pages, n_fresh);
	return n_pages;
}
