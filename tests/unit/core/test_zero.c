/* SPDX-License-Identifier: Apache-2.0 */
/* Zero pages are found, all of them and nothing else, whichever instructions the CPU has. */
#include <string.h>
#include <sys/mman.h>

#include "core/ram.h"
#include "core/zero.h"
#include "tests/support/cmocka_all.h"

#define PAGE ((uint64_t)RAMLIFT_PAGE_BYTES)

/* A stripe of zeros between two pages that nobody may touch. */
static unsigned char *stripe_new(void)
{
	unsigned char *memory =
		mmap(NULL, STRIPE_BYTES + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(mprotect(memory + PAGE, STRIPE_BYTES, PROT_READ | PROT_WRITE), 0);
	return memory + PAGE;
}

static void stripe_free(unsigned char *stripe)
{
	munmap(stripe - PAGE, STRIPE_BYTES + 2 * PAGE);
}

/* A single bit, wherever it is, is enough. */
static void check_every_byte(bool (*is_zero)(const void *page))
{
	unsigned char *stripe = stripe_new();
	unsigned char *last = stripe + STRIPE_BYTES - PAGE;

	for (uint64_t i = 0; i < PAGE; i++) {
		assert_true(is_zero(stripe));
		assert_true(is_zero(last));
		stripe[i] = (unsigned char)(1u << i % 8);
		last[i] = (unsigned char)(1u << i / 8 % 8);
		assert_false(is_zero(stripe));
		assert_false(is_zero(last));
		stripe[i] = 0;
		last[i] = 0;
	}
	/* Its neighbours do not count. */
	stripe[PAGE - 1] = 1;
	stripe[2 * PAGE] = 1;
	assert_true(is_zero(stripe + PAGE));
	stripe_free(stripe);
}

static void test_every_byte_counts(void **unused)
{
	(void)unused;
	check_every_byte(page_is_zero);
	check_every_byte(page_is_zero_portable);
}

static void test_pages_of_a_stripe(void **unused)
{
	unsigned char *stripe = stripe_new();
	uint64_t written = 0;

	(void)unused;
	assert_int_equal(zero_pages(stripe, 0), 0);
	for (unsigned page = 0; page < STRIPE_PAGES; page++) {
		assert_int_equal(zero_pages(stripe, ~0ull), ~written);
		assert_int_equal(zero_pages(stripe, 1ull << page), 1ull << page);
		stripe[page * PAGE + page * 63 % PAGE] = 0x10;
		written |= 1ull << page;
		assert_int_equal(zero_pages(stripe, 1ull << page), 0);
		assert_int_equal(zero_pages(stripe, 0xf0f0f0f00f0f0f0full),
				 0xf0f0f0f00f0f0f0full & ~written);
	}
	assert_int_equal(zero_pages(stripe, ~0ull), 0);
	stripe_free(stripe);
}

/* The last stripe of a region may be shorter: beyond the candidates nothing is looked at. */
static void test_only_candidates_are_touched(void **unused)
{
	unsigned char *stripe = stripe_new();

	(void)unused;
	assert_int_equal(mprotect(stripe + 3 * PAGE, STRIPE_BYTES - 4 * PAGE, PROT_NONE), 0);
	assert_int_equal(zero_pages(stripe, 1ull << 63 | 7), 1ull << 63 | 7);
	stripe[PAGE] = 1;
	assert_int_equal(zero_pages(stripe, 1ull << 63 | 7), 1ull << 63 | 5);
	stripe_free(stripe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_byte_counts),
		cmocka_unit_test(test_pages_of_a_stripe),
		cmocka_unit_test(test_only_candidates_are_touched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
