/* SPDX-License-Identifier: Apache-2.0 */
/* The lanes' threads: beginning, sleeping, waiting for slices, failing, ending. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lanes_rig.h"
#include "tests/support/cmocka_all.h"

#define A_MOMENT_US 50000

static void test_nothing_to_send(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 4);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_finish(&rig);
	assert_int_equal(atomic_load(&seen.posts), 0);
	rig_fini(&rig);
}

/* One side alone is not enough, whichever it is. */
static void wait_for_side(bool far_is_late)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	rig_init(&rig, 3);
	rig_fill(&rig);
	rig.far_is_silent = far_is_late;
	atomic_store(&seen.block_registering, !far_is_late);
	rig_start(&rig, &(struct lanes_config){ 0 });
	usleep(A_MOMENT_US);
	assert_int_equal(atomic_load(&seen.posts), 0);
	assert_false(lanes_first_pass_done(rig.lanes));
	/* Finishing does not get around it. */
	rig_tell_finish(&rig);
	assert_int_equal(lanes_wait(rig.lanes, clock_now_ns() + 50 * NS_PER_MS, &error),
			 -ETIMEDOUT);
	assert_int_equal(error.code, -ETIMEDOUT);
	assert_int_equal(atomic_load(&seen.posts), 0);
	far_side_hold(&rig.far, false);
	atomic_store(&seen.block_registering, false);
	assert_int_equal(lanes_wait(rig.lanes, LONG_NS, NULL), 0);
	assert_true(lanes_first_pass_done(rig.lanes));
	rig_assert_same_memory(&rig);
	rig_fini(&rig);
}

static void test_slices_wait_until_both_sides_are_ready(void **unused)
{
	(void)unused;
	wait_for_side(false);
	wait_for_side(true);
}

static void test_a_post_that_fails_surfaces(void **unused)
{
	const struct memory_faults faults = { .fail_post = 5 };
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 1); /* with others it would be replaced: test_lane_loss.c */
	rig_dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	for (uint64_t end_ns = LONG_NS; !lanes_check(rig.lanes, NULL) && clock_now_ns() < end_ns;)
		usleep(1000);
	assert_int_equal(lanes_check(rig.lanes, &error), -EIO);
	assert_non_null(strstr(error.text, "as it was told to"));
	memset(&error, 0, sizeof(error));
	rig_tell_finish(&rig);
	assert_int_equal(lanes_wait(rig.lanes, LONG_NS, &error), -EIO);
	assert_int_equal(error.code, -EIO);
	assert_true(atomic_load(&seen.tokens) < rig.n_lanes); /* none from the one that failed */
	rig_fini(&rig);
}

/* Even from a transport that forgets to say why. */
static void test_a_failure_without_words(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2);
	seen.fail_silently = -EREMOTEIO;
	rig_dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_tell_finish(&rig);
	assert_int_equal(lanes_wait(rig.lanes, LONG_NS, &error), -EREMOTEIO);
	assert_non_null(strstr(error.text, "lane "));
	rig_fini(&rig);
}

static void test_a_token_that_fails_surfaces(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2);
	rig_start(&rig, &(struct lanes_config){ 0 });
	memory_transport()->close(rig.to);
	rig.to = NULL;
	rig_tell_finish(&rig);
	assert_int_equal(lanes_wait(rig.lanes, LONG_NS, &error), -EIO);
	assert_non_null(strstr(error.text, "gone"));
	rig_fini(&rig);
}

/* Each of these would hang if stopping did not reach that place. */
static void test_stopping_wherever_a_lane_waits(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 3); /* asleep, with nothing to do */
	rig_start(&rig, &(struct lanes_config){ 0 });
	usleep(A_MOMENT_US);
	rig_fini(&rig);

	rig_init(&rig, 3); /* for a slice */
	rig_dirty_all(&rig);
	rig.far_is_silent = true;
	rig_start(&rig, &(struct lanes_config){ 0 });
	usleep(A_MOMENT_US);
	rig_fini(&rig);

	rig_init(&rig, 3); /* for a slice, while finishing */
	rig_dirty_all(&rig);
	rig.far_is_silent = true;
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_tell_finish(&rig);
	usleep(A_MOMENT_US);
	rig_fini(&rig);

	rig_init(&rig, 3); /* for its turn: a byte a second */
	rig_dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ .bandwidth_bytes_per_s = 1 });
	usleep(A_MOMENT_US);
	rig_fini(&rig);

	rig_init(&rig, 3); /* for the transport */
	atomic_store(&seen.block, true);
	rig_dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	while (!atomic_load(&seen.posts))
		usleep(1000);
	rig_fini(&rig);

	rig_init(&rig, 3); /* at once */
	rig_dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_fini(&rig);
	lanes_free(NULL);
}

/* The limit is for the time before the switchover. At a byte a second this would take years. */
static void test_finishing_lifts_the_limit(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 3);
	rig_dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ .bandwidth_bytes_per_s = 1 });
	usleep(A_MOMENT_US);
	assert_false(lanes_first_pass_done(rig.lanes));
	rig_finish(&rig);
	rig_fini(&rig);
}

/* Pages that come in while lanes sleep are sent after a wake, and only then is there an end. */
static void test_wakes_are_not_lost(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2);
	rig_start(&rig, &(struct lanes_config){ 0 });
	for (unsigned i = 1; i <= 300; i++) {
		unsigned char *there = (unsigned char *)rig.destination[1].hva + i % 500 * PAGE;
		uint64_t end_ns = LONG_NS;

		rig_write(&rig, 1, i % 500, i);
		ramlift_dirty_mark(&rig.set, 1, i % 500, 1);
		dirty_set_fold(&rig.set);
		lanes_wake(rig.lanes);
		/* Lane 0 of the transport holds nothing back. */
		if (i % 500 / 64 % 2 != 1)
			continue;
		while (*(volatile unsigned char *)there != (unsigned char)i)
			assert_true(clock_now_ns() < end_ns);
	}
	rig_finish(&rig);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_to_send),
		cmocka_unit_test(test_slices_wait_until_both_sides_are_ready),
		cmocka_unit_test(test_a_post_that_fails_surfaces),
		cmocka_unit_test(test_a_failure_without_words),
		cmocka_unit_test(test_a_token_that_fails_surfaces),
		cmocka_unit_test(test_stopping_wherever_a_lane_waits),
		cmocka_unit_test(test_finishing_lifts_the_limit),
		cmocka_unit_test(test_wakes_are_not_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
