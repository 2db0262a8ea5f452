/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes over the in-memory transport, whose table of calls is wrapped by one that records: which
 * lane carries which page, whether its slice was ready, and what is told to fail.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/lanes.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/memory_transport.h"

#define PAGE	    ((uint64_t)RAMLIFT_PAGE_BYTES)
#define LONG_NS	    (clock_now_ns() + 60 * NS_PER_S) /* against hangs only */
#define A_MOMENT_US 50000
#define SLICE_BYTES (4 * STRIPE_BYTES)
#define TOKEN	    0x1122334455667788ull

/* Ragged ends everywhere; 130 stripes or so, so that summary words differ in where lanes begin. */
static const uint64_t region_pages[] = { 1, 64 * 9 + 5, 64 * 120 + 63 };
#define N_REGIONS 3u
#define MAX_PAGES (64 * (1 + 10 + 121))
#define MAX_SLICE 40

struct rig {
	struct ramlift_region source[N_REGIONS], destination[N_REGIONS];
	struct ram ram, there;
	struct ramlift_dirty_sink set;
	struct endpoint *from, *to;
	struct lanes *lanes;
	unsigned n_lanes;
};

/* What the wrapped calls see; one rig at a time. */
static struct {
	const struct ram *ram;
	_Atomic unsigned char owner[MAX_PAGES]; /* lane + 1 */
	_Atomic unsigned char ready[MAX_SLICE]; /* enum slice_side, or-ed */
	_Atomic unsigned long posts, on_two_lanes, not_ready, outside, tokens, after_token;
	atomic_bool has_token[RAMLIFT_MAX_LANES];
	atomic_bool block; /* posts wait until this is over, or abort() */
	atomic_bool aborted;
	int fail_silently; /* posts return this, and say nothing */
} seen;

static struct ramlift_transport wrapped;

static void record(unsigned lane, const struct transport_write *write)
{
	const struct slice *slice = &seen.ram->slices[write->slice];
	uint64_t first = 0;

	if (!write->length_bytes || write->length_bytes > TRANSPORT_MAX_WRITE_BYTES ||
	    write->offset_bytes + write->length_bytes > slice->size_bytes) {
		atomic_fetch_add(&seen.outside, 1);
		return;
	}
	if (atomic_load(&seen.ready[write->slice]) != (SLICE_SOURCE | SLICE_DESTINATION))
		atomic_fetch_add(&seen.not_ready, 1);
	/* Pages are numbered through the slices; the array has room for every slice's full size. */
	for (unsigned i = 0; i < write->slice; i++)
		first += (seen.ram->slices[i].size_bytes + STRIPE_BYTES - 1) / STRIPE_BYTES * 64;
	first += write->offset_bytes / PAGE;
	for (uint64_t p = first; p < first + write->length_bytes / PAGE; p++) {
		unsigned char nobody = 0;

		if (!atomic_compare_exchange_strong(&seen.owner[p], &nobody, lane + 1) &&
		    nobody != lane + 1)
			atomic_fetch_add(&seen.on_two_lanes, 1);
	}
}

static int wrapped_post(struct endpoint *endpoint, unsigned lane,
			const struct transport_write *writes, unsigned n_writes,
			struct ramlift_error *error)
{
	atomic_fetch_add(&seen.posts, 1);
	if (atomic_load(&seen.has_token[lane]))
		atomic_fetch_add(&seen.after_token, 1);
	if (!n_writes || n_writes > TRANSPORT_MAX_BATCH)
		atomic_fetch_add(&seen.outside, 1);
	for (unsigned i = 0; i < n_writes; i++)
		record(lane, &writes[i]);
	while (atomic_load(&seen.block) && !atomic_load(&seen.aborted))
		usleep(1000);
	if (seen.fail_silently)
		return seen.fail_silently;
	return memory_transport()->post(endpoint, lane, writes, n_writes, error);
}

static int wrapped_token(struct endpoint *endpoint, unsigned lane, uint64_t token,
			 struct ramlift_error *error)
{
	atomic_store(&seen.has_token[lane], true);
	atomic_fetch_add(&seen.tokens, 1);
	return memory_transport()->token(endpoint, lane, token, error);
}

static void wrapped_abort(struct endpoint *endpoint)
{
	atomic_store(&seen.aborted, true);
	memory_transport()->abort(endpoint);
}

