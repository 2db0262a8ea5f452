/* SPDX-License-Identifier: Apache-2.0 */
/* Which slices are asked for, when they are usable, and what can go wrong. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "pins_rig.h"
#include "tests/support/cmocka_all.h"

static void test_asked_for_in_the_order_of_wanting(void **unused)
{
	static const unsigned slices[N_SLICES] = { 7, 2, 0, 8, 5, 1, 6, 4, 3 };
	struct memory_account here, there;
	struct rig rig;

	(void)unused;
	rig_init(&rig, 0, 2);
	assert_true(pins_are_kept(rig.pins));
	assert_true(pins_settled(rig.pins));
	assert_int_equal(far_side_orders(&rig.far), 0);
	for (unsigned i = 0; i < N_SLICES; i++)
		pins_want(rig.pins, slices[i]);
	settle(&rig);
	assert_int_equal(far_side_orders(&rig.far), N_SLICES);
	for (unsigned i = 0; i < N_SLICES; i++) {
		assert_order(&rig, i, slices[i], slices[i] < N_FIRST ? 1 : 3);
		assert_true(pins_hold(rig.pins, i));
		assert_true(pins_want(rig.pins, i));
		pins_release(rig.pins, i);
		assert_true(pins_hold(rig.pins, i)); /* without a budget it stays */
	}
	memory_transport_accounts(&here, &there);
	assert_int_equal(here.bytes, rig.ram.bytes);
	assert_int_equal(there.bytes, rig.ram.bytes);
	assert_usable_calls(&rig, N_SLICES);
	rig_fini(&rig);
}

static void test_both_sides_are_needed(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 0, 1);
	far_side_hold(&rig.far, true); /* here, not there */
	assert_false(pins_want(rig.pins, 4));
	usleep(A_MOMENT_US);
	assert_false(pins_hold(rig.pins, 4));
	assert_false(pins_settled(rig.pins));
	far_side_hold(&rig.far, false);
	settle(&rig);
	assert_true(pins_hold(rig.pins, 4));

	atomic_store(&gate_is_closed, true); /* there, not here */
	assert_false(pins_want(rig.pins, 5));
	usleep(A_MOMENT_US);
	assert_false(pins_hold(rig.pins, 5));
	assert_false(pins_settled(rig.pins));
	assert_usable_calls(&rig, 1);
	atomic_store(&gate_is_closed, false);
	settle(&rig);
	assert_true(pins_hold(rig.pins, 5));
	assert_usable_calls(&rig, 2);
	assert_false(pins_hold(rig.pins, 3)); /* nobody wanted it */
	rig_fini(&rig);
}

static void test_wanting_again(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 0, 1);
	far_side_hold(&rig.far, true);
	for (unsigned i = 0; i < 3; i++)
		assert_false(pins_want(rig.pins, 1));
	far_side_hold(&rig.far, false);
	settle(&rig);
	assert_true(pins_want(rig.pins, 1));
	assert_true(pins_settled(rig.pins));
	assert_int_equal(far_side_orders(&rig.far), 1);
	assert_usable_calls(&rig, 1);
	rig_fini(&rig);
}

/* The destination is not believed. */
static void test_what_nobody_asked_for(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2 * SLICE_BYTES, 1);
	assert_int_equal(pins_peer_ready(rig.pins, 3, &error), -EPROTO);
	assert_non_null(strstr(error.text, "slice 3"));
	assert_int_equal(pins_peer_ready(rig.pins, N_SLICES, NULL), -EPROTO);
	assert_int_equal(pins_peer_ready(rig.pins, UINT32_MAX, NULL), -EPROTO);
	pins_want(rig.pins, 0);
	settle(&rig);
	assert_int_equal(pins_peer_ready(rig.pins, 0, NULL), -EPROTO); /* twice */
	assert_true(pins_hold(rig.pins, 0));
	/* One that waits for room was not asked for either. */
	far_side_hold(&rig.far, true);
	for (unsigned i = 1; i <= 2; i++)
		pins_want(rig.pins, i);
	assert_int_equal(far_side_orders(&rig.far), 2);
	assert_int_equal(pins_peer_ready(rig.pins, 2, NULL), -EPROTO);
	assert_false(pins_hold(rig.pins, 2));
	rig_fini(&rig);
}

static void test_asking_fails(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 0, 1);
	atomic_store(&rig.far.fail_ask, -EPIPE);
	pins_want(rig.pins, 2);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, &error), -EPIPE);
	assert_int_equal(error.code, -EPIPE);
	assert_non_null(strstr(error.text, "asking fails"));
	atomic_store(&rig.far.fail_ask, -EIO); /* the first is what counts */
	pins_want(rig.pins, 3);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, NULL), -EPIPE);
	rig_fini(&rig);
}

static void test_retiring_fails(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, SLICE_BYTES, 1);
	await(&rig, 0);
	atomic_store(&rig.far.fail_retire, -EPIPE);
	pins_want(rig.pins, 1);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, NULL), 0);
	pins_release(rig.pins, 0);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, &error), -EPIPE);
	assert_non_null(strstr(error.text, "retiring fails"));
	rig_fini(&rig);
}

static void test_registering_here_fails(void **unused)
{
	const struct memory_faults faults = { .fail_register = 2 };
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 0, 1);
	atomic_store(&rig.far.hold, true);
	pins_want(rig.pins, 0);
	pins_want(rig.pins, 1);
	for (uint64_t end_ns = LONG_NS; !pins_check(rig.pins, 60 * NS_PER_S, &error);) {
		assert_true(clock_now_ns() < end_ns);
		usleep(500);
	}
	assert_int_equal(error.code, -ENOMEM);
	assert_non_null(strstr(error.text, "as it was told to"));
	rig_fini(&rig);
}

static void test_patience(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, SLICE_BYTES, 1);
	usleep(A_MOMENT_US);
	assert_int_equal(pins_check(rig.pins, 1, &error), 0); /* it owes nothing */
	await(&rig, 0);
	assert_int_equal(pins_check(rig.pins, 1, &error), 0);
	/* Nor what waits for room here. */
	pins_want(rig.pins, 1);
	usleep(A_MOMENT_US);
	assert_int_equal(pins_check(rig.pins, 1, &error), 0);
	assert_false(pins_settled(rig.pins));
	far_side_hold(&rig.far, true);
	pins_release(rig.pins, 0);
	/* Only now has it been asked, whatever time has passed since it was wanted. */
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, &error), 0);
	usleep(A_MOMENT_US);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, &error), 0);
	assert_int_equal(pins_check(rig.pins, A_MOMENT_US * NS_PER_US, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.text, "no longer gets on"));
	far_side_hold(&rig.far, false);
	await(&rig, 1);
	assert_int_equal(pins_check(rig.pins, 1, NULL), 0);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asked_for_in_the_order_of_wanting),
		cmocka_unit_test(test_both_sides_are_needed),
		cmocka_unit_test(test_wanting_again),
		cmocka_unit_test(test_what_nobody_asked_for),
		cmocka_unit_test(test_asking_fails),
		cmocka_unit_test(test_retiring_fails),
		cmocka_unit_test(test_registering_here_fails),
		cmocka_unit_test(test_patience),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
