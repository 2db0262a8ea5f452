/* SPDX-License-Identifier: Apache-2.0 */
/* What lanes send and by which of them: stripes, rails, pages of zeros, slices within a budget. */
#include <string.h>
#include <unistd.h>

#include "lanes_rig.h"
#include "tests/support/cmocka_all.h"

static void await_first_pass(struct rig *rig)
{
	for (uint64_t end_ns = LONG_NS; !lanes_first_pass_done(rig->lanes);) {
		assert_true(clock_now_ns() < end_ns);
		usleep(1000);
	}
}

static unsigned region_of_stripe(const struct rig *rig, uint64_t stripe)
{
	return stripe < rig->ram.first_stripe[1] ? 0 : stripe < rig->ram.first_stripe[2] ? 1 : 2;
}

/* Which lane a stripe has: of the lanes of all rails that carry its region, in order, the one that
 * its number names. */
static unsigned lane_of_stripe(const struct rig *rig, uint64_t stripe)
{
	unsigned rails = rig->region_rails[region_of_stripe(rig, stripe)];
	unsigned lanes[RAMLIFT_MAX_LANES], n = 0;

	for (unsigned i = 0; i < rig->n_lanes; i++) {
		if (rails >> i / (rig->n_lanes / rig->n_rails) & 1)
			lanes[n++] = i;
	}
	return lanes[stripe % n];
}

/* Every page has gone, by the one lane that its stripe names. */
static void assert_owners(const struct rig *rig)
{
	unsigned pages = 0;

	for (unsigned i = 0; i < RIG_STRIPES * STRIPE_PAGES; i++) {
		if (!seen.owner[i])
			continue;
		pages++;
		assert_int_equal(seen.owner[i], lane_of_stripe(rig, i / STRIPE_PAGES) + 1);
	}
	assert_int_equal(pages, RIG_PAGES);
}

static void move_busy_guest(struct rig *rig)
{
	rig_fill(rig);
	rig_start(rig, &(struct lanes_config){ .skip_zeros = true });
	rig_write_for_a_while(rig, 6000);
	rig_finish(rig);
	assert_owners(rig);
	rig_fini(rig);
}

static void test_each_page_has_one_lane(void **unused)
{
	static const unsigned n_lanes[] = { 1, 2, 3, 4, 5, 6, 7, 32, 33, RAMLIFT_MAX_LANES };

	(void)unused;
	for (size_t i = 0; i < sizeof(n_lanes) / sizeof(n_lanes[0]); i++) {
		struct rig rig;

		rig_init(&rig, n_lanes[i]);
		move_busy_guest(&rig);
	}
}

static void test_regions_keep_to_their_rails(void **unused)
{
	static const struct {
		unsigned n_rails, n_lanes, region_rails[RIG_REGIONS];
	} cases[] = {
		{ 2, 2, { 1, 2, 3 } }, { 2, 8, { 2, 2, 1 } },	  { 2, 6, { 3, 3, 3 } },
		{ 3, 9, { 4, 5, 2 } }, { 8, 64, { 128, 1, 90 } }, { 8, 8, { 255, 128, 64 } },
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rig rig;

		rig_init_with_rails(&rig, cases[i].n_rails, cases[i].n_lanes,
				    cases[i].region_rails);
		move_busy_guest(&rig);
	}
}

/* A rail that carries no region has nothing to do, and ends all the same. */
static void test_a_rail_without_a_region(void **unused)
{
	struct ramlift_lane_stats stats;
	struct rig rig;

	(void)unused;
	rig_init_with_rails(&rig, 3, 6, (unsigned[RIG_REGIONS]){ 1, 4, 4 });
	rig_fill(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	await_first_pass(&rig);
	rig_finish(&rig);
	for (unsigned i = 0; i < rig.n_lanes; i++) {
		lanes_stats(rig.lanes, i, &stats);
		assert_int_equal(stats.rail, i / 2);
		if (i / 2 == 1)
			assert_int_equal(stats.bytes_sent, 0);
		if (i / 2 == 2)
			assert_true(stats.bytes_sent >= RIG_PAGES_2 * PAGE / 2 - STRIPE_BYTES);
	}
	rig_fini(&rig);
}

static void test_zeros_are_skipped_only_at_first(void **unused)
{
	struct ramlift_lane_stats sum;
	struct rig rig;

	(void)unused;
	rig_init(&rig, 3);
	rig_write(&rig, 1, 10, 0xaa);
	rig_write(&rig, 2, 5000, 0xbb);
	dirty_set_mark_present(&rig.set, false);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	await_first_pass(&rig);
	/* Zeros over what was sent must travel. */
	rig_write(&rig, 1, 10, 0);
	ramlift_dirty_mark(&rig.set, 1, 10, 1);
	dirty_set_fold(&rig.set);
	rig_finish(&rig);
	rig_sum_stats(&rig, &sum);
	assert_int_equal(sum.zero_pages, RIG_PAGES - 2);
	assert_int_equal(sum.bytes_sent, 3 * PAGE);
	rig_fini(&rig);
}

/* A stripe is looked at once in its life: zeros that come later travel, whether or not the page
 * was ever sent; those of another stripe, which comes later, do not. */
static void test_a_stripe_is_looked_at_once(void **unused)
{
	struct ramlift_lane_stats sum;
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2);
	ramlift_dirty_mark(&rig.set, 1, 10, 4);
	rig_write(&rig, 1, 10, 7);
	dirty_set_fold(&rig.set);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	await_first_pass(&rig);
	for (uint64_t end_ns = LONG_NS; lanes_done_bytes(rig.lanes) < 4 * PAGE;) {
		assert_true(clock_now_ns() < end_ns);
		usleep(1000);
	}
	ramlift_dirty_mark(&rig.set, 1, 12, 2);
	ramlift_dirty_mark(&rig.set, 1, 20, 1);
	ramlift_dirty_mark(&rig.set, 1, 64, 5);
	dirty_set_fold(&rig.set);
	rig_finish(&rig);
	rig_sum_stats(&rig, &sum);
	assert_int_equal(sum.zero_pages, 3 + 5);
	assert_int_equal(sum.bytes_sent, (1 + 3) * PAGE);
	rig_fini(&rig);
}

