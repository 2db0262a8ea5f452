/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes that fail while the guest still runs, and what the others make of it. The transport loses
 * half of what a lost lane held back and lets the other half arrive at the fence; it ends the
 * process when somebody posts to a stripe of a lane that is not fenced.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lanes_rig.h"
#include "tests/support/cmocka_all.h"

#define A_MOMENT_US 50000

static _Atomic unsigned n_dry, n_lost, n_ended;

static void count(void *counter)
{
	atomic_fetch_add((_Atomic unsigned *)counter, 1);
}

static void count_dry(void *unused)
{
	(void)unused;
	count(&n_dry);
}

static void count_lost(void *unused)
{
	(void)unused;
	count(&n_lost);
}

static void count_ended(void *unused)
{
	(void)unused;
	count(&n_ended);
}

/* What the lanes report. */
static struct lanes_config counting(void)
{
	atomic_store(&n_dry, 0);
	atomic_store(&n_lost, 0);
	atomic_store(&n_ended, 0);
	return (struct lanes_config){
		.dry = count_dry,
		.lost = count_lost,
		.ended = count_ended,
	};
}

static void await_settled(struct rig *rig)
{
	for (uint64_t end_ns = LONG_NS;
	     !lanes_first_pass_done(rig->lanes) ||
	     lanes_done_bytes(rig->lanes) != dirty_set_added_bytes(&rig->set);) {
		usleep(1000);
		assert_true(clock_now_ns() < end_ns);
	}
}

/* A busy guest; every lane but one is lost, sooner or later, and replaced. */
static void lose_all_but(struct rig *rig, unsigned survivor, unsigned sooner,
			 const struct lanes_config *extra)
{
	unsigned lost = 0;

	rig->replaces = true;
	rig_fill(rig);
	rig_start(rig, extra);
	for (uint64_t end_ns = LONG_NS; lost + 1 < rig->n_lanes;) {
		rig_write_for_a_while(rig, 300);
		lost = 0;
		for (unsigned i = 0; i < rig->n_lanes; i++)
			lost += lanes_loss(rig->lanes, i, NULL) != 0;
		assert_true(clock_now_ns() < end_ns);
	}
	assert_int_equal(lanes_loss(rig->lanes, survivor, NULL), 0);
	assert_int_equal(rig_replace(rig, NULL), 0);
	rig_write_for_a_while(rig, 300 * sooner);
	rig_finish(rig);
	rig_fini(rig);
}

static void fail_all_but(struct memory_faults *faults, unsigned n_lanes, unsigned survivor,
			 unsigned sooner)
{
	memset(faults, 0, sizeof(*faults));
	for (unsigned i = 0; i < n_lanes; i++) {
		if (i != survivor)
			faults->fail_lane_post[i] = 1 + i % sooner;
	}
	memory_transport_set_faults(faults);
}

static void test_down_to_one(void **unused)
{
	static const unsigned n_lanes[] = { 2, 3, 4, 7, 33, RAMLIFT_MAX_LANES };
	static const unsigned sooner[] = { 1, 4 };

	(void)unused;
	for (size_t i = 0; i < sizeof(n_lanes) / sizeof(n_lanes[0]); i++) {
		for (size_t j = 0; j < sizeof(sooner) / sizeof(sooner[0]); j++) {
			const unsigned survivors[] = { 0, n_lanes[i] / 2, n_lanes[i] - 1 };

			for (unsigned k = 0; k < 3; k++) {
				struct memory_faults faults;
				struct rig rig;

				fail_all_but(&faults, n_lanes[i], survivors[k], sooner[j]);
				rig_init(&rig, n_lanes[i]);
				lose_all_but(&rig, survivors[k], sooner[j],
					     &(struct lanes_config){ .skip_zeros = k == 1 });
			}
		}
	}
}

