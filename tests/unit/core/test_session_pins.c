/* SPDX-License-Identifier: Apache-2.0 */
/* Whole sessions: which slices are registered on both sides, within which budget, and over which
 * rails their pages go. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "session_pair.h"
#include "tests/support/cmocka_all.h"

#define MIB	    (1ull << 20)
#define SLICE_BYTES MIB
#define N_SLICES    24u
#define N_TOUCHED   18u /* of the guest's last quarter no page has ever been written */
#define TOUCHED	    (GUEST_BYTES / 4 * 3)
#define PAGE	    ((uint64_t)RAMLIFT_PAGE_BYTES)

/* The first page of a slice. Both regions are made of whole ones. */
static uint64_t page_of_slice(unsigned slice)
{
	return slice * SLICE_BYTES / PAGE;
}

static void assert_registered(const bool expected[N_SLICES])
{
	struct memory_account here, there;

	memory_transport_accounts(&here, &there);
	for (unsigned i = 0; i < N_SLICES; i++) {
		if (here.ever[i] != expected[i] || there.ever[i] != expected[i])
			fail_msg("slice %u: %d here, %d there, instead of %d", i, here.ever[i],
				 there.ever[i], expected[i]);
	}
	assert_int_equal(here.n_deregistrations, 0);
	assert_int_equal(there.n_deregistrations, 0);
}

static void touched(bool expected[N_SLICES])
{
	for (unsigned i = 0; i < N_SLICES; i++)
		expected[i] = i < N_TOUCHED;
}

static void small_slices(struct pair *pair, const struct ramlift_transport *transport)
{
	pair_init(pair, transport);
	pair->source_config.slice_bytes = SLICE_BYTES;
}

/* Neither registered nor populated, on neither side. */
static void test_what_the_guest_never_touched_is_left_alone(void **unused)
{
	bool expected[N_SLICES];
	struct pair pair;

	(void)unused;
	small_slices(&pair, memory_transport());
	pair.source_config.verify = false; /* which reads all of it */
	assert_int_equal(fake_guest_populated_bytes(&pair.source_guest), TOUCHED);
	assert_int_equal(pair_run(&pair), 0);
	assert_int_equal(pair.destination_ret, 0);
	assert_int_equal(fake_guest_populated_bytes(&pair.source_guest), TOUCHED);
	/* Page 0 is there, and zeros. */
	assert_int_equal(fake_guest_populated_bytes(&pair.destination_guest), TOUCHED - PAGE);
	touched(expected);
	assert_registered(expected);
	assert_true(fake_guest_same_ram(&pair.source_guest, &pair.destination_guest));
	pair_fini(&pair);
}

static void test_pin_all_registers_all(void **unused)
{
	struct memory_account here, there;
	struct pair pair;

	(void)unused;
	small_slices(&pair, memory_transport());
	pair.source_config.pin = RAMLIFT_PIN_ALL;
	pair.source_config.verify = false;
	assert_int_equal(pair_run(&pair), 0);
	memory_transport_accounts(&here, &there);
	assert_int_equal(here.most_bytes, GUEST_BYTES);
	assert_int_equal(there.most_bytes, GUEST_BYTES);
	assert_int_equal(here.n_registrations, N_SLICES);
	assert_int_equal(there.n_registrations, N_SLICES);
	assert_true(fake_guest_same_ram(&pair.source_guest, &pair.destination_guest));
	pair_fini(&pair);
}

/* A region that is smaller than a slice, and empty, before one that is not. */
static void test_a_slice_is_not_the_next_region_s(void **unused)
{
	struct memory_account here, there;
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair.source_config.slice_bytes = 64 * MIB;
	pair.source_config.verify = false;
	assert_int_equal(ftruncate(pair.source_guest.regions[0].memfd, 0), 0);
	assert_int_equal(ftruncate(pair.source_guest.regions[0].memfd,
				   (off_t)pair.source_guest.regions[0].size_bytes),
			 0);
	assert_int_equal(pair_run(&pair), 0);
	memory_transport_accounts(&here, &there);
	assert_false(here.ever[0]);
	assert_false(there.ever[0]);
	assert_true(here.ever[1]);
	assert_true(fake_guest_same_ram(&pair.source_guest, &pair.destination_guest));
	pair_fini(&pair);
}

static void touch_once(void *context, const struct ramlift_stats *stats)
{
	struct pair *pair = context;
	uint64_t *page = &pair->touched_page;

	if (stats->phase == RAMLIFT_PHASE_STREAM && *page)
		fake_guest_write(&pair->source_guest, *page, 3);
	if (stats->phase == RAMLIFT_PHASE_STREAM)
		*page = 0;
}

/* What was a hole when the session began becomes memory: while the guest runs, or just before it is
 * paused. Its slice is registered then. */
