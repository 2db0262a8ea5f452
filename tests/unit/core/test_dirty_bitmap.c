/* SPDX-License-Identifier: Apache-2.0 */
/* The bitmap alone: runs and bits against a naive model, and threads that set and take at once. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "core/dirty_bitmap.h"
#include "tests/support/cmocka_all.h"

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Take all runs of a word; they must be maximal, in order, and give the word again. */
static void check_runs(uint64_t word)
{
	uint64_t left = word, covered = 0;
	unsigned first = 0, n = 0, end = 0;
	bool any = false;

	while (dirty_run_next(&left, &first, &n)) {
		assert_in_range(n, 1, 64);
		assert_in_range(first + n, 1, 64);
		if (any)
			assert_true(first > end); /* else it should have been one run */
		any = true;
		for (unsigned i = first; i < first + n; i++)
			covered |= 1ull << i;
		end = first + n;
		assert_int_equal(left, end < 64 ? word >> end << end : 0);
	}
	assert_int_equal(covered, word);
	assert_int_equal(left, 0);
}

static void test_runs_of_every_place_and_length(void **unused)
{
	(void)unused;
	check_runs(0);
	for (unsigned first = 0; first < 64; first++) {
		for (unsigned n = 1; first + n <= 64; n++) {
			uint64_t bits = (n == 64 ? ~0ull : (1ull << n) - 1) << first;
			uint64_t word = bits;
			unsigned found_first, found_n;

			assert_true(dirty_run_next(&word, &found_first, &found_n));
			assert_int_equal(found_first, first);
			assert_int_equal(found_n, n);
			assert_int_equal(word, 0);
			assert_false(dirty_run_next(&word, &found_first, &found_n));
			check_runs(bits);
			check_runs(~bits);
		}
	}
}

static void test_runs_of_all_ends(void **unused)
{
	(void)unused;
	for (uint64_t low = 0; low < 256; low++) {
		for (uint64_t high = 0; high < 256; high++) {
			check_runs(low | high << 56);
			check_runs(low | high << 56 | 0x00ffffffffffff00ull);
		}
	}
}

static void test_runs_and_bits_of_random_words(void **unused)
{
	uint64_t random = 0x9e3779b97f4a7c15ull;

	(void)unused;
	for (unsigned i = 0; i < 200000; i++) {
		uint64_t word = next_random(&random);
		uint64_t bits, covered = 0;
		int last = -1;

		if (i % 3 == 1)
			word &= next_random(&random) & next_random(&random);
		if (i % 3 == 2)
			word |= next_random(&random) | next_random(&random);
		check_runs(word);
		bits = word;
		for (unsigned bit; bit_next(&bits, &bit);) {
			assert_true((int)bit > last);
			last = (int)bit;
			covered |= 1ull << bit;
		}
		assert_int_equal(covered, word);
	}
}

static void test_set_claim_take(void **unused)
{
	struct dirty_bitmap bitmap;

	(void)unused;
	assert_int_equal(dirty_bitmap_init(&bitmap, 130), 0);
	assert_int_equal(bitmap.n_summary, 3);
	dirty_bitmap_set(&bitmap, 5, 0); /* nothing to set: no flag either */
	for (unsigned s = 0; s < 3; s++)
		assert_int_equal(dirty_bitmap_claim(&bitmap, s, ~0ull), 0);
	dirty_bitmap_set(&bitmap, 0, 1);
	dirty_bitmap_set(&bitmap, 0, 6);
	dirty_bitmap_set(&bitmap, 63, 1ull << 63);
	dirty_bitmap_set(&bitmap, 64, ~0ull);
	dirty_bitmap_set(&bitmap, 129, 3);
	assert_int_equal(dirty_bitmap_count(&bitmap), 3 + 1 + 64 + 2);
	/* The mask keeps what is others'. */
	assert_int_equal(dirty_bitmap_claim(&bitmap, 0, 1ull << 63 | 2), 1ull << 63);
	assert_int_equal(dirty_bitmap_claim(&bitmap, 0, 1ull << 63), 0);
	assert_int_equal(dirty_bitmap_claim(&bitmap, 0, ~0ull), 1);
	assert_int_equal(dirty_bitmap_claim(&bitmap, 2, ~0ull), 2);
	assert_int_equal(dirty_bitmap_take(&bitmap, 0), 7);
	assert_int_equal(dirty_bitmap_take(&bitmap, 0), 0);
	assert_int_equal(dirty_bitmap_take(&bitmap, 63), 1ull << 63);
	assert_int_equal(dirty_bitmap_take(&bitmap, 129), 3);
	assert_int_equal(dirty_bitmap_count(&bitmap), 64);
	dirty_bitmap_fini(&bitmap);
}

