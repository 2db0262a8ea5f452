/* SPDX-License-Identifier: Apache-2.0 */
/* Quiet first, what marks mean at the edges, and holes. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dirty_set_rig.h"
#include "tests/support/cmocka_all.h"

static bool is_set(const struct dirty_bitmap *bitmap, uint64_t stripe, unsigned page)
{
	bool bit = bitmap->words[stripe] >> page & 1;

	if (bit) { /* whoever looks for it must find it by the levels above */
		assert_true(bitmap->summary[stripe / 64] >> stripe % 64 & 1);
		assert_int_equal(dirty_bitmap_next(bitmap, stripe / 64, bitmap->n_summary),
				 stripe / 64);
	}
	return bit;
}

static bool is_hot(const struct fixture *fixture, uint64_t stripe)
{
	return dirty_set_hot(&fixture->set, stripe / 64) >> stripe % 64 & 1;
}

/* Take all that a bitmap shows, as a lane would, and count it. */
static unsigned take_all(struct dirty_bitmap *bitmap)
{
	unsigned n = 0;

	for (uint64_t s = dirty_bitmap_next(bitmap, 0, bitmap->n_summary); s < bitmap->n_summary;
	     s = dirty_bitmap_next(bitmap, s + 1, bitmap->n_summary)) {
		uint64_t stripes = dirty_bitmap_claim(bitmap, s, ~0ull);

		for (unsigned i; bit_next(&stripes, &i);)
			n += (unsigned)__builtin_popcountll(dirty_bitmap_take(bitmap, s * 64 + i));
	}
	return n;
}

static void test_a_stripe_is_hot_for_one_tick(void **unused)
{
	struct fixture fixture;

	(void)unused;
	fixture_init(&fixture);
	ramlift_dirty_mark(&fixture.set, 1, 130, 1); /* the region's stripe 2, page 2 */
	assert_int_equal(dirty_pages(&fixture), 0);  /* nobody may read it before the tick */
	assert_int_equal(dirty_set_fold(&fixture.set), 1);
	assert_true(is_set(&fixture.set.dirty, SECOND_STRIPE + 2, 2));
	assert_int_equal(dirty_set_hot(&fixture.set, 0), 0);
	assert_int_equal(dirty_set_hot(&fixture.set, 1), 1 << 2);
	assert_int_equal(dirty_set_hot(&fixture.set, 2), 0);
	assert_int_equal(dirty_set_fold(&fixture.set), 0);
	assert_false(is_hot(&fixture, SECOND_STRIPE + 2));
	for (int i = 0; i < 3; i++)
		assert_int_equal(dirty_set_fold(&fixture.set), 0);
	assert_true(is_set(&fixture.set.dirty, SECOND_STRIPE + 2, 2));
	assert_int_equal(take_all(&fixture.set.dirty), 1);
	assert_int_equal(dirty_pages(&fixture), 0);
	fixture_fini(&fixture);
}

static void test_written_each_tick_stays_hot(void **unused)
{
	struct fixture fixture;

	(void)unused;
	fixture_init(&fixture);
	for (int tick = 0; tick < 10; tick++) {
		ramlift_dirty_mark(&fixture.set, 0, 7, 1);
		if (tick == 3) /* others of the same summary word are, for as long as they are */
			ramlift_dirty_mark(&fixture.set, 0, 70, 1);
		assert_int_equal(dirty_set_fold(&fixture.set), tick == 3 ? 2 : 1);
		assert_true(is_hot(&fixture, 0));
		assert_int_equal(is_hot(&fixture, 1), tick == 3);
		assert_int_equal(dirty_pages(&fixture), tick < 3 ? 1 : 2);
	}
	assert_int_equal(dirty_set_fold(&fixture.set), 0);
	assert_false(is_hot(&fixture, 0));
	fixture_fini(&fixture);
}

static void test_what_was_present_is_not_hot(void **unused)
{
	struct fixture fixture;

	(void)unused;
	fixture_init(&fixture);
	dirty_set_mark_present(&fixture.set, false);
	dirty_set_add(&fixture.set, SECOND_STRIPE, 3);
	assert_int_equal(dirty_pages(&fixture), FIRST_PAGES + SECOND_PAGES);
	ramlift_dirty_mark(&fixture.set, 0, 99, 1);
	assert_int_equal(dirty_set_fold(&fixture.set), 1);
	for (unsigned stripe = 0; stripe < N_STRIPES; stripe++)
		assert_int_equal(is_hot(&fixture, stripe), stripe == 1);
	/* What is left to send is not counted twice. */
	assert_int_equal(dirty_pages(&fixture), FIRST_PAGES + SECOND_PAGES);
	assert_int_equal(take_all(&fixture.set.dirty), FIRST_PAGES + SECOND_PAGES);
	fixture_fini(&fixture);
}

