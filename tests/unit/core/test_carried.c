/* SPDX-License-Identifier: Apache-2.0 */
/* Whole sessions that carry another program's migration: which pages go, what goes when, and
 * where the guest is after a failure. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "carried_fixture.h"
#include "core/clock.h"
#include "core/error.h"
#include "tests/support/cmocka_all.h"

static void all_at_once(struct carrying *carrying)
{
	carrying_name_present(carrying);
	carrying_complete(carrying);
}

static void talk_and_move(struct carrying *carrying)
{
	char words[32];

	for (unsigned i = 0; i < 300; i++) {
		snprintf(words, sizeof(words), "%u,", i);
		for (unsigned stream = 0; stream < CARRYING_STREAMS; stream++)
			carrying_say(carrying, stream, words);
		if (i == 100)
			carrying_name_present(carrying);
	}
	source_send_piece(carrying->source, 2, NULL, 0, NULL);
	carrying_complete(carrying);
}

static void assert_words(const struct inbox *inbox, const char *tail)
{
	char *expected = calloc(1, 4000);
	size_t n = 0;

	assert_non_null(expected);
	for (unsigned i = 0; i < 300; i++)
		n += (size_t)snprintf(expected + n, 4000 - n, "%u,", i);
	strcat(expected, tail);
	assert_non_null(inbox->bytes);
	assert_string_equal(inbox->bytes, expected);
	free(expected);
}

/* Pieces arrive in order, both ways; the rest of the stream comes behind the fence only. */
static void test_a_migration_is_carried(void **unused)
{
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = talk_and_move;
	carrying_assert_moved(&carrying, carrying_run(&carrying));
	assert_true(fake_guest_same_ram(&carrying.source_guest, &carrying.destination_guest));
	assert_true(carrying.same_ram_at_release);
	assert_true(carrying.source_stats.verified);
	assert_words(&carrying.at_destination[0], "devices, the end");
	assert_words(&carrying.at_source[0], "devices, the end");
	for (unsigned i = 1; i < CARRYING_STREAMS; i++) {
		assert_words(&carrying.at_destination[i], "");
		assert_words(&carrying.at_source[i], "");
		assert_int_equal(carrying.at_destination[i].n_ends, i == 2);
		assert_int_equal(carrying.at_source[i].n_ends, i == 2);
	}
	assert_int_equal(carrying.destination_got_at_release,
			 carrying.at_destination[0].n_bytes - strlen("devices, the end"));
	assert_true(carrying.n_released_polls >= 3);
	carrying_fini(&carrying);
}

static void name_while_lanes_are_lost(struct carrying *carrying)
{
	/* The second time its zeros must travel. */
	carrying_name_present(carrying);
	memset(carrying_page(&carrying->source_guest, 1, 9), 0, RAMLIFT_PAGE_BYTES);
	source_queue_zeros(carrying->source, 1, 9, 1);
	source_wake_lanes(carrying->source);
	carrying_wait(carrying, carrying_has_no_backlog);
	carrying_name_present(carrying);
	carrying_complete(carrying);
}

/* Complete only once they are lost: a lane that breaks after that fails the session. */
static void complete_once_lost(struct carrying *carrying)
{
	carrying_name_present(carrying);
	carrying_wait(carrying, carrying_has_no_backlog);
	carrying_complete(carrying);
}

/* What a lost lane has carried goes again, whoever named it. */
static void test_lanes_are_lost(void **unused)
{
	static const struct memory_faults faults[] = {
		{ .fail_lane_post = { 0, 1 } },
		{ .fail_lane_post = { 1, 1, 1 } },
	};

	(void)unused;
	for (unsigned i = 0; i < 4; i++) {
		struct carrying carrying;

		memory_transport_set_faults(&faults[i % 2]);
		carrying_init(&carrying);
		carrying.program = i < 2 ? complete_once_lost : name_while_lanes_are_lost;
		carrying_assert_moved(&carrying, carrying_run(&carrying));
		memory_transport_set_faults(NULL);
		assert_true(carrying.same_ram_at_release);
		assert_true(carrying.source_stats.lanes[1].lost);
		assert_false(carrying.source_stats.lanes[3].lost);
		carrying_fini(&carrying);
	}
}

static void name_every_third(struct carrying *carrying)
{
	for (uint64_t page = 0; page < 300; page += 3)
		source_queue_pages(carrying->source, 1, page, 1);
	/* Outside: ignored. */
	source_queue_pages(carrying->source, 2, 0, 1);
	source_queue_pages(carrying->source, 0, CARRYING_BYTES / RAMLIFT_PAGE_BYTES, 10);
	source_queue_pages(carrying->source, UINT32_MAX, UINT64_MAX, UINT64_MAX);
	source_wake_lanes(carrying->source);
	carrying_complete(carrying);
}