/* A taker that cannot go on leaves what it has not taken to be found. */
static void test_unclaim(void **unused)
{
	struct dirty_bitmap bitmap;

	(void)unused;
	assert_int_equal(dirty_bitmap_init(&bitmap, 256), 0);
	dirty_bitmap_set(&bitmap, 130, 1);
	dirty_bitmap_set(&bitmap, 131, 2);
	assert_int_equal(dirty_bitmap_claim(&bitmap, 2, ~0ull), 12);
	assert_int_equal(dirty_bitmap_take(&bitmap, 130), 1);
	dirty_bitmap_tidy(&bitmap); /* meanwhile nothing points there */
	assert_int_equal(dirty_bitmap_next(&bitmap, 0, 4), 4);
	dirty_bitmap_unclaim(&bitmap, 2, 8);
	assert_int_equal(dirty_bitmap_next(&bitmap, 0, 4), 2);
	assert_int_equal(dirty_bitmap_claim(&bitmap, 2, ~0ull), 8);
	assert_int_equal(dirty_bitmap_take(&bitmap, 131), 2);
	dirty_bitmap_unclaim(&bitmap, 1, 0);
	dirty_bitmap_tidy(&bitmap);
	assert_int_equal(dirty_bitmap_next(&bitmap, 0, 4), 4);
	dirty_bitmap_fini(&bitmap);
}

static void test_set_tells_what_is_new(void **unused)
{
	struct dirty_bitmap bitmap;

	(void)unused;
	assert_int_equal(dirty_bitmap_init(&bitmap, 1), 0);
	assert_int_equal(dirty_bitmap_set(&bitmap, 0, 5), 5);
	assert_int_equal(dirty_bitmap_set(&bitmap, 0, 5), 0);
	assert_int_equal(dirty_bitmap_set(&bitmap, 0, 7), 2);
	assert_int_equal(dirty_bitmap_set(&bitmap, 0, 0), 0);
	assert_int_equal(dirty_bitmap_take(&bitmap, 0), 7);
	assert_int_equal(dirty_bitmap_set(&bitmap, 0, 7), 7);
	dirty_bitmap_fini(&bitmap);
}

#define NEXT_SUMMARY 200u /* summary words: more than three words of the top */

/* next() from everywhere to everywhere, against a walk. */
static void check_next(const struct dirty_bitmap *bitmap, const bool *flagged)
{
	for (unsigned from = 0; from <= NEXT_SUMMARY; from++) {
		unsigned end = from;

		while (end < NEXT_SUMMARY && !flagged[end])
			end++;
		for (unsigned stop = from; stop <= NEXT_SUMMARY; stop += 7)
			assert_int_equal(dirty_bitmap_next(bitmap, from, stop),
					 end < stop ? end : stop);
		assert_int_equal(dirty_bitmap_next(bitmap, from, NEXT_SUMMARY), end);
		if (end < NEXT_SUMMARY) /* the first that does not count */
			assert_int_equal(dirty_bitmap_next(bitmap, from, end), end);
	}
}