#ifdef __SANITIZE_THREAD__
/* A guest that writes while its pages are read, and a page that is looked at while it lands: races
 * that live migration is made of. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:write_guest\nrace:deliver_first\n";
}
#endif

static void map_regions(struct ramlift_region *regions)
{
	for (unsigned i = 0; i < N_REGIONS; i++) {
		regions[i] = (struct ramlift_region){ .gpa = (uint64_t)i << 32,
						      .size_bytes = region_pages[i] * PAGE,
						      .memfd = -1 };
		regions[i].hva = mmap(NULL, regions[i].size_bytes, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_ptr_not_equal(regions[i].hva, MAP_FAILED);
	}
}

static struct transport_params params_of(const struct ram *ram, unsigned n_lanes)
{
	return (struct transport_params){
		.session_id = "lanes",
		.n_rails = 1,
		.n_lanes = n_lanes,
		.slices = ram->slices,
		.n_slices = ram->n_slices,
		.interrupt_fd = -1,
		.io_timeout_ns = 60 * NS_PER_S,
	};
}

static void rig_init(struct rig *rig, unsigned n_lanes)
{
	const struct ramlift_transport *memory = memory_transport();
	struct transport_params params;
	struct sockaddr_storage address;

	memset(rig, 0, sizeof(*rig));
	memset(&seen, 0, sizeof(seen));
	wrapped = *memory;
	wrapped.post = wrapped_post;
	wrapped.token = wrapped_token;
	wrapped.abort = wrapped_abort;
	map_regions(rig->source);
	map_regions(rig->destination);
	assert_int_equal(ram_init(&rig->ram, rig->source, N_REGIONS, SLICE_BYTES), 0);
	assert_int_equal(ram_init(&rig->there, rig->destination, N_REGIONS, SLICE_BYTES), 0);
	assert_in_range(rig->ram.n_slices, 1, MAX_SLICE);
	assert_int_equal(dirty_set_init(&rig->set, &rig->ram), 0);
	rig->n_lanes = n_lanes;
	seen.ram = &rig->ram;
	params = params_of(&rig->there, n_lanes);
	assert_int_equal(memory->listen(&params, NULL, &rig->to, &address, NULL), 0);
	params = params_of(&rig->ram, n_lanes);
	assert_int_equal(memory->connect(&params, NULL, LONG_NS, &rig->from, NULL), 0);
}

static void rig_start(struct rig *rig, const struct lanes_config *extra)
{
	struct lanes_config config = *extra;

	config.ram = &rig->ram;
	config.set = &rig->set;
	config.transport = &wrapped;
	config.endpoint = rig->from;
	config.n_lanes = rig->n_lanes;
	assert_int_equal(lanes_start(&config, &rig->lanes, NULL), 0);
}

static void slice_ready(struct rig *rig, unsigned slice, unsigned sides)
{
	const struct ramlift_transport *memory = memory_transport();
	struct slice_key key;

	if (sides & SLICE_DESTINATION) {
		assert_int_equal(memory->register_slice(rig->to, slice, 1, &key, NULL), 0);
		memory->set_peer_key(rig->from, slice, &key);
		atomic_fetch_or(&seen.ready[slice], SLICE_DESTINATION);
		lanes_slice_ready(rig->lanes, slice, SLICE_DESTINATION);
	}
	if (sides & SLICE_SOURCE) {
		assert_int_equal(memory->register_slice(rig->from, slice, 1, NULL, NULL), 0);
		atomic_fetch_or(&seen.ready[slice], SLICE_SOURCE);
		lanes_slice_ready(rig->lanes, slice, SLICE_SOURCE);
	}
}

static void all_slices_ready(struct rig *rig)
{
	for (unsigned i = 0; i < rig->ram.n_slices; i++)
		slice_ready(rig, i, SLICE_SOURCE | SLICE_DESTINATION);
}

static void rig_fini(struct rig *rig)
{
	lanes_free(rig->lanes);
	memory_transport()->close(rig->from);
	memory_transport()->close(rig->to);
	dirty_set_fini(&rig->set);
	ram_fini(&rig->ram);
	ram_fini(&rig->there);
	for (unsigned i = 0; i < N_REGIONS; i++) {
		munmap(rig->source[i].hva, rig->source[i].size_bytes);
		munmap(rig->destination[i].hva, rig->destination[i].size_bytes);
	}
	memory_transport_set_faults(NULL);
	assert_int_equal(memory_transport_open_endpoints(), 0);
	assert_int_equal(atomic_load(&seen.on_two_lanes), 0);
	assert_int_equal(atomic_load(&seen.not_ready), 0);
	assert_int_equal(atomic_load(&seen.outside), 0);
	assert_int_equal(atomic_load(&seen.after_token), 0);
}

static void write_guest(struct rig *rig, unsigned region, uint64_t page, unsigned value)
{
	memset((char *)rig->source[region].hva + page * PAGE, (int)value, PAGE);
}

static void assert_same_memory(const struct rig *rig)
{
	for (unsigned i = 0; i < N_REGIONS; i++)
		assert_memory_equal(rig->source[i].hva, rig->destination[i].hva,
				    rig->source[i].size_bytes);
}

static void finish(struct rig *rig)
{
	struct ramlift_error error = { 0 };

	lanes_finish(rig->lanes, TOKEN);
	if (lanes_wait(rig->lanes, LONG_NS, &error))
		fail_msg("%s", error.text);
	assert_int_equal(lanes_check(rig->lanes, &error), 0);
	assert_int_equal(atomic_load(&seen.tokens), rig->n_lanes);
	assert_int_equal(memory_transport()->await_tokens(rig->to, TOKEN, LONG_NS, NULL), 0);
}

/* ---- */

