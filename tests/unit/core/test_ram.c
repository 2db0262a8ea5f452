/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts that are refused, and where slices and stripes lie, against a
 * walk through the regions. */
#include <errno.h>
#include <string.h>

#include "core/ram.h"
#include "tests/support/cmocka_all.h"

#define KIB	   1024ull
#define MIB	   (1024ull * 1024)
#define GIB	   (1024ull * 1024 * 1024)
#define PAGE	   ((uint64_t)RAMLIFT_PAGE_BYTES)
#define N_OF(a)	   (sizeof(a) / sizeof((a)[0]))
#define MAX_LAYOUT 5

struct layout {
	const char *what;
	unsigned n_regions;
	uint64_t slice_bytes;
	struct {
		uint64_t gpa, size_bytes;
	} regions[MAX_LAYOUT];
};

static void fill(const struct layout *layout, struct ramlift_region *regions)
{
	memset(regions, 0, MAX_LAYOUT * sizeof(*regions));
	for (unsigned i = 0; i < layout->n_regions && i < MAX_LAYOUT; i++) {
		regions[i].gpa = layout->regions[i].gpa;
		regions[i].size_bytes = layout->regions[i].size_bytes;
		regions[i].memfd = -1;
		/* Never touched: only places are compared. */
		regions[i].hva = (void *)(uintptr_t)(0x100000000000ull * (i + 1));
	}
}

static const struct layout refused[] = {
	{ "no region", 0, MIB, { { 0, 0 } } },
	{ "too many regions", RAMLIFT_MAX_REGIONS + 1, MIB, { { 0, PAGE } } },
	{ "no slice size", 1, 0, { { 0, PAGE } } },
	{ "slices of half stripes", 1, STRIPE_BYTES / 2, { { 0, PAGE } } },
	{ "slices of one and a half stripes", 1, STRIPE_BYTES * 3 / 2, { { 0, PAGE } } },
	{ "slices over 4 GiB", 1, SLICE_MAX_BYTES + STRIPE_BYTES, { { 0, PAGE } } },
	{ "empty region", 1, MIB, { { 0, 0 } } },
	{ "half a page", 1, MIB, { { 0, PAGE / 2 } } },
	{ "a page and a half", 1, MIB, { { 0, PAGE + PAGE / 2 } } },
	{ "gpa inside a page", 1, MIB, { { 1, PAGE } } },
	{ "end of the address space passed", 1, SLICE_MAX_BYTES, { { -PAGE, 2 * PAGE } } },
	{ "end of the address space reached", 1, SLICE_MAX_BYTES, { { -PAGE, PAGE } } },
	{ "over 2^52 bytes", 1, SLICE_MAX_BYTES, { { 0, (1ull << 52) + PAGE } } },
	{ "overlap by a page", 2, MIB, { { 0, 2 * PAGE }, { PAGE, PAGE } } },
	{ "twice the same", 2, MIB, { { 0, PAGE }, { 0, PAGE } } },
	{ "out of order", 2, MIB, { { GIB, PAGE }, { 0, PAGE } } },
	{ "the third overlaps", 3, MIB, { { 0, PAGE }, { GIB, GIB }, { GIB + MIB, PAGE } } },
	{ "the second is bad", 2, MIB, { { 0, PAGE }, { GIB, 1 } } },
	{ "one slice too many", 1, STRIPE_BYTES, { { 0, RAM_MAX_SLICES *STRIPE_BYTES + PAGE } } },
	{ "one slice too many in two regions",
	  2,
	  STRIPE_BYTES,
	  { { 0, PAGE }, { GIB, RAM_MAX_SLICES *STRIPE_BYTES } } },
};

