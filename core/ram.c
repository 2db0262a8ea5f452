/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ram.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit;
}

static int check_region(const struct ramlift_region *region, unsigned index,
			struct ramlift_error *error)
{
	if (!region->size_bytes || region->size_bytes % RAMLIFT_PAGE_BYTES ||
	    region->gpa % RAMLIFT_PAGE_BYTES)
		return error_set(error, -EINVAL,
				 "region %u (gpa 0x%" PRIx64 ", %" PRIu64
				 " bytes) is not made of whole 4 KiB pages",
				 index, region->gpa, region->size_bytes);
	if (region->gpa + region->size_bytes < region->gpa || region->size_bytes > 1ull << 52)
		return error_set(error, -EINVAL,
				 "region %u is larger than guest-physical addresses go", index);
	return 0;
}

int ram_check(const struct ramlift_region *regions, unsigned n_regions, uint64_t slice_bytes,
	      struct ramlift_error *error)
{
	uint64_t n_slices = 0;

	if (!n_regions || n_regions > RAMLIFT_MAX_REGIONS)
		return error_set(error, -EINVAL, "a guest has 1 to %u regions, this one has %u",
				 RAMLIFT_MAX_REGIONS, n_regions);
	if (!slice_bytes || slice_bytes % STRIPE_BYTES || slice_bytes > SLICE_MAX_BYTES)
		return error_set(error, -EINVAL,
				 "slice size %" PRIu64 " is not a multiple of 256 KiB up to 4 GiB",
				 slice_bytes);
	for (unsigned i = 0; i < n_regions; i++) {
		int ret = check_region(&regions[i], i, error);

		if (ret)
			return ret;
		if (i && regions[i].gpa < regions[i - 1].gpa + regions[i - 1].size_bytes)
			return error_set(error, -EINVAL,
					 "regions %u and %u overlap or are out of order", i - 1, i);
		n_slices += round_up(regions[i].size_bytes, slice_bytes);
	}
	if (n_slices > RAM_MAX_SLICES)
		return error_set(error, -EINVAL,
				 "%" PRIu64 " slices are too many: use larger slices", n_slices);
	return 0;
}

static void cut_slices(struct ram *ram, unsigned index)
{
	const struct ramlift_region *region = &ram->regions[index];

	for (uint64_t offset = 0; offset < region->size_bytes; offset += ram->slice_bytes) {
		uint64_t left = region->size_bytes - offset;
		struct slice *slice = &ram->slices[ram->n_slices++];

		slice->hva = (char *)region->hva + offset;
		slice->size_bytes = left < ram->slice_bytes ? left : ram->slice_bytes;
	}
}

int ram_init(struct ram *ram, const struct ramlift_region *regions, unsigned n_regions,
	     uint64_t slice_bytes)
{
	unsigned n_slices = 0;

	memset(ram, 0, sizeof(*ram));
	for (unsigned i = 0; i < n_regions; i++)
		n_slices += (unsigned)round_up(regions[i].size_bytes, slice_bytes);
	ram->slices = calloc(n_slices, sizeof(*ram->slices));
	if (!ram->slices)
		return -ENOMEM;
	ram->slice_bytes = slice_bytes;
	ram->n_regions = n_regions;
	for (unsigned i = 0; i < n_regions; i++) {
		ram->regions[i] = regions[i];
		ram->first_stripe[i] = ram->n_stripes;
		ram->first_slice[i] = ram->n_slices;
		ram->n_stripes += round_up(regions[i].size_bytes, 64 * STRIPE_BYTES) * 64;
		ram->bytes += regions[i].size_bytes;
		cut_slices(ram, i);
	}
	return 0;
}

void ram_fini(struct ram *ram)
{
	free(ram->slices);
	ram->slices = NULL;
}

uint64_t ram_clip(const struct ram *ram, unsigned region, uint64_t first_page, uint64_t n_pages)
{
	uint64_t pages;

	if (region >= ram->n_regions)
		return 0;
	pages = ram->regions[region].size_bytes / RAMLIFT_PAGE_BYTES;
	if (first_page >= pages)
		return 0;
	return n_pages < pages - first_page ? n_pages : pages - first_page;
}

unsigned ram_region_of_stripe(const struct ram *ram, uint64_t stripe)
{
	unsigned region = ram->n_regions - 1;

	while (stripe < ram->first_stripe[region])
		region--;
	return region;
}

bool ram_has_stripe(const struct ram *ram, uint64_t stripe)
{
	unsigned region = ram_region_of_stripe(ram, stripe);

	return stripe - ram->first_stripe[region] < ram_region_stripes(ram, region);
}

void ram_locate(const struct ram *ram, uint64_t stripe, struct stripe_place *place)
{
	unsigned region = ram_region_of_stripe(ram, stripe);
	uint64_t offset_bytes;

	offset_bytes = (stripe - ram->first_stripe[region]) * STRIPE_BYTES;
	place->hva = (char *)ram->regions[region].hva + offset_bytes;
	place->slice = ram->first_slice[region] + (unsigned)(offset_bytes / ram->slice_bytes);
	place->offset_bytes = offset_bytes % ram->slice_bytes;
}

unsigned ram_region_of_slice(const struct ram *ram, unsigned slice)
{
	unsigned region = ram->n_regions - 1;

	while (slice < ram->first_slice[region])
		region--;
	return region;
}

uint64_t ram_default_slice_bytes(const struct ramlift_region *regions, unsigned n_regions)
{
	uint64_t slice_bytes = SLICE_MIN_DEFAULT_BYTES, bytes = 0;

	for (unsigned i = 0; i < n_regions; i++)
		bytes += regions[i].size_bytes;
	while (slice_bytes < SLICE_MAX_DEFAULT_BYTES && slice_bytes * SLICES_WANTED < bytes)
		slice_bytes *= 2;
	return slice_bytes;
}