static void test_only_named_pages_go(void **unused)
{
	static const char zeros[RAMLIFT_PAGE_BYTES];
	struct memory_account source, destination;
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = name_every_third;
	carrying.source_config.verify = false;
	carrying_assert_moved(&carrying, carrying_run(&carrying));
	assert_int_equal(carrying.source_stats.bytes_sent, 100 * RAMLIFT_PAGE_BYTES);
	/* Its guest may stop at any time: everything is registered beforehand. */
	memory_transport_accounts(&source, &destination);
	assert_int_equal(source.most_bytes, CARRYING_BYTES);
	assert_int_equal(destination.most_bytes, CARRYING_BYTES);
	for (unsigned page = 0; page < 400; page++) {
		const void *there = carrying_page(&carrying.destination_guest, 1, page);
		const void *here = carrying_page(&carrying.source_guest, 1, page);

		assert_memory_equal(there, page < 300 && page % 3 == 0 ? here : zeros,
				    RAMLIFT_PAGE_BYTES);
	}
	carrying_fini(&carrying);
}

/* Page 3 becomes zeros after it was sent, page 4 something after it was zeros; page 5 stays what
 * the destination has. */
static void change_zeros(struct carrying *carrying)
{
	memset(carrying_page(&carrying->source_guest, 0, 4), 0, 2 * RAMLIFT_PAGE_BYTES);
	carrying_name_present(carrying);
	source_queue_zeros(carrying->source, 0, 4, 2);
	if (!carrying_wait(carrying, carrying_has_no_backlog))
		return;
	memset(carrying_page(&carrying->source_guest, 0, 3), 0, RAMLIFT_PAGE_BYTES);
	memset(carrying_page(&carrying->source_guest, 0, 4), 'x', RAMLIFT_PAGE_BYTES);
	source_queue_zeros(carrying->source, 0, 3, 1);
	source_queue_pages(carrying->source, 0, 4, 1);
	source_wake_lanes(carrying->source);
	carrying_complete(carrying);
}

static void test_zeros(void **unused)
{
	uint64_t stamped_bytes = CARRYING_BYTES / 4 * 3;
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = change_zeros;
	carrying_assert_moved(&carrying, carrying_run(&carrying));
	assert_true(fake_guest_same_ram(&carrying.source_guest, &carrying.destination_guest));
	assert_int_equal(carrying.source_stats.zero_pages, 2);
	/* Page 0, whose stamp is 0, and page 5 never; page 4 once, page 3 twice. */
	assert_int_equal(carrying.source_stats.bytes_sent, stamped_bytes - RAMLIFT_PAGE_BYTES);
	carrying_fini(&carrying);
}

static void *name_at_random(void *argument)
{
	struct carrying *carrying = argument;
	unsigned seed = (unsigned)(uintptr_t)pthread_self();

	for (unsigned i = 0; i < 2000; i++) {
		unsigned region = (unsigned)rand_r(&seed) % 2;
		uint64_t first = (uint64_t)rand_r(&seed) % 700;

		if (i % 5)
			source_queue_pages(carrying->source, region, first, 1 + i % 90);
		else
			source_queue_zeros(carrying->source, region, first, 1 + i % 90);
		if (i % 20 == 0)
			source_wake_lanes(carrying->source);
	}
	return NULL;
}

/* Naming from several threads what waits, what is in flight, and what has arrived. */
static void name_and_wait(struct carrying *carrying)
{
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++) {
		if (pthread_create(&threads[i], NULL, name_at_random, carrying))
			abort();
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	carrying_name_present(carrying);
	/* The test hangs here when the count does not come back to 0. */
	if (carrying_wait(carrying, carrying_has_no_backlog))
		carrying_complete(carrying);
}

static void test_the_backlog_comes_back_to_nothing(void **unused)
{
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = name_and_wait;
	carrying_assert_moved(&carrying, carrying_run(&carrying));
	assert_true(fake_guest_same_ram(&carrying.source_guest, &carrying.destination_guest));
	carrying_fini(&carrying);
}

/* The program is done long before the destination has announced all of its slices. */
static void test_slices_come_late(void **unused)
{
	struct memory_faults slow = { .register_us = 20000 };
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = all_at_once;
	carrying.source_config.slice_bytes = 1 << 20;
	memory_transport_set_faults(&slow);
	carrying_assert_moved(&carrying, carrying_run(&carrying));
	memory_transport_set_faults(NULL);
	assert_true(fake_guest_same_ram(&carrying.source_guest, &carrying.destination_guest));
	carrying_fini(&carrying);
}