static void test_next_finds_what_is_set(void **unused)
{
	static const unsigned places[] = { 199, 0, 63, 64, 127, 128, 65, 1, 130, 192, 191 };
	bool flagged[NEXT_SUMMARY] = { false };
	struct dirty_bitmap bitmap;

	(void)unused;
	assert_int_equal(dirty_bitmap_init(&bitmap, NEXT_SUMMARY * 64 - 5), 0);
	assert_int_equal(bitmap.n_summary, NEXT_SUMMARY);
	check_next(&bitmap, flagged);
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		dirty_bitmap_set(&bitmap, places[i] * 64 + i, 1ull << i);
		flagged[places[i]] = true;
		check_next(&bitmap, flagged);
	}
	dirty_bitmap_fini(&bitmap);
}

/* Takers leave the top as it is; tidying clears of it what points to nothing, and only that. */
static void test_tidy(void **unused)
{
	bool flagged[NEXT_SUMMARY] = { false };
	struct dirty_bitmap bitmap;

	(void)unused;
	assert_int_equal(dirty_bitmap_init(&bitmap, NEXT_SUMMARY * 64), 0);
	for (unsigned s = 0; s < NEXT_SUMMARY; s += 3) {
		dirty_bitmap_set(&bitmap, s * 64, 1);
		dirty_bitmap_set(&bitmap, s * 64 + 63, 1);
		flagged[s] = true;
	}
	for (unsigned s = 0; s < NEXT_SUMMARY; s += 3) /* of every second all, of the others half */
		dirty_bitmap_claim(&bitmap, s, s % 2 ? 1 : ~0ull);
	check_next(&bitmap, flagged);
	dirty_bitmap_tidy(&bitmap);
	for (unsigned s = 0; s < NEXT_SUMMARY; s += 6)
		flagged[s] = false;
	check_next(&bitmap, flagged);
	dirty_bitmap_set(&bitmap, 64 * 6, 2); /* and it comes back */
	flagged[6] = true;
	check_next(&bitmap, flagged);
	dirty_bitmap_tidy(&bitmap);
	check_next(&bitmap, flagged);
	dirty_bitmap_fini(&bitmap);
}

static void test_count_against_a_model(void **unused)
{
	enum { WORDS = 200 };
	uint64_t model[WORDS] = { 0 };
	uint64_t random = 42;
	struct dirty_bitmap bitmap;

	(void)unused;
	assert_int_equal(dirty_bitmap_init(&bitmap, WORDS), 0);
	for (unsigned step = 0; step < 5000; step++) {
		uint64_t word = next_random(&random) % WORDS;
		uint64_t count = 0;

		if (next_random(&random) % 3) {
			uint64_t bits = next_random(&random) & next_random(&random);

			dirty_bitmap_set(&bitmap, word, bits);
			model[word] |= bits;
		} else {
			assert_int_equal(dirty_bitmap_take(&bitmap, word), model[word]);
			model[word] = 0;
		}
		for (unsigned i = 0; i < WORDS; i++)
			count += (uint64_t)__builtin_popcountll(model[i]);
		assert_int_equal(dirty_bitmap_count(&bitmap), count);
	}
	dirty_bitmap_fini(&bitmap);
}

/* ---- several threads ---- */

/* Few words of the summary, so that each is emptied and filled again all the time; the words of the
 * top are two. */
#define THREAD_SUMMARY 66u
#define THREAD_WORDS   (THREAD_SUMMARY * 64)
#define THREAD_PAGES   (THREAD_WORDS * 64)
#define BUSY_SUMMARY   4u
#define SET_PAGES      (BUSY_SUMMARY * 64 * 64)
#define SETTERS	       3u
#define TAKERS	       2u
#define TIDIERS	       1u
#define MEMBERS	       (SETTERS + TAKERS + TIDIERS)
#define ROUNDS	       40u