static void touch_late(uint64_t while_streaming, uint64_t at_the_end, unsigned register_us)
{
	const struct memory_faults slow = { .register_us = register_us };
	bool expected[N_SLICES];
	struct pair pair;

	small_slices(&pair, memory_transport());
	memory_transport_set_faults(&slow);
	pair.source_config.progress = touch_once;
	pair.source_config.progress_context = &pair;
	pair.touched_page = while_streaming;
	pair.source_guest.last_page = at_the_end;
	pair_assert_moved(&pair, pair_run(&pair));
	memory_transport_set_faults(NULL);
	touched(expected);
	if (while_streaming)
		expected[while_streaming * PAGE / SLICE_BYTES] = true;
	if (at_the_end)
		expected[at_the_end * PAGE / SLICE_BYTES] = true;
	assert_registered(expected);
	if (at_the_end)
		assert_true(pair.source_stats.residual_bytes >= PAGE);
	pair_fini(&pair);
}

static void test_slices_that_are_first_touched_late(void **unused)
{
	(void)unused;
	touch_late(page_of_slice(20) + 5, 0, 0);
	touch_late(0, page_of_slice(22) + 255, 0);
	touch_late(page_of_slice(18), page_of_slice(23), 20000);
}

/* The destination falls silent about a slice that was touched at the last moment: the guest is
 * resumed. */
static void test_a_late_slice_that_never_comes(void **unused)
{
	const struct memory_faults faults = { .fail_register = N_TOUCHED + 1 };
	struct pair pair;

	(void)unused;
	small_slices(&pair, memory_transport());
	memory_transport_set_faults(&faults);
	pair.source_guest.last_page = page_of_slice(22);
	assert_int_not_equal(pair_run(&pair), 0);
	memory_transport_set_faults(NULL);
	assert_non_null(strstr(pair.source_error.text, "as it was told to"));
	assert_int_equal(pair.source_guest.pauses, 1);
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

/* ---- within a budget ---- */

#define BUDGET_BYTES (16 * MIB)

static void move_within_budget(unsigned n_lanes, uint64_t hot_pages, uint64_t guest_bytes)
{
	struct memory_account here, there;
	struct pair pair;

	pair_init_sized(&pair, memory_transport(), guest_bytes);
	pair.source_config.pin = RAMLIFT_PIN_BUDGET;
	pair.source_config.pin_budget_bytes = BUDGET_BYTES;
	pair.source_config.lanes_per_rail = n_lanes;
	if (hot_pages)
		fake_guest_start_writer(&pair.source_guest, hot_pages, 10);
	pair_assert_moved(&pair, pair_run(&pair));
	memory_transport_accounts(&here, &there);
	assert_in_range(here.most_bytes, 1, BUDGET_BYTES);
	assert_in_range(there.most_bytes, 1, BUDGET_BYTES);
	/* What is still there at the end is all that was not retired. */
	assert_int_equal(there.n_registrations - there.n_deregistrations, there.bytes / MIB);
	if (!hot_pages) /* nothing comes twice: little is registered twice */
		assert_in_range(here.n_registrations, guest_bytes / 4 * 3 / MIB,
				guest_bytes / 2 * 3 / MIB);
	pair_fini(&pair);
}

static void test_a_budget_is_kept(void **unused)
{
	(void)unused;
	move_within_budget(1, 0, 66 * MIB);
	move_within_budget(4, 0, 66 * MIB);
	move_within_budget(4, 3000, 66 * MIB);
}

/* More lanes than slices that have room: those that have ended must not keep theirs. */
static void test_more_lanes_than_the_budget_has_slices(void **unused)
{
	(void)unused;
	move_within_budget(40, 8000, 66 * MIB);
}

/* No lane needs a slice, so none makes room for those that were wanted. */
static void test_a_budget_for_a_guest_of_zeros(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init_sized(&pair, memory_transport(), 66 * MIB);
	pair.source_config.pin = RAMLIFT_PIN_BUDGET;
	pair.source_config.pin_budget_bytes = BUDGET_BYTES;
	for (unsigned i = 0; i < 2; i++)
		memset(pair.source_guest.regions[i].hva, 0,
		       pair.source_guest.regions[i].size_bytes);
	pair_assert_moved(&pair, pair_run(&pair));
	assert_int_equal(pair.source_stats.bytes_sent, 0);
	pair_fini(&pair);
}

/* ---- rails ---- */

static const char *const names[] = { "memory0", "memory1", "memory2" };

static void name_rails(struct pair *pair, unsigned n_here, unsigned n_there)
{
	pair->source_config.rails = names;
	pair->source_config.n_rails = n_here;
	pair->source_config.lanes_per_rail = 2;
	pair->destination_config.rails = names;
	pair->destination_config.n_rails = n_there;
}

static uint64_t rail_bytes(const struct pair *pair, unsigned rail)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < pair->source_stats.n_lanes; i++) {
		const struct ramlift_lane_stats *lane = &pair->source_stats.lanes[i];

		if (lane->rail == rail)
			bytes += lane->bytes_sent;
	}
	return bytes;
}