static void test_each_refusal(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < N_OF(refused); i++) {
		struct ramlift_region regions[MAX_LAYOUT];
		struct ramlift_error error = { 0 };
		int ret;

		fill(&refused[i], regions);
		ret = ram_check(regions, refused[i].n_regions, refused[i].slice_bytes, &error);
		if (ret != -EINVAL || error.code != -EINVAL || !error.text[0])
			fail_msg("%s: %d, \"%s\"", refused[i].what, ret, error.text);
		assert_int_equal(
			ram_check(regions, refused[i].n_regions, refused[i].slice_bytes, NULL),
			-EINVAL);
	}
}

static const struct layout allowed[] = {
	{ "one page", 1, STRIPE_BYTES, { { 0, PAGE } } },
	{ "regions that touch", 2, STRIPE_BYTES, { { 0, PAGE }, { PAGE, PAGE } } },
	{ "the largest slices", 1, SLICE_MAX_BYTES, { { 0, 9 * GIB + PAGE } } },
	{ "as many slices as there may be",
	  1,
	  STRIPE_BYTES,
	  { { 0, RAM_MAX_SLICES *STRIPE_BYTES } } },
	{ "odd sizes, slices of one stripe",
	  5,
	  STRIPE_BYTES,
	  { { 0, PAGE },
	    { MIB, STRIPE_BYTES },
	    { 2 * MIB, STRIPE_BYTES + PAGE },
	    { 3 * MIB, MIB - PAGE },
	    { GIB, 17 * STRIPE_BYTES + 3 * PAGE } } },
	{ "odd sizes, slices of three stripes",
	  5,
	  3 * STRIPE_BYTES,
	  { { 0, 640 * KIB },
	    { MIB, 3 * STRIPE_BYTES },
	    { 4 * MIB, 3 * STRIPE_BYTES + PAGE },
	    { 8 * MIB, 6 * STRIPE_BYTES - PAGE },
	    { GIB, 65 * STRIPE_BYTES + PAGE } } },
	{ "slices larger than regions", 3, GIB, { { 0, PAGE }, { MIB, MIB }, { GIB, 3 * MIB } } },
};

/* Every slice and every stripe, as a walk through the regions finds them. */
static void check_places(const struct layout *layout, const struct ram *ram)
{
	uint64_t stripe = 0, bytes = 0;
	unsigned slice = 0;

	for (unsigned i = 0; i < layout->n_regions; i++) {
		const struct ramlift_region *region = &ram->regions[i];
		char *end = (char *)region->hva + region->size_bytes;
		char *begin = region->hva;

		stripe = (stripe + 63) / 64 * 64; /* no summary word has two regions */
		assert_int_equal(ram->first_stripe[i], stripe);
		assert_int_equal(ram->first_slice[i], slice);
		bytes += region->size_bytes;
		for (; begin < end; begin += layout->slice_bytes, slice++) {
			uint64_t size = (uint64_t)(end - begin) < layout->slice_bytes
						? (uint64_t)(end - begin)
						: layout->slice_bytes;

			assert_ptr_equal(ram->slices[slice].hva, begin);
			assert_int_equal(ram->slices[slice].size_bytes, size);
			assert_int_equal(ram_region_of_slice(ram, slice), i);
			for (uint64_t at = 0; at < size; at += STRIPE_BYTES, stripe++) {
				struct stripe_place place;

				ram_locate(ram, stripe, &place);
				assert_ptr_equal(place.hva, begin + at);
				assert_int_equal(place.slice, slice);
				assert_int_equal(place.offset_bytes, at);
			}
		}
		assert_int_equal(ram_region_stripes(ram, i), stripe - ram->first_stripe[i]);
	}
	assert_int_equal(ram->n_stripes, (stripe + 63) / 64 * 64);
	assert_int_equal(ram->n_slices, slice);
	assert_int_equal(ram->bytes, bytes);
}

static void test_slices_and_stripes(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < N_OF(allowed); i++) {
		struct ramlift_region regions[MAX_LAYOUT];
		struct ramlift_error error = { 0 };
		struct ram ram;

		fill(&allowed[i], regions);
		if (ram_check(regions, allowed[i].n_regions, allowed[i].slice_bytes, &error))
			fail_msg("%s: \"%s\"", allowed[i].what, error.text);
		assert_int_equal(error.code, 0);
		assert_int_equal(
			ram_init(&ram, regions, allowed[i].n_regions, allowed[i].slice_bytes), 0);
		memset(regions, 0xff, sizeof(regions)); /* it has copied them */
		check_places(&allowed[i], &ram);
		ram_fini(&ram);
	}
}