struct crowd {
	struct dirty_bitmap bitmap;
	_Atomic unsigned taken[THREAD_PAGES];
	_Atomic unsigned setters_left, tidiers_left;
	uint64_t order[SET_PAGES]; /* a page once, shuffled */
};

struct member {
	struct crowd *crowd;
	unsigned index;
	pthread_t thread;
};

static void *setter_thread(void *argument)
{
	struct member *member = argument;
	struct crowd *crowd = member->crowd;

	for (unsigned i = member->index; i < SET_PAGES; i += SETTERS)
		dirty_bitmap_set(&crowd->bitmap, crowd->order[i] / 64,
				 1ull << crowd->order[i] % 64);
	atomic_fetch_sub(&crowd->setters_left, 1);
	return NULL;
}

static void take_all(struct crowd *crowd)
{
	struct dirty_bitmap *bitmap = &crowd->bitmap;

	for (uint64_t s = dirty_bitmap_next(bitmap, 0, bitmap->n_summary); s < bitmap->n_summary;
	     s = dirty_bitmap_next(bitmap, s + 1, bitmap->n_summary)) {
		uint64_t words = dirty_bitmap_claim(bitmap, s, ~0ull);

		for (unsigned w; bit_next(&words, &w);) {
			uint64_t bits = dirty_bitmap_take(bitmap, s * 64 + w);

			for (unsigned bit; bit_next(&bits, &bit);)
				atomic_fetch_add(&crowd->taken[(s * 64 + w) * 64 + bit], 1);
		}
	}
}

static void *tidier_thread(void *argument)
{
	struct member *member = argument;
	bool last;

	do {
		last = !atomic_load(&member->crowd->setters_left);
		dirty_bitmap_tidy(&member->crowd->bitmap);
	} while (!last);
	atomic_fetch_sub(&member->crowd->tidiers_left, 1);
	return NULL;
}

static void *taker_thread(void *argument)
{
	struct member *member = argument;
	bool last;

	do {
		last = !atomic_load(&member->crowd->tidiers_left);
		take_all(member->crowd);
	} while (!last);
	return NULL;
}

static void run_crowd(struct crowd *crowd)
{
	struct member members[MEMBERS];

	atomic_store(&crowd->setters_left, SETTERS);
	atomic_store(&crowd->tidiers_left, TIDIERS);
	for (unsigned i = 0; i < MEMBERS; i++) {
		void *(*role)(void *) = i < SETTERS	       ? setter_thread
					: i < SETTERS + TAKERS ? taker_thread
							       : tidier_thread;

		members[i].crowd = crowd;
		members[i].index = i;
		assert_int_equal(pthread_create(&members[i].thread, NULL, role, &members[i]), 0);
	}
	for (unsigned i = 0; i < MEMBERS; i++)
		pthread_join(members[i].thread, NULL);
}

/* The pages of a few summary words at both ends of a word of the top, in any order. */
static void shuffle(struct crowd *crowd, uint64_t *random)
{
	for (uint64_t i = 0; i < SET_PAGES; i++) {
		uint64_t j = next_random(random) % (i + 1);

		crowd->order[i] = crowd->order[j];
		crowd->order[j] = i + (uint64_t)(64 - BUSY_SUMMARY / 2) * 64 * 64;
	}
}

/*
 * A page is set once by somebody and must be taken once by somebody, while the top is tidied all
 * the time. The takers' last round begins after the last set and the last tidying: nothing may be
 * left, not even a flag.
 */
