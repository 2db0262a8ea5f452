/* SPDX-License-Identifier: Apache-2.0 */
#include "core/dirty_set.h"

#include <errno.h>
#include <unistd.h>

int dirty_set_init(struct ramlift_dirty_sink *set, const struct ram *ram)
{
	set->ram = ram;
	if (dirty_bitmap_init(&set->incoming, ram->n_stripes))
		goto nothing;
	if (dirty_bitmap_init(&set->recent, ram->n_stripes))
		goto fini_incoming;
	if (dirty_bitmap_init(&set->quiet, ram->n_stripes))
		goto fini_recent;
	return 0;

fini_recent:
	dirty_bitmap_fini(&set->recent);
fini_incoming:
	dirty_bitmap_fini(&set->incoming);
nothing:
	return -ENOMEM;
}

void dirty_set_fini(struct ramlift_dirty_sink *set)
{
	dirty_bitmap_fini(&set->quiet);
	dirty_bitmap_fini(&set->recent);
	dirty_bitmap_fini(&set->incoming);
}

static uint64_t region_pages(const struct ramlift_region *region)
{
	return region->size_bytes / RAMLIFT_PAGE_BYTES;
}

static void mark(struct dirty_bitmap *bitmap, uint64_t first_stripe, uint64_t first_page,
		 uint64_t n_pages)
{
	while (n_pages) {
		uint64_t stripe;
		uint64_t bits = stripe_take(&first_page, &n_pages, &stripe);

		dirty_bitmap_set(bitmap, first_stripe + stripe, bits);
	}
}

void ramlift_dirty_mark(struct ramlift_dirty_sink *sink, unsigned region, uint64_t first_page,
			uint64_t n_pages)
{
	n_pages = ram_clip(sink->ram, region, first_page, n_pages);
	if (n_pages)
		mark(&sink->incoming, sink->ram->first_stripe[region], first_page, n_pages);
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
static bool mark_data(struct ramlift_dirty_sink *set, unsigned index)
{
	const struct ramlift_region *region = &set->ram->regions[index];
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
		mark(&set->quiet, set->ram->first_stripe[index],
		     (uint64_t)(data - begin) / RAMLIFT_PAGE_BYTES,
		     ((uint64_t)(hole - data) + RAMLIFT_PAGE_BYTES - 1) / RAMLIFT_PAGE_BYTES);
		position = hole;
	}
	return true;
}

void dirty_set_mark_present(struct ramlift_dirty_sink *set, bool skip_holes)
{
	for (unsigned i = 0; i < set->ram->n_regions; i++) {
		const struct ramlift_region *region = &set->ram->regions[i];

		if (skip_holes && region->memfd >= 0 && mark_data(set, i))
			continue;
		mark(&set->quiet, set->ram->first_stripe[i], 0, region_pages(region));
	}
}

/* Pages written since the last tick: into recent, and out of quiet, so that they wait. */
static uint64_t fold_incoming(struct ramlift_dirty_sink *set, uint64_t stripe)
{
	uint64_t bits = dirty_bitmap_take(&set->incoming, stripe);

	/* First in, then out: a lane that looks in between finds a page twice, never not at all. */
	dirty_bitmap_set(&set->recent, stripe, bits);
	atomic_fetch_and(&set->quiet.words[stripe], ~bits);
	return (uint64_t)__builtin_popcountll(bits);
}

/* Pages that had been recent before this tick and were not written in it. */
static void fold_recent(struct ramlift_dirty_sink *set, uint64_t stripe)
{
	uint64_t written = atomic_load(&set->incoming.words[stripe]);
	uint64_t quiet = atomic_load(&set->recent.words[stripe]) & ~written;

	/* Only what is still there when it is taken out goes on: a lane may have sent it meanwhile.
	 */
	quiet &= atomic_fetch_and(&set->recent.words[stripe], ~quiet);
	dirty_bitmap_set(&set->quiet, stripe, quiet);
	if (atomic_load(&set->recent.words[stripe]))
		atomic_fetch_or(&set->recent.summary[stripe / 64], 1ull << (stripe % 64));
}

uint64_t dirty_set_fold(struct ramlift_dirty_sink *set)
{
	uint64_t n_pages = 0;

	for (uint64_t s = 0; s < set->recent.n_summary; s++) {
		uint64_t stripes = dirty_bitmap_claim(&set->recent, s, ~0ull);

		for (unsigned i; bit_next(&stripes, &i);)
			fold_recent(set, s * 64 + i);
	}
	for (uint64_t s = 0; s < set->incoming.n_summary; s++) {
		uint64_t stripes = dirty_bitmap_claim(&set->incoming, s, ~0ull);

		for (unsigned i; bit_next(&stripes, &i);)
			n_pages += fold_incoming(set, s * 64 + i);
	}
	return n_pages;
}

uint64_t dirty_set_count(const struct ramlift_dirty_sink *set)
{
	return dirty_bitmap_count(&set->recent) + dirty_bitmap_count(&set->quiet);
}