/* Where 4,096 pages held no zeros, one stripe of 16 is still looked at; and all of them again once
 * one was found. One lane, which comes to the stripes in order. */
static void test_looking_less_where_nothing_is_found(void **unused)
{
	/* By then the lane has looked at 10 stripes, 582 pages, of the regions before: the third
	 * region's stripe 55 is the first that it looks at as one of 16. */
	static const uint64_t zeros_at[] = { 56 * 64, 70 * 64 + 63, 71 * 64 + 9, 72 * 64,
					     73 * 64 + 1 };
	struct ramlift_lane_stats sum;
	struct rig rig;

	(void)unused;
	rig_init(&rig, 1);
	rig_fill(&rig);
	for (size_t i = 0; i < sizeof(zeros_at) / sizeof(zeros_at[0]); i++)
		rig_write(&rig, 2, zeros_at[i], 0);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	rig_finish(&rig);
	rig_sum_stats(&rig, &sum);
	assert_int_equal(sum.zero_pages, 3);
	assert_int_equal(sum.bytes_sent, (RIG_PAGES - 3) * PAGE);
	rig_fini(&rig);
}

/* Unless the destination's memory is fresh, zeros are data. */
static void test_zeros_travel_to_memory_that_is_not_fresh(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2);
	memset(rig.destination[1].hva, 0x77, rig.destination[1].size_bytes);
	dirty_set_mark_present(&rig.set, false);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = false });
	rig_finish(&rig);
	rig_fini(&rig);
}

/* Runs of pages are one write each, up to a stripe. */
static void test_neighbours_are_one_write(void **unused)
{
	struct ramlift_lane_stats sum;
	struct rig rig;

	(void)unused;
	rig_init(&rig, 3);
	rig_fill(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	rig_finish(&rig);
	rig_sum_stats(&rig, &sum);
	assert_int_equal(sum.writes, 1 + 10 + 121);
	assert_int_equal(sum.bytes_sent, RIG_PAGES * PAGE);
	rig_fini(&rig);
}

/* Zeros need no slice, neither here nor there. */
static void test_slices_of_zeros_are_not_asked_for(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2);
	rig_write(&rig, 2, 64 * 4 * 7, 1); /* the region's slice 7 */
	dirty_set_mark_present(&rig.set, false);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	rig_finish(&rig);
	assert_int_equal(far_side_orders(&rig.far), 1);
	assert_int_equal(far_side_order(&rig.far, 0).slice, rig.ram.first_slice[2] + 7);
	rig_fini(&rig);
}

/* With so little room that lanes wait for each other: nothing is lost, no slice is written to after
 * it was retired (the transport would end the process), and the bound holds. */
static void move_within_budget(unsigned n_lanes, unsigned n_slices, unsigned n_writes)
{
	struct memory_account here, there;
	struct rig rig;

	rig_init(&rig, n_lanes);
	rig.budget_bytes = n_slices * RIG_SLICE_BYTES;
	rig_fill(&rig);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	rig_write_for_a_while(&rig, n_writes);
	rig_finish(&rig);
	assert_owners(&rig);
	memory_transport_accounts(&here, &there);
	assert_in_range(here.most_bytes, 1, rig.budget_bytes);
	assert_in_range(there.most_bytes, 1, rig.budget_bytes);
	assert_true(here.n_deregistrations > 0);
	rig_fini(&rig);
}

static void test_lanes_within_a_budget(void **unused)
{
	(void)unused;
	move_within_budget(1, 1, 2000);
	move_within_budget(2, 1, 1000);
	move_within_budget(4, 1, 500);
	move_within_budget(4, 3, 2000);
	move_within_budget(8, 16, 4000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_page_has_one_lane),
		cmocka_unit_test(test_regions_keep_to_their_rails),
		cmocka_unit_test(test_a_rail_without_a_region),
		cmocka_unit_test(test_zeros_are_skipped_only_at_first),
		cmocka_unit_test(test_a_stripe_is_looked_at_once),
		cmocka_unit_test(test_looking_less_where_nothing_is_found),
		cmocka_unit_test(test_zeros_travel_to_memory_that_is_not_fresh),
		cmocka_unit_test(test_neighbours_are_one_write),
		cmocka_unit_test(test_slices_of_zeros_are_not_asked_for),
		cmocka_unit_test(test_lanes_within_a_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