/* Each number of survivors of six. */
static void test_some_are_left(void **unused)
{
	(void)unused;
	for (unsigned n = 1; n < 6; n++) {
		struct memory_faults faults = { 0 };
		struct ramlift_lane_stats stats;
		struct rig rig;

		for (unsigned i = 0; i < n; i++)
			faults.fail_lane_post[(i * 5 + 3) % 6] = 2 + i;
		memory_transport_set_faults(&faults);
		rig_init(&rig, 6);
		rig.replaces = true;
		rig_fill(&rig);
		rig_start(&rig, &(struct lanes_config){ 0 });
		for (unsigned lost = 0; lost < n;) {
			rig_write_for_a_while(&rig, 200);
			lost = 0;
			for (unsigned i = 0; i < 6; i++)
				lost += lanes_loss(rig.lanes, i, NULL) != 0;
		}
		assert_int_equal(rig_replace(&rig, NULL), 0);
		for (unsigned i = 0; i < 6; i++) {
			lanes_stats(rig.lanes, i, &stats);
			assert_int_equal(stats.lost, faults.fail_lane_post[i] != 0);
		}
		lanes_wake(rig.lanes);
		await_settled(&rig);
		rig_finish(&rig);
		rig_fini(&rig);
	}
}

static void test_within_a_budget(void **unused)
{
	(void)unused;
	for (unsigned survivor = 0; survivor < 3; survivor++) {
		struct memory_faults faults;
		struct rig rig;

		fail_all_but(&faults, 3, survivor, 3);
		rig_init(&rig, 3);
		rig.budget_bytes = 3 * RIG_SLICE_BYTES;
		lose_all_but(&rig, survivor, 3, &(struct lanes_config){ .skip_zeros = true });
	}
}

/* Its slice may still be written to at the destination: no room is made of it before the fence. */
static void test_the_slice_of_a_lost_lane_is_held(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 1 } };
	struct memory_account before, after;
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 2);
	rig.budget_bytes = RIG_SLICE_BYTES;
	/* Lane 1's, and nothing else. */
	ramlift_dirty_mark(&rig.set, 2, 64, 3);
	rig_write(&rig, 2, 64, 7);
	dirty_set_fold(&rig.set);
	dirty_set_fold(&rig.set);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_await_lost(&rig, 1);
	/* Lane 0 needs another slice, for which there is no room. */
	ramlift_dirty_mark(&rig.set, 2, 64 * 10, 3);
	dirty_set_fold(&rig.set);
	dirty_set_fold(&rig.set);
	lanes_wake(rig.lanes);
	usleep(A_MOMENT_US);
	memory_transport_accounts(&before, NULL);
	assert_int_equal(before.n_deregistrations, 0);
	assert_int_equal(rig_replace(&rig, NULL), 0);
	lanes_wake(rig.lanes);
	await_settled(&rig);
	memory_transport_accounts(&after, NULL);
	assert_true(after.n_deregistrations > 0);
	rig_finish(&rig);
	rig_fini(&rig);
}

static void test_with_rails(void **unused)
{
	static const struct {
		unsigned n_rails, n_lanes, region_rails[RIG_REGIONS];
		uint64_t lost; /* those of the lanes that are used */
	} cases[] = {
		{ 2, 4, { 3, 3, 3 }, 1 << 0 | 1 << 3 },
		{ 2, 4, { 1, 2, 3 }, 1 << 1 | 1 << 2 },
		{ 3, 9, { 4, 5, 2 }, 1 << 8 | 1 << 0 | 1 << 4 | 1 << 5 },
		{ 2, 2, { 3, 3, 3 }, 1 << 1 }, /* a whole rail */
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct memory_faults faults = { 0 };
		struct rig rig;

		for (unsigned j = 0; j < cases[i].n_lanes; j++)
			faults.fail_lane_post[j] = cases[i].lost >> j & 1;
		memory_transport_set_faults(&faults);
		rig_init_with_rails(&rig, cases[i].n_rails, cases[i].n_lanes,
				    cases[i].region_rails);
		rig.replaces = true;
		rig_fill(&rig);
		rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
		rig_await_lost(&rig, (unsigned)__builtin_popcountll(cases[i].lost));
		rig_write_for_a_while(&rig, 3000);
		assert_int_equal(lanes_lost(rig.lanes), 0);
		rig_finish(&rig);
		rig_fini(&rig);
	}
}