static bool is_over(struct carrying *carrying)
{
	source_hasten(carrying->source);
	return atomic_load(&carrying->released);
}

static void hasten_all_the_time(struct carrying *carrying)
{
	carrying_name_present(carrying);
	carrying_complete(carrying);
	carrying_wait(carrying, is_over);
}

/* Ticks come only when they are asked for, and being woken is no failure of any other wait. */
static void test_hastening(void **unused)
{
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = hasten_all_the_time;
	carrying.source_config.tick_ns = 3600 * NS_PER_S;
	carrying_assert_moved(&carrying, carrying_run(&carrying));
	assert_true(carrying.n_ticks >= 1);
	carrying_fini(&carrying);
}

/* The digests differ: not a byte of the devices may go. */
static void test_no_release_where_pages_were_lost(void **unused)
{
	struct carrying carrying;
	int ret;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = all_at_once;
	carrying.corrupt = true;
	ret = carrying_run(&carrying);
	assert_int_equal(ret, -EREMOTEIO);
	assert_non_null(strstr(carrying.source_error.text, "digest"));
	carrying_assert_stayed(&carrying);
	assert_int_equal(carrying.source_guest.resumes, 1);
	assert_int_equal(carrying.n_releases, 0);
	assert_null(carrying.at_destination[0].bytes);
	carrying_fini(&carrying);
}

static void say_and_wait(struct carrying *carrying)
{
	carrying_say(carrying, 0, "beginning");
	carrying_name_present(carrying);
	/* Lanes that are busy then may see that the destination is gone before its reason comes. */
	if (carrying_wait(carrying, carrying_has_no_backlog))
		carrying_say(carrying, 0, "break it");
}

/* At the destination, whose program does not like that word. */
static int break_early(struct carrying *carrying, unsigned stream, const char *bytes, size_t n,
		       struct ramlift_error *error)
{
	(void)carrying;
	(void)stream;
	return n == 8 && !memcmp(bytes, "break it", n) ? error_set(error, -EIO, "it is broken") : 0;
}

static int break_late(struct carrying *carrying, unsigned stream, const char *bytes, size_t n,
		      struct ramlift_error *error)
{
	(void)carrying;
	(void)stream;
	return n > 7 && !memcmp(bytes, "devices", 7)
		       ? error_set(error, -EINVAL, "a device is missing")
		       : 0;
}

static void test_the_destination_breaks_while_pages_go(void **unused)
{
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = say_and_wait;
	carrying.on_piece = break_early;
	assert_int_equal(carrying_run(&carrying), -EREMOTEIO);
	assert_non_null(strstr(carrying.source_error.text, "it is broken"));
	assert_int_equal(carrying.destination_ret, -EIO);
	carrying_assert_stayed(&carrying);
	assert_int_equal(carrying.source_guest.pauses, 0);
	assert_int_equal(carrying.n_releases, 0);
	carrying_fini(&carrying);
}

static void test_the_destination_breaks_after_the_release(void **unused)
{
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = all_at_once;
	carrying.on_piece = break_late;
	assert_int_equal(carrying_run(&carrying), -EREMOTEIO);
	assert_non_null(strstr(carrying.source_error.text, "a device is missing"));
	carrying_assert_stayed(&carrying);
	assert_int_equal(carrying.source_guest.resumes, 1);
	assert_int_equal(carrying.n_releases, 1);
	carrying_fini(&carrying);
}

/* A call of the carrier's fails, at each of the places. */
static void test_the_carrier_fails(void **unused)
{
	for (unsigned i = 0; i < 3; i++) {
		struct carrying carrying;

		(void)unused;
		carrying_init(&carrying);
		carrying.program = all_at_once;
		carrying.fail_tick = i == 0 ? -EIO : 0;
		carrying.fail_release = i == 1 ? -EIO : 0;
		carrying.fail_released = i == 2 ? -EIO : 0;
		assert_int_equal(carrying_run(&carrying), -EIO);
		carrying_assert_stayed(&carrying);
		assert_int_equal(carrying.n_releases, i > 0);
		carrying_fini(&carrying);
	}
}

static void test_devices_that_are_never_loaded(void **unused)
{
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = all_at_once;
	carrying.never_released = true;
	carrying.source_config.timeouts.hand_over_ns = 2 * NS_PER_S;
	assert_int_equal(carrying_run(&carrying), -ETIMEDOUT);
	assert_non_null(strstr(carrying.source_error.text, "devices took too long"));
	carrying_assert_stayed(&carrying);
	assert_int_equal(carrying.source_guest.resumes, 1);
	carrying_fini(&carrying);
}