static void test_as_many_regions_as_there_may_be(void **unused)
{
	struct ramlift_region regions[RAMLIFT_MAX_REGIONS] = { 0 };
	struct stripe_place place;
	struct ram ram;

	(void)unused;
	for (unsigned i = 0; i < RAMLIFT_MAX_REGIONS; i++) {
		regions[i].gpa = i * GIB;
		regions[i].size_bytes = (i + 1) * PAGE;
		regions[i].hva = (void *)(uintptr_t)(0x10000000000ull * (i + 1));
	}
	assert_int_equal(ram_check(regions, RAMLIFT_MAX_REGIONS, MIB, NULL), 0);
	assert_int_equal(ram_init(&ram, regions, RAMLIFT_MAX_REGIONS, MIB), 0);
	assert_int_equal(ram.n_stripes, RAMLIFT_MAX_REGIONS * 64);
	for (unsigned i = 0; i < RAMLIFT_MAX_REGIONS; i++) {
		ram_locate(&ram, i * 64, &place);
		assert_ptr_equal(place.hva, regions[i].hva);
		assert_int_equal(place.slice, i);
		assert_int_equal(place.offset_bytes, 0);
	}
	ram_fini(&ram);
}

static uint64_t default_for(uint64_t first_bytes, uint64_t second_bytes)
{
	struct ramlift_region regions[2] = { { .size_bytes = first_bytes },
					     { .size_bytes = second_bytes } };

	return ram_default_slice_bytes(regions, second_bytes ? 2 : 1);
}

/* At most 64 slices, of 2 MiB at least and 256 MiB at most. */
static void test_the_default_size_of_slices(void **unused)
{
	(void)unused;
	assert_int_equal(default_for(PAGE, 0), 2 * MIB);
	assert_int_equal(default_for(128 * MIB, 0), 2 * MIB);
	assert_int_equal(default_for(128 * MIB, PAGE), 4 * MIB); /* all regions together */
	assert_int_equal(default_for(GIB / 2, GIB / 2), 16 * MIB);
	assert_int_equal(default_for(3 * GIB, 5 * GIB), 128 * MIB);
	assert_int_equal(default_for(16 * GIB, 0), 256 * MIB);
	assert_int_equal(default_for(1024 * GIB, 1024 * GIB), 256 * MIB);
	for (uint64_t bytes = MIB; bytes < 16384 * GIB; bytes *= 3) {
		struct ramlift_region region = { .size_bytes = bytes };

		assert_int_equal(ram_check(&region, 1, ram_default_slice_bytes(&region, 1), NULL),
				 0);
	}
}

/* Every number: those in between are nobody's. */
static void test_numbers_in_between(void **unused)
{
	static const struct layout layout = {
		"",
		3,
		MIB,
		{ { 0, STRIPE_BYTES + PAGE }, { GIB, 64 * STRIPE_BYTES }, { 2 * GIB, PAGE } }
	};
	struct ramlift_region regions[MAX_LAYOUT];
	struct ram ram;

	(void)unused;
	fill(&layout, regions);
	assert_int_equal(ram_init(&ram, regions, 3, MIB), 0);
	assert_int_equal(ram.n_stripes, 192);
	for (unsigned i = 0; i < 192; i++)
		assert_int_equal(ram_has_stripe(&ram, i), i < 2 || (i >= 64 && i <= 128));
	ram_fini(&ram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_refusal),
		cmocka_unit_test(test_slices_and_stripes),
		cmocka_unit_test(test_as_many_regions_as_there_may_be),
		cmocka_unit_test(test_numbers_in_between),
		cmocka_unit_test(test_the_default_size_of_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