/* Two at once; before the first is replaced the second is lost, too. */
static void test_two_at_a_time(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 2, 3 } };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 4);
	rig_fill(&rig);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	rig_await_lost(&rig, 2);
	assert_int_equal(lanes_lost(rig.lanes), 6);
	rig_write_for_a_while(&rig, 1000);
	assert_int_equal(rig_replace(&rig, NULL), 0);
	assert_int_equal(lanes_lost(rig.lanes), 0);
	rig_write_for_a_while(&rig, 1000);
	rig_finish(&rig);
	rig_fini(&rig);
}

/* The one that gets the stripes of the first is lost with them. */
static void test_an_heir_is_lost(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 1, 200 } };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 3);
	rig_fill(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_await_lost(&rig, 1);
	assert_int_equal(rig_replace(&rig, NULL), 0);
	rig.replaces = true;
	for (uint64_t end_ns = LONG_NS; !lanes_loss(rig.lanes, 2, NULL);) {
		rig_write_for_a_while(&rig, 300);
		assert_true(clock_now_ns() < end_ns);
	}
	assert_int_equal(rig_replace(&rig, NULL), 0);
	rig_finish(&rig);
	rig_fini(&rig);
}

/* The last one that carries a region says why it has come to nothing. */
static void lose_too_many(unsigned n_rails, unsigned n_lanes, const unsigned region_rails[],
			  uint64_t lost, const char *words)
{
	struct memory_faults faults = { 0 };
	struct ramlift_error error = { 0 };
	struct lanes_config config = counting();
	struct rig rig;

	for (unsigned i = 0; i < n_lanes; i++)
		faults.fail_lane_post[i] = lost >> i & 1;
	memory_transport_set_faults(&faults);
	rig_init_with_rails(&rig, n_rails, n_lanes, region_rails);
	rig_fill(&rig);
	rig_start(&rig, &config);
	for (uint64_t end_ns = LONG_NS; !lanes_check(rig.lanes, &error);) {
		usleep(1000);
		assert_true(clock_now_ns() < end_ns);
	}
	assert_int_equal(error.code, -EIO);
	assert_non_null(strstr(error.text, words));
	for (uint64_t end_ns = LONG_NS; !atomic_load(&n_ended);)
		assert_true(clock_now_ns() < end_ns);
	memset(&error, 0, sizeof(error));
	rig_tell_finish(&rig);
	assert_int_equal(lanes_wait(rig.lanes, LONG_NS, &error), -EIO);
	rig_fini(&rig);
}

static void test_none_is_left(void **unused)
{
	(void)unused;
	lose_too_many(1, 1, (unsigned[]){ 1, 1, 1 }, 1, "lane 0 fails");
	lose_too_many(1, 5, (unsigned[]){ 1, 1, 1 }, 31, "fails as it was told");
	/* Rail 0 alone carries region 0, rail 1 alone the others. */
	lose_too_many(2, 4, (unsigned[]){ 1, 2, 2 }, 12, "fails as it was told");
}

/* The last heir is lost while the peer is asked to fence. */
static void test_no_heir_when_it_is_dealt_out(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 1, 1 } };
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 2);
	rig_fill(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_await_lost(&rig, 2);
	assert_int_equal(rig_replace(&rig, &error), -EIO);
	assert_non_null(strstr(error.text, "no lane is left that could carry region"));
	assert_non_null(strstr(error.text, "as it was told to"));
	assert_int_equal(lanes_check(rig.lanes, NULL), -EIO);
	rig_fini(&rig);
}

