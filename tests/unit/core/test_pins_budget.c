/* SPDX-License-Identifier: Apache-2.0 */
/* Slices that go so that others may come: never more than the budget, never one that is held. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pins_rig.h"
#include "tests/support/cmocka_all.h"

/* Room for two. */
static void test_who_is_held_stays(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2 * SLICE_BYTES, 1);
	assert_false(pins_are_kept(rig.pins));
	await(&rig, 3);
	await(&rig, 3); /* by two */
	await(&rig, 0);
	pins_want(rig.pins, 6);
	pins_want(rig.pins, 1);
	usleep(A_MOMENT_US);
	assert_int_equal(far_side_orders(&rig.far), 2);
	pins_release(rig.pins, 3); /* by one, still */
	assert_int_equal(far_side_orders(&rig.far), 2);
	assert_true(pins_hold(rig.pins, 3));
	pins_release(rig.pins, 3);
	pins_release(rig.pins, 0); /* this one goes, for the one that came first */
	await_far_orders(&rig, 4);
	assert_order(&rig, 2, 0, 0);
	assert_order(&rig, 3, 6, 3);
	await_usable(&rig, 3); /* else the one that still waits might drive it out again */
	assert_true(pins_hold(rig.pins, 6));
	usleep(A_MOMENT_US);
	assert_int_equal(far_side_orders(&rig.far), 4); /* both are held again */
	pins_release(rig.pins, 6);
	await(&rig, 1);
	assert_order(&rig, 4, 6, 0);
	assert_order(&rig, 5, 1, 1);
	assert_true(pins_hold(rig.pins, 3));
	assert_true(pins_settled(rig.pins));
	rig_fini(&rig);
}

/* What nobody holds goes only for somebody else. */
static void test_nothing_goes_without_need(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 3 * SLICE_BYTES, 1);
	for (unsigned i = 0; i < 3; i++) {
		await(&rig, i);
		pins_release(rig.pins, i);
	}
	assert_int_equal(pins_check(rig.pins, NS_PER_S, NULL), 0);
	assert_int_equal(far_side_orders(&rig.far), 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(pins_hold(rig.pins, i));
		pins_release(rig.pins, i);
	}
	assert_int_equal(far_side_orders(&rig.far), 3);
	rig_fini(&rig);
}

/* More are wanted than there is room for, and nobody holds any: all of them have their turn. */
static void test_all_have_their_turn(void **unused)
{
	struct memory_account here, there;
	bool asked[N_SLICES] = { false };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2 * SLICE_BYTES, 2);
	for (unsigned i = 0; i < N_SLICES; i++)
		pins_want(rig.pins, i);
	settle(&rig);
	for (unsigned i = 0; i < far_side_orders(&rig.far); i++) {
		struct far_order order = far_side_order(&rig.far, i);

		assert_false(order.rails && asked[order.slice]); /* once */
		if (order.rails)
			asked[order.slice] = true;
	}
	for (unsigned i = 0; i < N_SLICES; i++)
		assert_true(asked[i]);
	memory_transport_accounts(&here, &there);
	assert_in_range(here.most_bytes, SLICE_BYTES, 2 * SLICE_BYTES);
	assert_in_range(there.most_bytes, SLICE_BYTES, 2 * SLICE_BYTES);
	rig_fini(&rig);
}

struct holder {
	struct rig *rig;
	unsigned index; /* its lane, and its page in each slice */
	unsigned n_rounds;
	pthread_t thread;
};

/* Lanes 0 to 2 belong to the first rail, which carries all regions. */
#define N_HOLDERS 3u