static void test_what_was_taken_does_not_come_back(void **unused)
{
	struct fixture fixture;

	(void)unused;
	fixture_init(&fixture);
	ramlift_dirty_mark(&fixture.set, 1, 0, 64);
	dirty_set_fold(&fixture.set);
	assert_int_equal(take_all(&fixture.set.dirty), 64);
	assert_int_equal(dirty_set_fold(&fixture.set), 0);
	dirty_bitmap_tidy(&fixture.set.dirty);
	assert_int_equal(dirty_pages(&fixture), 0);
	/* Nor is there anything left to look at: both were tidied. */
	assert_int_equal(dirty_bitmap_next(&fixture.set.dirty, 0, 3), 3);
	assert_int_equal(dirty_bitmap_next(&fixture.set.incoming, 0, 3), 3);
	fixture_fini(&fixture);
}

/* A page counts as often as it has to be sent: not again while it waits. */
static void test_all_that_ever_had_to_be_sent(void **unused)
{
	struct fixture fixture;

	(void)unused;
	fixture_init(&fixture);
	dirty_set_add(&fixture.set, 0, 7);
	assert_int_equal(dirty_set_added_bytes(&fixture.set), 3 * PAGE);
	dirty_set_add(&fixture.set, 0, 15);
	assert_int_equal(dirty_set_added_bytes(&fixture.set), 4 * PAGE);
	ramlift_dirty_mark(&fixture.set, 0, 3, 2); /* one waits already, one is new */
	assert_int_equal(dirty_set_added_bytes(&fixture.set), 4 * PAGE);
	assert_int_equal(dirty_set_fold(&fixture.set), 2);
	assert_int_equal(dirty_set_added_bytes(&fixture.set), 5 * PAGE);
	assert_int_equal(take_all(&fixture.set.dirty), 5);
	ramlift_dirty_mark(&fixture.set, 0, 3, 1);
	dirty_set_fold(&fixture.set);
	assert_int_equal(dirty_set_added_bytes(&fixture.set), 6 * PAGE);
	take_all(&fixture.set.dirty);
	dirty_set_mark_present(&fixture.set, false);
	assert_int_equal(dirty_set_added_bytes(&fixture.set),
			 (6 + FIRST_PAGES + SECOND_PAGES) * PAGE);
	fixture_fini(&fixture);
}

static void test_is_something_dirty_there(void **unused)
{
	struct fixture fixture;

	(void)unused;
	fixture_init(&fixture);
	assert_false(dirty_set_has(&fixture.set, 0, N_STRIPES));
	dirty_set_add(&fixture.set, 66, 1ull << 63);
	assert_true(dirty_set_has(&fixture.set, 0, N_STRIPES));
	assert_true(dirty_set_has(&fixture.set, 66, 1));
	assert_true(dirty_set_has(&fixture.set, 60, 7));
	assert_false(dirty_set_has(&fixture.set, 60, 6));
	assert_false(dirty_set_has(&fixture.set, 67, 125));
	assert_false(dirty_set_has(&fixture.set, 66, 0));
	assert_false(dirty_set_has(&fixture.set, 67, UINT32_MAX)); /* behind the end is nothing */
	ramlift_dirty_mark(&fixture.set, 0, 0, 1);		   /* not before the tick */
	assert_false(dirty_set_has(&fixture.set, 0, 1));
	fixture_fini(&fixture);
}

struct mark {
	unsigned region;
	uint64_t first_page, n_pages;
	uint64_t expected_pages;
};

