/* SPDX-License-Identifier: Apache-2.0 */
/* A digest is the same for the same memory, however it is computed and whether its zeros were ever
 * written, and another for any other. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* The same layout and all of it holes, in one file that begins with data of somebody else's. */
#define FILE_BEGIN (5 * PAGE)

static int file_init(struct memory *memory)
{
	int fd = memfd_create("test_digest", MFD_CLOEXEC);
	uint64_t end = FILE_BEGIN;

	memset(memory, 0, sizeof(*memory));
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(FILE_BEGIN + (TOTAL_PAGES + 1) * PAGE)), 0);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	for (unsigned i = 0; i < N_REGIONS; i++) {
		struct ramlift_region *region = &memory->regions[i];

		region->gpa = (uint64_t)i << 32;
		region->size_bytes = region_pages[i] * PAGE;
		region->memfd = fd;
		region->memfd_offset = end;
		region->hva = mmap(NULL, region->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
				   (off_t)end);
		assert_ptr_not_equal(region->hva, MAP_FAILED);
		end += region->size_bytes;
	}
	assert_int_equal(pwrite(fd, "x", 1, (off_t)end), 1);
	assert_int_equal(ram_init(&memory->ram, memory->regions, N_REGIONS, 2 * STRIPE_BYTES), 0);
	return fd;
}

static blkcnt_t file_blocks(int fd)
{
	struct stat file;

	assert_int_equal(fstat(fd, &file), 0);
	return file.st_blocks;
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

static void clear(struct memory *memory)
{
	for (unsigned i = 0; i < N_REGIONS; i++)
		memset(memory->regions[i].hva, 0, memory->regions[i].size_bytes);
}

/* As pages are written, one after the other and all over the place, until there are no holes. */
static void test_holes_are_zeros_and_stay_holes(void **unused)
{
	struct memory sparse, full;
	int fd = file_init(&sparse);

	(void)unused;
	memory_init(&full);
	clear(&full);
	for (uint64_t i = 0; i <= TOTAL_PAGES; i++) {
		uint64_t page = i * 101 % TOTAL_PAGES; /* no common divisor: each comes once */
		blkcnt_t blocks = file_blocks(fd);

		assert_int_equal(digest_ram(&sparse.ram), digest_ram(&full.ram));
		assert_int_equal(file_blocks(fd), blocks);
		page_at(&sparse, page)[i % PAGE] = (unsigned char)i; /* some of them zeros */
		page_at(&full, page)[i % PAGE] = (unsigned char)i;
	}
	memory_fini(&sparse);
	memory_fini(&full);
	close(fd);
}

/* As at a destination, where another process has written. */
static void test_pages_that_were_not_mapped_here(void **unused)
{
	struct memory sparse, full;
	int fd = file_init(&sparse);

	(void)unused;
	memory_init(&full);
	clear(&full);
	page_at(&full, 3 + 66)[7] = 0x55; /* in region 1 */
	assert_int_equal(pwrite(fd, "\x55", 1, FILE_BEGIN + (3 + 66) * PAGE + 7), 1);
	assert_int_equal(digest_ram(&sparse.ram), digest_ram(&full.ram));
	memory_fini(&sparse);
	memory_fini(&full);
	close(fd);
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
		cmocka_unit_test(test_holes_are_zeros_and_stay_holes),
		cmocka_unit_test(test_pages_that_were_not_mapped_here),
		cmocka_unit_test(test_cpus_do_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