/* While a lane is lost nothing says that all is sent. */
static void test_what_is_said_meanwhile(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 2 } };
	struct lanes_config config = counting();
	struct ramlift_error error = { 0 };
	struct ramlift_lane_stats stats;
	struct rig rig;
	unsigned dry;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 2);
	rig_fill(&rig);
	rig_start(&rig, &config);
	rig_await_lost(&rig, 1);
	assert_int_equal(lanes_lost(rig.lanes), 2);
	assert_int_equal(lanes_loss(rig.lanes, 1, &error), -EIO);
	assert_non_null(strstr(error.text, "lane 1 fails"));
	assert_int_equal(lanes_loss(rig.lanes, 0, NULL), 0);
	assert_int_equal(lanes_check(rig.lanes, NULL), 0);
	usleep(A_MOMENT_US); /* lane 0 gets done with its part */
	assert_int_equal(atomic_load(&n_lost), 1);
	assert_int_equal(atomic_load(&n_dry), 0);
	assert_int_equal(atomic_load(&n_ended), 0);
	assert_false(lanes_first_pass_done(rig.lanes));
	lanes_stats(rig.lanes, 1, &stats);
	assert_true(stats.lost);
	assert_true(lanes_done_bytes(rig.lanes) < dirty_set_added_bytes(&rig.set));
	dry = atomic_load(&n_dry);
	assert_int_equal(rig_replace(&rig, NULL), 0);
	assert_int_equal(lanes_lost(rig.lanes), 0);
	await_settled(&rig); /* lane 0 was asleep: it is woken */
	for (uint64_t end_ns = LONG_NS; atomic_load(&n_dry) == dry;)
		assert_true(clock_now_ns() < end_ns);
	rig_finish(&rig);
	assert_int_equal(atomic_load(&n_lost), 1);
	assert_int_equal(atomic_load(&n_ended), 1);
	rig_fini(&rig);
}

/* What it had posted was held back: it has not been sent, nor is it on its way any more. */
static void test_what_was_in_flight_does_not_count(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 2 } };
	struct ramlift_lane_stats stats;
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 2);
	/* Two of lane 1's; under this limit each is a batch. */
	dirty_set_add(&rig.set, 65, ~0ull);
	dirty_set_add(&rig.set, 67, ~0ull);
	rig_start(&rig, &(struct lanes_config){ .bandwidth_bytes_per_s = 4 << 20 });
	rig_await_lost(&rig, 1);
	assert_int_equal(lanes_in_flight_bytes(rig.lanes), 0);
	assert_int_equal(lanes_done_bytes(rig.lanes), 0);
	lanes_stats(rig.lanes, 1, &stats);
	assert_int_equal(stats.bytes_sent, 0);
	assert_int_equal(rig_replace(&rig, NULL), 0);
	rig_finish(&rig);
	rig_fini(&rig);
}

/* What a lane's stripes still owe, an heir has been through at the first pass only afterwards. */
static void test_the_first_pass_goes_on(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 1 } };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 2);
	rig_fill(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_await_lost(&rig, 1);
	usleep(A_MOMENT_US);
	atomic_store(&seen.block, true); /* lane 0 has done its part */
	assert_int_equal(rig_replace(&rig, NULL), 0);
	usleep(A_MOMENT_US);
	assert_false(lanes_first_pass_done(rig.lanes));
	atomic_store(&seen.block, false);
	lanes_wake(rig.lanes);
	await_settled(&rig);
	rig_finish(&rig);
	rig_fini(&rig);
}

/*
 * A page of zeros need not be sent where nothing has ever been sent; but where a lane that is lost
 * has been, what it had in flight may land, and the zeros must go after it.
 */