static void cancel_after_the_release(struct carrying *carrying)
{
	all_at_once(carrying);
	while (!atomic_load(&carrying->n_released_polls) && !atomic_load(&carrying->quit))
		usleep(200);
	ramlift_source_cancel(carrying->source);
}

static void test_cancel_after_the_release(void **unused)
{
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = cancel_after_the_release;
	carrying.never_released = true;
	assert_int_equal(carrying_run(&carrying), -ECANCELED);
	carrying_assert_stayed(&carrying);
	assert_int_equal(carrying.source_guest.resumes, 1);
	carrying_fini(&carrying);
}

static void never(struct carrying *carrying)
{
	carrying_name_present(carrying);
}

static void test_the_time_limit(void **unused)
{
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = never;
	carrying.source_config.max_total_ns = 300 * NS_PER_MS;
	assert_int_equal(carrying_run(&carrying), -ETIMEDOUT);
	assert_non_null(strstr(carrying.source_error.text, "time limit"));
	carrying_assert_stayed(&carrying);
	carrying_fini(&carrying);
}

static void only_say(struct carrying *carrying)
{
	carrying_say(carrying, 0, "words");
}

static void test_pieces_for_those_who_carry_none(void **unused)
{
	struct carrying carrying;
	int ret;

	(void)unused;
	carrying_init(&carrying);
	carrying.program = say_and_wait;
	carrying.destination_does_not_carry = true;
	/* The destination says why, and lets its lanes go: the source hears of either first. */
	ret = carrying_run(&carrying);
	assert_true(ret == -EREMOTEIO || ret == -EIO);
	assert_int_equal(carrying.destination_ret, -EPROTO);
	assert_non_null(strstr(carrying.destination_error.text, "sent STREAM in phase stream"));
	carrying_assert_stayed(&carrying);
	carrying_fini(&carrying);

	/* The source's program speaks although it does not carry; the echo is too much for it. */
	carrying_init(&carrying);
	carrying.program = only_say;
	carrying.source_does_not_carry = true;
	carrying.source_config.bandwidth_bytes_per_s = 1 << 20; /* there is time */
	assert_int_equal(carrying_run(&carrying), -EPROTO);
	assert_non_null(strstr(carrying.source_error.text, "sent STREAM in phase"));
	assert_int_equal(carrying.destination_ret, -EREMOTEIO);
	carrying_assert_stayed(&carrying);
	carrying_fini(&carrying);
}

static struct carrying *speaking;

/* The guest runs there, and its program has a last word before STARTED. */
static int resume_and_speak(void *guest, struct ramlift_error *error)
{
	int ret = fake_guest_ops.resume(guest, error);

	atomic_store(&speaking->source_receive_fails, -EREMOTEIO);
	return ret ? ret : destination_send_piece(speaking->destination, 0, "last", 4, error);
}

/* What the source's own program says of that is not the destination's word. */
static void test_no_taking_back_by_the_carriers_word(void **unused)
{
	struct ramlift_guest_ops ops = fake_guest_ops;
	struct carrying carrying;

	(void)unused;
	carrying_init(&carrying);
	speaking = &carrying;
	ops.resume = resume_and_speak;
	carrying.destination_config.guest_ops = &ops;
	carrying.program = all_at_once;
	assert_int_equal(carrying_run(&carrying), -EINPROGRESS);
	assert_int_equal(carrying.source_stats.phase, RAMLIFT_PHASE_IN_DOUBT);
	assert_int_equal(carrying.destination_guest.resumes, 1);
	assert_int_equal(carrying.source_guest.resumes, 0);
	assert_int_equal(ramlift_source_settle(carrying.source, NULL), 0);
	carrying_fini(&carrying);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_migration_is_carried),
		cmocka_unit_test(test_lanes_are_lost),
		cmocka_unit_test(test_only_named_pages_go),
		cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_the_backlog_comes_back_to_nothing),
		cmocka_unit_test(test_slices_come_late),
		cmocka_unit_test(test_hastening),
		cmocka_unit_test(test_no_release_where_pages_were_lost),
		cmocka_unit_test(test_the_destination_breaks_while_pages_go),
		cmocka_unit_test(test_the_destination_breaks_after_the_release),
		cmocka_unit_test(test_the_carrier_fails),
		cmocka_unit_test(test_devices_that_are_never_loaded),
		cmocka_unit_test(test_cancel_after_the_release),
		cmocka_unit_test(test_the_time_limit),
		cmocka_unit_test(test_pieces_for_those_who_carry_none),
		cmocka_unit_test(test_no_taking_back_by_the_carriers_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
