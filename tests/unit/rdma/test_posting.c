/* SPDX-License-Identifier: Apache-2.0 */
/* What a lane does to its device: doorbells, bytes in flight, looking and sleeping. */
#include <string.h>

#include "core/clock.h"
#include "fake.h"
#include "pair.h"
#include "rdma/lane.h"

/* Drain a lane after one write, and count. */
struct effort {
	unsigned looks, notifications;
};

static struct effort drain_one_write(struct pair *pair)
{
	struct transport_write write = { .length_bytes = 4096 };
	struct effort before = { fake_looks(), fake_notifications() };

	assert_int_equal(transport->post(pair->source, 0, &write, 1, &pair->source_error), 0);
	assert_int_equal(transport->drain(pair->source, 0, &pair->source_error), 0);
	return (struct effort){ fake_looks() - before.looks,
				fake_notifications() - before.notifications };
}

/* The destination's watch and the lanes' looks are not to be counted: it does not look here. */
static void open_pair(struct pair *pair)
{
	pair_init(pair, 1);
	pair_open(pair);
}

static void test_slow_completions_are_slept_for(void **state)
{
	struct effort effort;
	struct pair pair;

	(void)state;
	open_pair(&pair);
	fake_late_completions(1u << 30);
	for (unsigned i = 0; i < 12; i++)
		drain_one_write(&pair);
	effort = drain_one_write(&pair);
	assert_int_equal(effort.notifications, 1);
	assert_in_range(effort.looks, LANE_MIN_SPIN_POLLS, LANE_MIN_SPIN_POLLS + 2);
	pair_fini(&pair);
}

static void test_fast_completions_are_looked_for(void **state)
{
	struct effort effort;
	struct pair pair;

	(void)state;
	open_pair(&pair);
	fake_late_completions(1u << 30);
	for (unsigned i = 0; i < 12; i++)
		drain_one_write(&pair);
	/* Within reach: each time it can be waited for longer. */
	for (unsigned late = LANE_MIN_SPIN_POLLS / 2; late < LANE_MAX_SPIN_POLLS / 2; late *= 2) {
		fake_late_completions(late);
		effort = drain_one_write(&pair);
		assert_int_equal(effort.notifications, 0);
		assert_int_equal(effort.looks, late + 1);
	}
	/* There is an end to it. */
	fake_late_completions(1);
	for (unsigned i = 0; i < 12; i++)
		drain_one_write(&pair);
	fake_late_completions(LANE_MAX_SPIN_POLLS + 1);
	effort = drain_one_write(&pair);
	assert_int_equal(effort.notifications, 1);
	assert_true(effort.looks <= LANE_MAX_SPIN_POLLS + 2);
	pair_fini(&pair);
}

/* 8 MiB in one post: not all of it at once, and never nothing. */
static void test_large_posts_keep_to_the_window(void **state)
{
	struct transport_write writes[TRANSPORT_MAX_BATCH];
	struct pair pair;

	(void)state;
	open_pair(&pair);
	for (unsigned i = 0; i < TRANSPORT_MAX_BATCH; i++)
		writes[i] = (struct transport_write){ .slice = i % PAIR_SLICES,
						      .length_bytes = PAIR_SLICE_BYTES };
	assert_int_equal(
		transport->post(pair.source, 0, writes, TRANSPORT_MAX_BATCH, &pair.source_error),
		0);
	assert_true(fake_fullest_queue() <= LANE_WINDOW_BYTES / PAIR_SLICE_BYTES);
	assert_true(fake_fullest_queue() > 0);
	assert_true(transport->in_flight_bytes(pair.source, 0) <= LANE_WINDOW_BYTES);
	assert_int_equal(transport->drain(pair.source, 0, &pair.source_error), 0);
	assert_int_equal(transport->in_flight_bytes(pair.source, 0), 0);
	pair_assert_same_memory(&pair);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slow_completions_are_slept_for),
		cmocka_unit_test(test_fast_completions_are_looked_for),
		cmocka_unit_test(test_large_posts_keep_to_the_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