static void *holder_thread(void *argument)
{
	struct holder *holder = argument;
	struct rig *rig = holder->rig;
	unsigned seed = holder->index + 1;

	for (unsigned i = 1; i <= holder->n_rounds; i++) {
		struct transport_write write = { .slice = (unsigned)rand_r(&seed) % N_SLICES,
						 .length_bytes = RAMLIFT_PAGE_BYTES,
						 .offset_bytes = holder->index * PAGE };
		struct slice *slice = &rig->ram.slices[write.slice];

		memset((char *)slice->hva + write.offset_bytes, (int)i, PAGE);
		await(rig, write.slice);
		if (memory_transport()->post(rig->from, holder->index, &write, 1, NULL) ||
		    memory_transport()->drain(rig->from, holder->index, NULL))
			abort();
		pins_release(rig->pins, write.slice);
	}
	return NULL;
}

static void hold_and_release(unsigned budget_slices, unsigned n_threads, unsigned n_rounds)
{
	struct holder holders[N_HOLDERS];
	struct memory_account here, there;
	struct rig rig;

	rig_init(&rig, budget_slices * SLICE_BYTES, n_threads);
	for (unsigned i = 0; i < N_HOLDERS; i++) {
		holders[i] = (struct holder){ .rig = &rig, .index = i, .n_rounds = n_rounds };
		assert_int_equal(
			pthread_create(&holders[i].thread, NULL, holder_thread, &holders[i]), 0);
	}
	for (unsigned i = 0; i < N_HOLDERS; i++)
		pthread_join(holders[i].thread, NULL);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_memory_equal(rig.here[i].hva, rig.there[i].hva, rig.here[i].size_bytes);
	memory_transport_accounts(&here, &there);
	assert_in_range(here.most_bytes, SLICE_BYTES, budget_slices * SLICE_BYTES);
	assert_in_range(there.most_bytes, SLICE_BYTES, budget_slices * SLICE_BYTES);
	assert_true(budget_slices >= N_SLICES || here.n_deregistrations > 0);
	rig_fini(&rig);
}

/* Would hang where a slice that became usable woke nobody, or nobody made room. */
static void test_threads_that_need_what_others_hold(void **unused)
{
	(void)unused;
	hold_and_release(1, 1, 300);
	hold_and_release(2, 2, 500);
	hold_and_release(4, 2, 1000);
	hold_and_release(N_SLICES, 3, 1000);
}

/* ---- a slice that is taken away at the moment in which somebody takes hold of it ---- */

#define ROBBERIES 2000u

struct robbery {
	struct rig *rig;
	atomic_bool over;
};

static void *victim_thread(void *argument)
{
	static const struct transport_write write = { .slice = 0,
						      .length_bytes = RAMLIFT_PAGE_BYTES };
	struct robbery *robbery = argument;
	struct rig *rig = robbery->rig;

	while (!atomic_load(&robbery->over)) {
		if (!pins_hold(rig->pins, 0)) {
			pins_want(rig->pins, 0);
			continue;
		}
		/* The transport ends the process where the slice is not there any more. */
		if (memory_transport()->post(rig->from, 0, &write, 1, NULL) ||
		    memory_transport()->drain(rig->from, 0, NULL))
			abort();
		pins_release(rig->pins, 0);
	}
	return NULL;
}

static void test_who_holds_in_the_last_moment(void **unused)
{
	struct robbery robbery = { .over = false };
	pthread_t victim;
	struct rig rig;

	(void)unused;
	rig_init(&rig, SLICE_BYTES, 1);
	robbery.rig = &rig;
	assert_int_equal(pthread_create(&victim, NULL, victim_thread, &robbery), 0);
	for (unsigned i = 0; i < ROBBERIES; i++) {
		await(&rig, 1);
		pins_release(rig.pins, 1);
	}
	atomic_store(&robbery.over, true);
	pthread_join(victim, NULL);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_is_held_stays),
		cmocka_unit_test(test_nothing_goes_without_need),
		cmocka_unit_test(test_all_have_their_turn),
		cmocka_unit_test(test_threads_that_need_what_others_hold),
		cmocka_unit_test(test_who_holds_in_the_last_moment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