static void test_marks_end_with_the_region(void **unused)
{
	static const struct mark marks[] = {
		{ 0, 0, 1, 1 },
		{ 0, 0, 100, 100 },
		{ 0, 99, 1, 1 },
		{ 0, 99, 2, 1 },
		{ 0, 100, 1, 0 }, /* not the next region's */
		{ 0, 63, 2, 2 },
		{ 0, 50, UINT64_MAX, 50 },
		{ 0, UINT64_MAX, 1, 0 },
		{ 0, UINT64_MAX, UINT64_MAX, 0 },
		{ 0, 5, 0, 0 },
		{ 1, 0, UINT64_MAX, SECOND_PAGES },
		{ 1, SECOND_PAGES - 1, 1, 1 },
		{ 1, SECOND_PAGES - 65, 70, 65 },
		{ 1, SECOND_PAGES, 1, 0 },
		{ 2, 0, 1, 0 },
		{ UINT32_MAX, 0, 1, 0 },
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		const struct mark *mark = &marks[i];
		struct fixture fixture;

		fixture_init(&fixture);
		ramlift_dirty_mark(&fixture.set, mark->region, mark->first_page, mark->n_pages);
		assert_int_equal(dirty_set_fold(&fixture.set), mark->expected_pages);
		for (uint64_t p = 0; p < mark->expected_pages; p++) {
			uint64_t page = mark->first_page + p;

			assert_true(is_set(&fixture.set.dirty,
					   (mark->region ? SECOND_STRIPE : 0) + page / 64,
					   (unsigned)(page % 64)));
		}
		fixture_fini(&fixture);
	}
}

static void test_words_end_with_the_region(void **unused)
{
	uint64_t words[80];
	struct fixture fixture;

	(void)unused;
	memset(words, 0xff, sizeof(words));
	fixture_init(&fixture);
	ramlift_dirty_mark_words(&fixture.set, 0, 0, words, 80);
	assert_int_equal(dirty_set_fold(&fixture.set), FIRST_PAGES);
	assert_int_equal(fixture.set.dirty.words[1], (1ull << 36) - 1);
	assert_int_equal(fixture.set.dirty.words[2], 0);
	ramlift_dirty_mark_words(&fixture.set, 1, 64 * 69, words, 80);
	assert_int_equal(dirty_set_fold(&fixture.set), 65);
	ramlift_dirty_mark_words(&fixture.set, 1, 64 * 70, words, 1);
	assert_int_equal(dirty_set_fold(&fixture.set), 1);
	/* None of these is anything. */
	ramlift_dirty_mark_words(&fixture.set, 1, 64 * 71, words, 80);
	ramlift_dirty_mark_words(&fixture.set, 1, 63, words, 80);
	ramlift_dirty_mark_words(&fixture.set, 1, UINT64_MAX - 63, words, 80);
	ramlift_dirty_mark_words(&fixture.set, 1, 0, words, 0);
	ramlift_dirty_mark_words(&fixture.set, 2, 0, words, 80);
	assert_int_equal(dirty_set_fold(&fixture.set), 0);
	fixture_fini(&fixture);

	fixture_init(&fixture);
	words[0] = 0;
	words[1] = 1ull << 63 | 1;
	ramlift_dirty_mark_words(&fixture.set, 1, 128, words, 2);
	assert_int_equal(dirty_set_fold(&fixture.set), 2);
	assert_true(is_set(&fixture.set.dirty, SECOND_STRIPE + 3, 0));
	assert_true(is_set(&fixture.set.dirty, SECOND_STRIPE + 3, 63));
	fixture_fini(&fixture);
}

static void write_page(int fd, uint64_t page)
{
	assert_int_equal(pwrite(fd, "x", 1, (off_t)(page * PAGE)), 1);
}

/* The first region begins in the middle of its memfd, the second has none. */
static void test_holes_are_skipped(void **unused)
{
	int fd = memfd_create("holes", MFD_CLOEXEC);
	struct fixture fixture;

	(void)unused;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 300 * PAGE), 0);
	fixture_init(&fixture);
	fixture.ram.regions[0].memfd = fd;
	fixture.ram.regions[0].memfd_offset = 50 * PAGE;
	write_page(fd, 49); /* before it */
	write_page(fd, 50); /* its first */
	write_page(fd, 60);
	write_page(fd, 61);
	write_page(fd, 149); /* its last */
	write_page(fd, 150); /* behind it */
	dirty_set_mark_present(&fixture.set, true);
	assert_true(is_set(&fixture.set.dirty, 0, 0));
	assert_true(is_set(&fixture.set.dirty, 0, 10));
	assert_true(is_set(&fixture.set.dirty, 0, 11));
	assert_true(is_set(&fixture.set.dirty, 1, 35));
	assert_int_equal(dirty_pages(&fixture), 4 + SECOND_PAGES);
	assert_int_equal(dirty_set_fold(&fixture.set), 0);
	/* Unless all is wanted. */
	dirty_set_mark_present(&fixture.set, false);
	assert_int_equal(dirty_pages(&fixture), FIRST_PAGES + SECOND_PAGES);
	fixture_fini(&fixture);
	close(fd);
}

