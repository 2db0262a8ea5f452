/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM as the engine divides it: regions into stripes, which map pages to lanes, and into
 * slices, which are registered.
 *
 *   region    |------------------------------|  as the VMM gave it
 *   slices    |----------|----------|--------|  2 to 256 MiB: registered, announced, addressed
 *   stripes   |-|-|-|-|-|-|-|-|-|-|-|-|-|-|-||  256 KiB, 64 pages: a word of a bitmap, one lane
 *
 * Stripes are numbered through all regions. None straddles a slice, no slice a region. Each region
 * begins at a multiple of 64 stripes, so that a summary word of a bitmap speaks for one region
 * only; the numbers in between stand for nothing.
 */
#ifndef CORE_RAM_H
#define CORE_RAM_H

#include <stdint.h>

#include "core/ramlift.h"
#include "core/transport.h"

#define STRIPE_PAGES 64u
#define STRIPE_BYTES ((uint64_t)STRIPE_PAGES * RAMLIFT_PAGE_BYTES)

#define SLICE_MIN_DEFAULT_BYTES (2ull << 20)
#define SLICE_MAX_DEFAULT_BYTES (256ull << 20)
#define SLICES_WANTED		64u
#define SLICE_MAX_BYTES		(4ull << 30)
#define RAM_MAX_SLICES		65000u /* more keys than that confuse rxe before Linux 6.1.11 */

struct ram {
	struct ramlift_region regions[RAMLIFT_MAX_REGIONS];
	unsigned n_regions;
	uint64_t first_stripe[RAMLIFT_MAX_REGIONS];
	unsigned first_slice[RAMLIFT_MAX_REGIONS];
	uint64_t n_stripes; /* numbers in use, and those in between */
	uint64_t bytes;
	uint64_t slice_bytes;
	struct slice *slices;
	unsigned n_slices;
};

/* Where a stripe is. */
struct stripe_place {
	char *hva;
	unsigned slice;
	uint64_t offset_bytes; /* within the slice */
};

/*
 * Check what a layout must fulfil whoever described it: counts, alignment, sizes, order, no
 * overlap. -EINVAL with a sentence. Addresses in this process are not looked at.
 */
int ram_check(const struct ramlift_region *regions, unsigned n_regions, uint64_t slice_bytes,
	      struct ramlift_error *error);

/* Copies the regions, which have passed ram_check(). -ENOMEM. */
int ram_init(struct ram *ram, const struct ramlift_region *regions, unsigned n_regions,
	     uint64_t slice_bytes);
void ram_fini(struct ram *ram);

/* How many of the pages from first_page on lie in the region; 0 if there is no such region. */
uint64_t ram_clip(const struct ram *ram, unsigned region, uint64_t first_page, uint64_t n_pages);

/*
 * Take the pages of the first stripe off a run of pages, which must not be empty: the result is
 * their bits in the stripe's word, *stripe its number from where first_page counts.
 */
static inline uint64_t stripe_take(uint64_t *first_page, uint64_t *n_pages, uint64_t *stripe)
{
	uint64_t bit = *first_page % STRIPE_PAGES;
	uint64_t n = STRIPE_PAGES - bit < *n_pages ? STRIPE_PAGES - bit : *n_pages;

	*stripe = *first_page / STRIPE_PAGES;
	*first_page += n;
	*n_pages -= n;
	return n == 64 ? ~0ull : ((1ull << n) - 1) << bit;
}

/* The stripe must exist: see ram_region_stripes(). */
void ram_locate(const struct ram *ram, uint64_t stripe, struct stripe_place *place);

/* How many stripes a region has, from first_stripe[region] on. */
static inline uint64_t ram_region_stripes(const struct ram *ram, unsigned region)
{
	return (ram->regions[region].size_bytes + STRIPE_BYTES - 1) / STRIPE_BYTES;
}

/* The region that a stripe is part of, or comes behind. */
unsigned ram_region_of_stripe(const struct ram *ram, uint64_t stripe);

/* Not one of the numbers in between. */
bool ram_has_stripe(const struct ram *ram, uint64_t stripe);

/* The region that a slice is part of. */
unsigned ram_region_of_slice(const struct ram *ram, unsigned slice);

/* The slice size where none is asked for: small enough that what is touched of a small guest is not
 * registered with much that is not, large enough that a large one has few. */
uint64_t ram_default_slice_bytes(const struct ramlift_region *regions, unsigned n_regions);

#endif