static void test_zeros_after_what_may_have_landed(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 0, 2 } };
	struct ramlift_lane_stats sum;
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 3);
	/* Lane 2's: two writes, so that one is left to land. Region 2 begins with stripe 128. */
	for (uint64_t page = 0; page < rig_region_pages[2]; page++) {
		if ((128 + page / STRIPE_PAGES) % 3 != 2)
			continue;
		ramlift_dirty_mark(&rig.set, 2, page, 1);
		ramlift_dirty_mark(&rig.set, 2, page + 2, 1);
		rig_write(&rig, 2, page, 0x77);
		rig_write(&rig, 2, page + 2, 0x78);
		break;
	}
	dirty_set_fold(&rig.set);
	dirty_set_fold(&rig.set);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	atomic_store(&seen.block, false);
	for (uint64_t end_ns = LONG_NS; !atomic_load(&seen.posts);)
		assert_true(clock_now_ns() < end_ns);
	/* Its second post fails. */
	while (!lanes_loss(rig.lanes, 2, NULL)) {
		for (unsigned stripe = 0; stripe < 8; stripe++)
			ramlift_dirty_mark(&rig.set, 2, stripe * STRIPE_PAGES + 7, 1);
		memset(rig.source[2].hva, 0, rig.source[2].size_bytes);
		*(char *)rig.source[2].hva = 1;
		for (unsigned stripe = 0; stripe < 8; stripe++)
			rig_write(&rig, 2, stripe * STRIPE_PAGES + 7, 5);
		dirty_set_fold(&rig.set);
		dirty_set_fold(&rig.set);
		lanes_wake(rig.lanes);
		usleep(1000);
	}
	/* Everything is zeros again, and only the loss makes it dirty. */
	memset(rig.source[2].hva, 0, rig.source[2].size_bytes);
	assert_int_equal(rig_replace(&rig, NULL), 0);
	for (unsigned stripe = 0; stripe < 8; stripe++)
		ramlift_dirty_mark(&rig.set, 2, stripe * STRIPE_PAGES + 7, 1);
	dirty_set_fold(&rig.set);
	dirty_set_fold(&rig.set);
	ramlift_dirty_mark(&rig.set, 2, 0, 1);
	dirty_set_fold(&rig.set);
	rig_finish(&rig);
	/* Stripes that the lost lane had not looked at are still looked at by the others. */
	rig_sum_stats(&rig, &sum);
	assert_true(sum.zero_pages > 0);
	rig_fini(&rig);
}

/* A carrier knows which pages were ever named; no others go again. */
static void test_only_what_was_named(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 1 } };
	struct ramlift_lane_stats sum;
	struct dirty_bitmap named;
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 2);
	assert_int_equal(dirty_bitmap_init(&named, rig.ram.n_stripes), 0);
	for (unsigned stripe = 64; stripe < 68; stripe++) {
		dirty_bitmap_set(&named, stripe, 0x30);
		dirty_set_add(&rig.set, stripe, 0x30);
		rig_write(&rig, 1, (stripe - 64) * STRIPE_PAGES + 4, stripe);
	}
	rig_start(&rig, &(struct lanes_config){ .named = &named });
	rig_await_lost(&rig, 1);
	assert_int_equal(rig_replace(&rig, NULL), 0);
	lanes_wake(rig.lanes);
	await_settled(&rig);
	rig_finish(&rig);
	rig_sum_stats(&rig, &sum);
	assert_int_equal(sum.bytes_sent, 8 * PAGE);
	dirty_bitmap_fini(&named);
	rig_fini(&rig);
}

/* From lanes_finish() on there is no time for that, and no need: the
 * guest goes on at the source. */
static void test_it_is_too_late(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 1 } };
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 3); /* lost before, and nobody had noticed */
	rig_fill(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_await_lost(&rig, 1);
	rig_tell_finish(&rig);
	assert_int_equal(lanes_wait(rig.lanes, LONG_NS, &error), -EIO);
	assert_non_null(strstr(error.text, "lane 1 fails"));
	rig_fini(&rig);

	memory_transport_set_faults(&faults);
	rig_init(&rig, 3); /* after it */
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig.far_is_silent = true;
	far_side_hold(&rig.far, true);
	rig_fill(&rig);
	rig_tell_finish(&rig);
	far_side_hold(&rig.far, false);
	assert_int_equal(lanes_wait(rig.lanes, LONG_NS, &error), -EIO);
	assert_int_equal(lanes_lost(rig.lanes), 0);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_down_to_one),
		cmocka_unit_test(test_some_are_left),
		cmocka_unit_test(test_within_a_budget),
		cmocka_unit_test(test_the_slice_of_a_lost_lane_is_held),
		cmocka_unit_test(test_with_rails),
		cmocka_unit_test(test_two_at_a_time),
		cmocka_unit_test(test_an_heir_is_lost),
		cmocka_unit_test(test_none_is_left),
		cmocka_unit_test(test_no_heir_when_it_is_dealt_out),
		cmocka_unit_test(test_what_is_said_meanwhile),
		cmocka_unit_test(test_what_was_in_flight_does_not_count),
		cmocka_unit_test(test_the_first_pass_goes_on),
		cmocka_unit_test(test_zeros_after_what_may_have_landed),
		cmocka_unit_test(test_only_what_was_named),
		cmocka_unit_test(test_it_is_too_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