static void test_regions_go_over_the_rails_of_their_node(void **unused)
{
	static const int nodes[] = { 1, 0, 2 };
	struct pair pair;

	(void)unused;
	small_slices(&pair, memory_transport_with_rails());
	memory_transport_set_rail_nodes(nodes, 3);
	name_rails(&pair, 3, 3);
	pair.source_guest.regions[0].numa_node = 0;
	pair.source_guest.regions[1].numa_node = 1;
	pair_assert_moved(&pair, pair_run(&pair));
	assert_int_equal(pair.source_stats.n_lanes, 6);
	assert_int_equal(rail_bytes(&pair, 0), TOUCHED - GUEST_BYTES / 3);
	assert_int_equal(rail_bytes(&pair, 1), GUEST_BYTES / 3 - PAGE); /* without page 0 */
	assert_int_equal(rail_bytes(&pair, 2), 0);
	memory_transport_set_rail_nodes(NULL, 0);
	pair_fini(&pair);
}

static void test_regions_of_nowhere_go_over_all_rails(void **unused)
{
	struct pair pair;

	(void)unused;
	small_slices(&pair, memory_transport_with_rails());
	name_rails(&pair, 2, 2);
	pair.source_config.pin = RAMLIFT_PIN_ALL;
	fake_guest_start_writer(&pair.source_guest, 500, 10);
	pair_assert_moved(&pair, pair_run(&pair));
	assert_true(rail_bytes(&pair, 0) >= TOUCHED / 2 - SLICE_BYTES);
	assert_true(rail_bytes(&pair, 1) >= TOUCHED / 2 - SLICE_BYTES);
	pair_fini(&pair);
}

static void refuse_rails(const struct ramlift_transport *transport, unsigned n_here,
			 unsigned n_there, const char *words, bool at_source)
{
	struct pair pair;
	int ret;

	small_slices(&pair, transport);
	name_rails(&pair, n_here, n_there);
	if (at_source) { /* before anything is contacted */
		strcpy(pair.to, "127.0.0.1:1");
		assert_int_equal(ramlift_source_new(&pair.source_config, &pair.source, NULL), 0);
		ret = ramlift_source_run(pair.source, &pair.source_error);
		ramlift_source_stats(pair.source, &pair.source_stats);
	} else {
		ret = pair_run(&pair);
	}
	assert_int_equal(ret, at_source ? -ENODEV : -EREMOTEIO);
	if (!strstr(pair.source_error.text, words))
		fail_msg("'%s' without '%s'", pair.source_error.text, words);
	assert_int_equal(pair.destination_guest.creates, 0);
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

static void test_rails_that_are_refused(void **unused)
{
	static const char *const others[] = { "memory0", "mlx5_7" };
	struct pair pair;

	(void)unused;
	/* A transport without devices. */
	refuse_rails(memory_transport(), 1, 1, "rails are RDMA devices", true);
	refuse_rails(memory_transport(), 0, 1, "rails are RDMA devices", false);
	/* As many on both sides; none counts as one. */
	refuse_rails(memory_transport_with_rails(), 2, 1, "--rails", false);
	refuse_rails(memory_transport_with_rails(), 2, 3, "the source has 2 rails, this side 3",
		     false);
	refuse_rails(memory_transport_with_rails(), 0, 2, "--rails", false);

	small_slices(&pair, memory_transport_with_rails());
	name_rails(&pair, 2, 2);
	pair.destination_config.rails = others;
	assert_int_equal(pair_run(&pair), -EREMOTEIO);
	assert_non_null(strstr(pair.source_error.text, "there is no device mlx5_7"));
	pair_assert_stayed(&pair);
	pair_fini(&pair);

	small_slices(&pair, memory_transport_with_rails());
	name_rails(&pair, 1, 0); /* this goes */
	pair_assert_moved(&pair, pair_run(&pair));
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_the_guest_never_touched_is_left_alone),
		cmocka_unit_test(test_pin_all_registers_all),
		cmocka_unit_test(test_a_slice_is_not_the_next_region_s),
		cmocka_unit_test(test_slices_that_are_first_touched_late),
		cmocka_unit_test(test_a_late_slice_that_never_comes),
		cmocka_unit_test(test_a_budget_is_kept),
		cmocka_unit_test(test_more_lanes_than_the_budget_has_slices),
		cmocka_unit_test(test_a_budget_for_a_guest_of_zeros),
		cmocka_unit_test(test_regions_go_over_the_rails_of_their_node),
		cmocka_unit_test(test_regions_of_nowhere_go_over_all_rails),
		cmocka_unit_test(test_rails_that_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