static void test_no_bit_is_lost_or_taken_twice(void **unused)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));
	uint64_t random = 4711;

	(void)unused;
	assert_non_null(crowd);
	for (unsigned round = 0; round < ROUNDS; round++) {
		memset(crowd, 0, sizeof(*crowd));
		assert_int_equal(dirty_bitmap_init(&crowd->bitmap, THREAD_WORDS), 0);
		shuffle(crowd, &random);
		run_crowd(crowd);
		for (unsigned i = 0; i < SET_PAGES; i++)
			assert_int_equal(atomic_load(&crowd->taken[crowd->order[i]]), 1);
		for (unsigned i = 0; i < THREAD_WORDS; i++)
			assert_int_equal(dirty_bitmap_take(&crowd->bitmap, i), 0);
		for (unsigned i = 0; i < THREAD_SUMMARY; i++)
			assert_int_equal(dirty_bitmap_claim(&crowd->bitmap, i, ~0ull), 0);
		dirty_bitmap_fini(&crowd->bitmap);
	}
	free(crowd);
}

/* ---- the same where a bit that is lost stays lost ---- */

/* A summary word sees two bits in its life: no later one brings back a flag that is missing. Few
 * words, so that the tidier looks at each all the time. */
#define THIN_SUMMARY 130u
#define THIN_ROUNDS  2000u

struct thin {
	struct dirty_bitmap bitmap;
	atomic_bool quit, resting;
	_Atomic unsigned round; /* the tidier works in odd ones */
};

static void *thin_tidier(void *argument)
{
	struct thin *thin = argument;

	while (!atomic_load(&thin->quit)) {
		bool rest = !(atomic_load(&thin->round) % 2);

		atomic_store(&thin->resting, rest);
		if (!rest)
			dirty_bitmap_tidy(&thin->bitmap);
		else
			sched_yield();
	}
	return NULL;
}

static uint64_t thin_take(struct dirty_bitmap *bitmap)
{
	uint64_t n = 0;

	for (uint64_t s = dirty_bitmap_next(bitmap, 0, THIN_SUMMARY); s < THIN_SUMMARY;
	     s = dirty_bitmap_next(bitmap, s + 1, THIN_SUMMARY)) {
		uint64_t words = dirty_bitmap_claim(bitmap, s, ~0ull);

		for (unsigned w; bit_next(&words, &w);)
			n += (uint64_t)__builtin_popcountll(dirty_bitmap_take(bitmap, s * 64 + w));
	}
	return n;
}

static void test_tidying_loses_nothing(void **unused)
{
	struct thin thin = { .resting = false };
	pthread_t tidier;

	(void)unused;
	assert_int_equal(dirty_bitmap_init(&thin.bitmap, THIN_SUMMARY * 64), 0);
	assert_int_equal(pthread_create(&tidier, NULL, thin_tidier, &thin), 0);
	for (unsigned round = 0; round < THIN_ROUNDS; round++) {
		uint64_t taken = 0;

		atomic_fetch_add(&thin.round, 1);
		for (uint64_t s = 0; s < THIN_SUMMARY; s++) {
			dirty_bitmap_set(&thin.bitmap, s * 64 + round % 64, 1);
			taken += thin_take(&thin.bitmap);
			dirty_bitmap_set(&thin.bitmap, s * 64, 2);
			taken += thin_take(&thin.bitmap);
		}
		atomic_store(&thin.resting, false);
		atomic_fetch_add(&thin.round, 1);
		while (!atomic_load(&thin.resting))
			sched_yield();
		taken += thin_take(&thin.bitmap);
		assert_int_equal(taken, 2 * THIN_SUMMARY);
	}
	atomic_store(&thin.quit, true);
	pthread_join(tidier, NULL);
	dirty_bitmap_fini(&thin.bitmap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs_of_every_place_and_length),
		cmocka_unit_test(test_runs_of_all_ends),
		cmocka_unit_test(test_runs_and_bits_of_random_words),
		cmocka_unit_test(test_set_claim_take),
		cmocka_unit_test(test_unclaim),
		cmocka_unit_test(test_set_tells_what_is_new),
		cmocka_unit_test(test_next_finds_what_is_set),
		cmocka_unit_test(test_tidy),
		cmocka_unit_test(test_count_against_a_model),
		cmocka_unit_test(test_no_bit_is_lost_or_taken_twice),
		cmocka_unit_test(test_tidying_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