/* Every third stripe of the ragged second region, without or with the
 * holes; and none of the first. */
static void test_marks_of_some_stripes(void **unused)
{
	int fd = memfd_create("holes", MFD_CLOEXEC);
	struct fixture fixture;

	(void)unused;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SECOND_PAGES * PAGE), 0);
	fixture_init(&fixture);
	/* Stripes 64 to 134; 134 = 2, modulo 3, has one page. */
	dirty_set_mark_stripes(&fixture.set, 1, 3, 1 << 2, false);
	assert_int_equal(dirty_pages(&fixture), 23 * 64 + 1);
	for (unsigned stripe = 0; stripe < N_STRIPES; stripe++)
		assert_int_equal(is_set(&fixture.set.dirty, stripe, 0),
				 stripe >= 64 && stripe <= 134 && stripe % 3 == 2);
	dirty_set_mark_stripes(&fixture.set, 1, 3, 1 << 0 | 1 << 1, false);
	assert_int_equal(dirty_pages(&fixture), SECOND_PAGES);
	assert_int_equal(dirty_set_added_bytes(&fixture.set), SECOND_PAGES * PAGE);
	assert_int_equal(take_all(&fixture.set.dirty), SECOND_PAGES);

	fixture.ram.regions[1].memfd = fd;
	write_page(fd, 0);  /* stripe 64 */
	write_page(fd, 63); /* 64, its last */
	write_page(fd, 64); /* 65 */
	write_page(fd, SECOND_PAGES - 1);
	dirty_set_mark_stripes(&fixture.set, 1, 64, 1 << 0, true);
	assert_true(is_set(&fixture.set.dirty, 64, 0));
	assert_true(is_set(&fixture.set.dirty, 64, 63));
	assert_int_equal(dirty_pages(&fixture), 2);
	dirty_set_mark_stripes(&fixture.set, 1, 64, ~0ull, true);
	assert_int_equal(dirty_pages(&fixture), 4);
	fixture_fini(&fixture);
	close(fd);
}

static void test_holes_all_and_none(void **unused)
{
	int fd = memfd_create("holes", MFD_CLOEXEC);
	struct fixture fixture;
	int pipes[2];

	(void)unused;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, FIRST_PAGES * PAGE), 0);
	fixture_init(&fixture);
	fixture.ram.regions[0].memfd = fd;
	dirty_set_mark_present(&fixture.set, true);
	assert_int_equal(dirty_pages(&fixture), SECOND_PAGES);
	for (unsigned i = 0; i < FIRST_PAGES; i++)
		write_page(fd, i);
	dirty_set_mark_present(&fixture.set, true);
	assert_int_equal(dirty_pages(&fixture), FIRST_PAGES + SECOND_PAGES);
	fixture_fini(&fixture);
	close(fd);

	/* A file that cannot tell counts as full. */
	assert_int_equal(pipe(pipes), 0);
	fixture_init(&fixture);
	fixture.ram.regions[0].memfd = pipes[0];
	dirty_set_mark_present(&fixture.set, true);
	assert_int_equal(dirty_pages(&fixture), FIRST_PAGES + SECOND_PAGES);
	fixture_fini(&fixture);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stripe_is_hot_for_one_tick),
		cmocka_unit_test(test_written_each_tick_stays_hot),
		cmocka_unit_test(test_what_was_present_is_not_hot),
		cmocka_unit_test(test_what_was_taken_does_not_come_back),
		cmocka_unit_test(test_all_that_ever_had_to_be_sent),
		cmocka_unit_test(test_is_something_dirty_there),
		cmocka_unit_test(test_marks_end_with_the_region),
		cmocka_unit_test(test_words_end_with_the_region),
		cmocka_unit_test(test_holes_are_skipped),
		cmocka_unit_test(test_marks_of_some_stripes),
		cmocka_unit_test(test_holes_all_and_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