/* A guest that writes while lanes run, with ticks in between: at the end both sides are the same,
 * and every page has gone by the one lane that its stripe names. */
static void move_busy_guest(unsigned n_lanes)
{
	uint64_t random = 0x2545f4914f6cdd1dull + n_lanes;
	unsigned pages = 0;
	struct rig rig;

	rig_init(&rig, n_lanes);
	for (unsigned i = 0; i < N_REGIONS; i++) {
		for (uint64_t page = 0; page < region_pages[i]; page++)
			write_guest(&rig, i, page, 1 + (unsigned)page % 255);
	}
	dirty_set_mark_present(&rig.set, false);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	all_slices_ready(&rig);
	for (unsigned i = 0; i < 6000; i++) {
		unsigned region;
		uint64_t page;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		region = (unsigned)(random >> 50) % N_REGIONS;
		page = (random >> 8) % region_pages[region] >> random % 7;
		write_guest(&rig, region, page, (unsigned)(random >> 3) | 1);
		ramlift_dirty_mark(&rig.set, region, page, 1);
		if (i % 100 == 99) {
			dirty_set_fold(&rig.set);
			lanes_wake(rig.lanes);
		}
	}
	dirty_set_fold(&rig.set);
	finish(&rig);
	assert_int_equal(dirty_set_count(&rig.set), 0);
	assert_same_memory(&rig);
	for (unsigned i = 0; i < MAX_PAGES; i++) {
		if (!seen.owner[i])
			continue;
		pages++;
		assert_int_equal(seen.owner[i], i / STRIPE_PAGES % n_lanes + 1);
	}
	assert_int_equal(pages, region_pages[0] + region_pages[1] + region_pages[2]);
	rig_fini(&rig);
}

static void test_each_page_has_one_lane(void **unused)
{
	(void)unused;
	for (unsigned n_lanes = 1; n_lanes <= 7; n_lanes++)
		move_busy_guest(n_lanes);
	move_busy_guest(32);
	move_busy_guest(33);
	move_busy_guest(RAMLIFT_MAX_LANES);
}

static void test_zeros_are_skipped_only_at_first(void **unused)
{
	struct ramlift_lane_stats stats;
	uint64_t zero_pages = 0, bytes = 0;
	struct rig rig;

	(void)unused;
	rig_init(&rig, 3);
	write_guest(&rig, 1, 10, 0xaa);
	write_guest(&rig, 2, 5000, 0xbb);
	dirty_set_mark_present(&rig.set, false);
	rig_start(&rig, &(struct lanes_config){ .skip_zeros = true });
	all_slices_ready(&rig);
	while (!lanes_first_pass_done(rig.lanes))
		usleep(1000);
	/* Zeros over what was sent must travel. */
	write_guest(&rig, 1, 10, 0);
	ramlift_dirty_mark(&rig.set, 1, 10, 1);
	dirty_set_fold(&rig.set);
	finish(&rig);
	assert_same_memory(&rig);
	for (unsigned i = 0; i < rig.n_lanes; i++) {
		lanes_stats(rig.lanes, i, &stats);
		zero_pages += stats.zero_pages;
		bytes += stats.bytes_sent;
		assert_true(stats.sweeps >= 1);
	}
	assert_int_equal(zero_pages, region_pages[0] + region_pages[1] + region_pages[2] - 2);
	assert_int_equal(bytes, 3 * PAGE);
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
	all_slices_ready(&rig);
	finish(&rig);
	assert_same_memory(&rig);
	rig_fini(&rig);
}

static void test_nothing_to_send(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 4);
	rig_start(&rig, &(struct lanes_config){ 0 });
	finish(&rig);
	assert_int_equal(atomic_load(&seen.posts), 0);
	rig_fini(&rig);
}

