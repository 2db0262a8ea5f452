/* SPDX-License-Identifier: Apache-2.0 */
/* A digest is the same for the same memory, however it is computed, and another for any other. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/digest.h"
#include "tests/support/cmocka_all.h"

#define PAGE ((uint64_t)RAMLIFT_PAGE_BYTES)

/* Ragged ends, a region smaller than a stripe, slices of two stripes. */
static const uint64_t region_pages[] = { 3, 64 * 5 + 17, 64 * 2 };
#define N_REGIONS   3u
#define TOTAL_PAGES (3u + 64 * 5 + 17 + 64 * 2)

struct memory {
	struct ramlift_region regions[N_REGIONS];
	struct ram ram;
};

static void memory_init(struct memory *memory)
{
	memset(memory, 0, sizeof(*memory));
	for (unsigned i = 0; i < N_REGIONS; i++) {
		struct ramlift_region *region = &memory->regions[i];
		unsigned char *bytes;

		region->gpa = (uint64_t)i << 32;
		region->size_bytes = region_pages[i] * PAGE;
		region->memfd = -1;
		bytes = mmap(NULL, region->size_bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_ptr_not_equal(bytes, MAP_FAILED);
		for (uint64_t b = 0; b < region->size_bytes; b += 5)
			bytes[b] = (unsigned char)(b * 2654435761u >> 13 ^ i);
		region->hva = bytes;
	}
	assert_int_equal(ram_init(&memory->ram, memory->regions, N_REGIONS, 2 * STRIPE_BYTES), 0);
}

static void memory_fini(struct memory *memory)
{
	for (unsigned i = 0; i < N_REGIONS; i++)
		munmap(memory->regions[i].hva, memory->regions[i].size_bytes);
	ram_fini(&memory->ram);
}

static unsigned char *page_at(struct memory *memory, uint64_t page)
{
	unsigned i = 0;

	while (page >= region_pages[i])
		page -= region_pages[i++];
	return (unsigned char *)memory->regions[i].hva + page * PAGE;
}

static void test_same_memory_same_digest(void **unused)
{
	struct memory a, b;

	(void)unused;
	memory_init(&a);
	memory_init(&b);
	assert_int_equal(digest_ram(&a.ram), digest_ram(&b.ram));
	assert_int_equal(digest_ram(&a.ram), digest_ram(&a.ram));
	memory_fini(&a);
	memory_fini(&b);
}

static void test_each_page_counts(void **unused)
{
	struct memory memory;
	uint64_t digest;

	(void)unused;
	memory_init(&memory);
	digest = digest_ram(&memory.ram);
	for (uint64_t page = 0; page < TOTAL_PAGES; page++) {
		unsigned char *byte = page_at(&memory, page) + page * 37 % PAGE;

		*byte ^= 1;
		assert_true(digest_ram(&memory.ram) != digest);
		*byte ^= 1;
	}
	/* The very first and the very last byte. */
	page_at(&memory, 0)[0] ^= 0x80;
	assert_true(digest_ram(&memory.ram) != digest);
	page_at(&memory, 0)[0] ^= 0x80;
	page_at(&memory, TOTAL_PAGES - 1)[PAGE - 1] ^= 0x80;
	assert_true(digest_ram(&memory.ram) != digest);
	page_at(&memory, TOTAL_PAGES - 1)[PAGE - 1] ^= 0x80;
	assert_int_equal(digest_ram(&memory.ram), digest);
	memory_fini(&memory);
}

static void swap(unsigned char *a, unsigned char *b, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		unsigned char c = a[i];

		a[i] = b[i];
		b[i] = c;
	}
}

/* A page at the wrong place is as bad as one that is lost. */
static void test_places_count(void **unused)
{
	struct memory memory;
	uint64_t digest;

	(void)unused;
	memory_init(&memory);
	digest = digest_ram(&memory.ram);
	swap(page_at(&memory, 3), page_at(&memory, 4), PAGE);
	assert_true(digest_ram(&memory.ram) != digest);
	swap(page_at(&memory, 3), page_at(&memory, 4), PAGE);
	swap(page_at(&memory, 3), page_at(&memory, 3 + 64), STRIPE_BYTES);
	assert_true(digest_ram(&memory.ram) != digest);
	swap(page_at(&memory, 3), page_at(&memory, 3 + 64), STRIPE_BYTES);
	assert_int_equal(digest_ram(&memory.ram), digest);
	memory_fini(&memory);
}

/* The two sides of a session register slices alike, but the digest is of memory alone. */
static void test_slices_do_not_count(void **unused)
{
	struct memory memory;
	struct ram other;

	(void)unused;
	memory_init(&memory);
	assert_int_equal(ram_init(&other, memory.regions, N_REGIONS, 1 << 30), 0);
	assert_int_equal(digest_ram(&memory.ram), digest_ram(&other));
	ram_fini(&other);
	memory_fini(&memory);
}

static void test_cpus_do_not_count(void **unused)
{
	struct memory memory;
	cpu_set_t all, one;
	uint64_t digest;
	int cpu = 0;

	(void)unused;
	memory_init(&memory);
	digest = digest_ram(&memory.ram);
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(digest_ram(&memory.ram), digest);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(digest_ram(&memory.ram), digest);
	memory_fini(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_memory_same_digest),
		cmocka_unit_test(test_each_page_counts),
		cmocka_unit_test(test_places_count),
		cmocka_unit_test(test_slices_do_not_count),
		cmocka_unit_test(test_cpus_do_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
