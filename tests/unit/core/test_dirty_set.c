/* SPDX-License-Identifier: Apache-2.0 */
/* Quiet first, what marks mean at the edges, holes, and folding while lanes take. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/dirty_set.h"
#include "tests/support/cmocka_all.h"

#define PAGE ((uint64_t)RAMLIFT_PAGE_BYTES)

/* Two regions: 100 pages (stripes 0 and 1, ragged) and 64 * 70 + 1 pages (stripes 64 to 134). */
#define FIRST_PAGES   100u
#define SECOND_PAGES  (64u * 70 + 1)
#define SECOND_STRIPE 64u
#define N_STRIPES     192u

struct fixture {
	struct ramlift_region regions[2];
	struct ram ram;
	struct ramlift_dirty_sink set;
};

static void fixture_init(struct fixture *fixture)
{
	memset(fixture, 0, sizeof(*fixture));
	fixture->regions[0].size_bytes = FIRST_PAGES * PAGE;
	fixture->regions[1].gpa = 1ull << 32;
	fixture->regions[1].size_bytes = SECOND_PAGES * PAGE;
	fixture->regions[0].memfd = -1;
	fixture->regions[1].memfd = -1;
	assert_int_equal(ram_check(fixture->regions, 2, 1 << 20, NULL), 0);
	assert_int_equal(ram_init(&fixture->ram, fixture->regions, 2, 1 << 20), 0);
	assert_int_equal(fixture->ram.n_stripes, N_STRIPES);
	assert_int_equal(dirty_set_init(&fixture->set, &fixture->ram), 0);
}

static void fixture_fini(struct fixture *fixture)
{
	dirty_set_fini(&fixture->set);
	ram_fini(&fixture->ram);
}

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

static uint64_t dirty_pages(const struct fixture *fixture)
{
	return dirty_bitmap_count(&fixture->set.dirty);
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

/* ---- a model of the whole: guest, ticks and lanes at the same time ---- */

#define MODEL_LANES  2u
#define MODEL_WRITES 150000u
#define ALL_PAGES    (N_STRIPES * 64)

struct model {
	struct fixture fixture;
	_Atomic uint64_t memory[ALL_PAGES]; /* what the guest wrote last */
	uint64_t sent[ALL_PAGES];	    /* what the page's lane read last */
	_Atomic unsigned writers_left;
	atomic_bool folding;
};

struct actor {
	struct model *model;
	unsigned index;
	uint64_t n_taken;
	pthread_t thread;
};

static void *model_writer(void *argument)
{
	struct actor *actor = argument;
	struct model *model = actor->model;
	uint64_t random = 77 + actor->index;

	for (uint64_t i = 1; i <= MODEL_WRITES; i++) {
		unsigned region;
		uint64_t page;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		region = random >> 40 & 1;
		/* A hot set of few stripes, and now and then a cold page. */
		page = (random >> 8) % (random & 15 ? 100 : region ? SECOND_PAGES : FIRST_PAGES);
		atomic_fetch_add(&model->memory[(region ? SECOND_STRIPE * 64 : 0) + page], 1);
		ramlift_dirty_mark(&model->fixture.set, region, page, 1);
	}
	atomic_fetch_sub(&model->writers_left, 1);
	return NULL;
}

static void *model_folder(void *argument)
{
	struct actor *actor = argument;
	struct model *model = actor->model;

	while (atomic_load(&model->writers_left)) {
		dirty_set_fold(&model->fixture.set);
		dirty_bitmap_tidy(&model->fixture.set.dirty);
	}
	dirty_set_fold(&model->fixture.set); /* the last harvest's */
	atomic_store(&model->folding, false);
	return NULL;
}

/* As core/lane_sweep.c does. */
static bool model_sweep(struct actor *actor, bool quiet_only)
{
	struct model *model = actor->model;
	const struct ramlift_dirty_sink *set = &model->fixture.set;
	struct dirty_bitmap *dirty = &model->fixture.set.dirty;
	uint64_t own = actor->index ? 0xaaaaaaaaaaaaaaaaull : 0x5555555555555555ull;
	bool found = false;

	for (uint64_t s = dirty_bitmap_next(dirty, 0, dirty->n_summary); s < dirty->n_summary;
	     s = dirty_bitmap_next(dirty, s + 1, dirty->n_summary)) {
		uint64_t wait = quiet_only ? dirty_set_hot(set, s) : 0;
		uint64_t stripes = dirty_bitmap_claim(dirty, s, own & ~wait);

		for (unsigned i; bit_next(&stripes, &i);) {
			uint64_t bits = dirty_bitmap_take(dirty, s * 64 + i);

			for (unsigned bit; bit_next(&bits, &bit);) {
				uint64_t page = (s * 64 + i) * 64 + bit;

				model->sent[page] = atomic_load(&model->memory[page]);
				actor->n_taken++;
				found = true;
			}
		}
	}
	return found;
}

static void *model_lane(void *argument)
{
	struct actor *actor = argument;
	struct model *model = actor->model;
	bool last, found;

	do {
		last = !atomic_load(&model->folding);
		found = model_sweep(actor, true);
		if (!found)
			found = model_sweep(actor, false);
	} while (!last || found);
	return NULL;
}

/* Lanes end as core/lanes.c lets them: with a round after the last fold that finds nothing. */
static void test_nothing_is_lost_between_writers_ticks_and_lanes(void **unused)
{
	void *(*const roles[])(void *) = { model_writer, model_writer, model_folder, model_lane,
					   model_lane };
	enum { ACTORS = sizeof(roles) / sizeof(roles[0]) };
	struct model *model = calloc(1, sizeof(*model));
	struct actor actors[ACTORS];
	uint64_t n_taken = 0;

	(void)unused;
	assert_non_null(model);
	fixture_init(&model->fixture);
	atomic_store(&model->writers_left, 2);
	atomic_store(&model->folding, true);
	for (unsigned i = 0; i < ACTORS; i++) {
		actors[i].model = model;
		actors[i].n_taken = 0;
		actors[i].index = i >= ACTORS - MODEL_LANES ? i - (ACTORS - MODEL_LANES) : i;
		assert_int_equal(pthread_create(&actors[i].thread, NULL, roles[i], &actors[i]), 0);
	}
	for (unsigned i = 0; i < ACTORS; i++)
		pthread_join(actors[i].thread, NULL);
	assert_int_equal(dirty_pages(&model->fixture), 0);
	for (unsigned i = 0; i < ACTORS; i++)
		n_taken += actors[i].n_taken;
	assert_int_equal(dirty_set_added_bytes(&model->fixture.set), n_taken * PAGE);
	for (unsigned i = 0; i < ALL_PAGES; i++)
		assert_int_equal(model->sent[i], atomic_load(&model->memory[i]));
	fixture_fini(&model->fixture);
	free(model);
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
		cmocka_unit_test(test_nothing_is_lost_between_writers_ticks_and_lanes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