static void test_slices_wait_until_both_sides_are_ready(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 3);
	for (unsigned i = 0; i < N_REGIONS; i++) {
		for (uint64_t page = 0; page < region_pages[i]; page++)
			write_guest(&rig, i, page, 9);
	}
	dirty_set_mark_present(&rig.set, false);
	rig_start(&rig, &(struct lanes_config){ 0 });
	for (unsigned i = 0; i < rig.ram.n_slices; i++) /* one side each: not enough */
		slice_ready(&rig, i, i % 2 ? SLICE_SOURCE : SLICE_DESTINATION);
	usleep(A_MOMENT_US);
	assert_int_equal(atomic_load(&seen.posts), 0);
	assert_false(lanes_first_pass_done(rig.lanes));
	/* Finishing does not get around it. */
	lanes_finish(rig.lanes, TOKEN);
	assert_int_equal(lanes_wait(rig.lanes, clock_now_ns() + 50 * NS_PER_MS, &error),
			 -ETIMEDOUT);
	assert_int_equal(error.code, -ETIMEDOUT);
	assert_int_equal(atomic_load(&seen.posts), 0);
	/* Backwards: the lanes wait for the first one, and then find all of them. */
	for (unsigned i = rig.ram.n_slices; i-- > 0;)
		slice_ready(&rig, i, i % 2 ? SLICE_DESTINATION : SLICE_SOURCE);
	assert_int_equal(lanes_wait(rig.lanes, LONG_NS, NULL), 0);
	assert_true(lanes_first_pass_done(rig.lanes));
	assert_same_memory(&rig);
	rig_fini(&rig);
}

static void dirty_all(struct rig *rig)
{
	memset(rig->source[2].hva, 0x33, rig->source[2].size_bytes);
	dirty_set_mark_present(&rig->set, false);
}

static void test_a_post_that_fails_surfaces(void **unused)
{
	const struct memory_faults faults = { .fail_post = 5 };
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 3);
	dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	all_slices_ready(&rig);
	for (uint64_t end_ns = LONG_NS; !lanes_check(rig.lanes, NULL) && clock_now_ns() < end_ns;)
		usleep(1000);
	assert_int_equal(lanes_check(rig.lanes, &error), -EIO);
	assert_non_null(strstr(error.text, "as it was told to"));
	memset(&error, 0, sizeof(error));
	lanes_finish(rig.lanes, TOKEN);
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
	dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	all_slices_ready(&rig);
	lanes_finish(rig.lanes, TOKEN);
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
	lanes_finish(rig.lanes, TOKEN);
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
	dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	usleep(A_MOMENT_US);
	rig_fini(&rig);

	rig_init(&rig, 3); /* for a slice, while finishing */
	dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	lanes_finish(rig.lanes, TOKEN);
	usleep(A_MOMENT_US);
	rig_fini(&rig);

	rig_init(&rig, 3); /* for its turn: a byte a second */
	dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ .bandwidth_bytes_per_s = 1 });
	all_slices_ready(&rig);
	usleep(A_MOMENT_US);
	rig_fini(&rig);

	rig_init(&rig, 3); /* for the transport */
	atomic_store(&seen.block, true);
	dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ 0 });
	all_slices_ready(&rig);
	while (!atomic_load(&seen.posts))
		usleep(1000);
	rig_fini(&rig);

	rig_init(&rig, 3); /* at once */
	dirty_all(&rig);
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
	dirty_all(&rig);
	rig_start(&rig, &(struct lanes_config){ .bandwidth_bytes_per_s = 1 });
	all_slices_ready(&rig);
	usleep(A_MOMENT_US);
	assert_false(lanes_first_pass_done(rig.lanes));
	finish(&rig);
	assert_same_memory(&rig);
	rig_fini(&rig);
}

/* Pages that come in while lanes sleep are sent after a wake, and only then is there an end. */
static void test_wakes_are_not_lost(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2);
	rig_start(&rig, &(struct lanes_config){ 0 });
	all_slices_ready(&rig);
	for (unsigned i = 1; i <= 300; i++) {
		unsigned char *there = (unsigned char *)rig.destination[1].hva + i % 500 * PAGE;
		uint64_t end_ns = LONG_NS;

		write_guest(&rig, 1, i % 500, i);
		ramlift_dirty_mark(&rig.set, 1, i % 500, 1);
		dirty_set_fold(&rig.set);
		lanes_wake(rig.lanes);
		/* Lane 0 of the transport holds nothing back. */
		if (i % 500 / 64 % 2 != 1)
			continue;
		while (*(volatile unsigned char *)there != (unsigned char)i)
			assert_true(clock_now_ns() < end_ns);
	}
	finish(&rig);
	assert_same_memory(&rig);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_page_has_one_lane),
		cmocka_unit_test(test_zeros_are_skipped_only_at_first),
		cmocka_unit_test(test_zeros_travel_to_memory_that_is_not_fresh),
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
