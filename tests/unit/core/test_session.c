/* SPDX-License-Identifier: Apache-2.0 */
/* Whole sessions between a source and a destination in one process: fake guests, in-memory and TCP
 * lanes. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "session_pair.h"
#include "tests/support/cmocka_all.h"

static void run_and_assert_moved(const struct ramlift_transport *transport, unsigned lanes,
				 uint64_t hot_pages)
{
	struct pair pair;

	pair_init(&pair, transport);
	pair.source_config.lanes_per_rail = lanes;
	if (hot_pages)
		fake_guest_start_writer(&pair.source_guest, hot_pages, 1);
	pair_assert_moved(&pair, pair_run(&pair));
	pair_fini(&pair);
}

static void test_idle_guest_moves_in_memory(void **unused)
{
	(void)unused;
	run_and_assert_moved(memory_transport(), 1, 0);
	run_and_assert_moved(memory_transport(), 4, 0);
}

static void test_busy_guest_moves_in_memory(void **unused)
{
	(void)unused;
	run_and_assert_moved(memory_transport(), 1, 500);
	for (int i = 0; i < 5; i++)
		run_and_assert_moved(memory_transport(), 3, 500);
	run_and_assert_moved(memory_transport(), 8, 4000);
}

static void test_busy_guest_moves_over_tcp(void **unused)
{
	(void)unused;
	run_and_assert_moved(ramlift_transport_tcp(), 1, 500);
	run_and_assert_moved(ramlift_transport_tcp(), 4, 4000);
}

/* What all of this stands on: that a stale page is noticed. A source that publishes before it
 * resets loses some. */
static void test_a_broken_dirty_source_is_noticed(void **unused)
{
	bool noticed = false;

	(void)unused;
	for (int i = 0; i < 50 && !noticed; i++) {
		struct pair pair;
		int ret;

		pair_init(&pair, memory_transport());
		pair.source_guest.break_rule_1 = true;
		fake_guest_start_writer(&pair.source_guest, 500, 1);
		ret = pair_run(&pair);
		noticed = ret == -EREMOTEIO && strstr(pair.source_error.text, "digest");
		pair_fini(&pair);
	}
	assert_true(noticed);
}

static void test_zero_pages_and_holes_are_not_sent(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	/* Zeros that are there, beside the untouched last quarter. */
	memset(pair.source_guest.regions[0].hva, 0, 100 * RAMLIFT_PAGE_BYTES);
	pair_assert_moved(&pair, pair_run(&pair));
	assert_int_equal(pair.source_stats.zero_pages, 100);
	assert_int_equal(pair.source_stats.bytes_sent,
			 GUEST_BYTES / 4 * 3 - 100 * RAMLIFT_PAGE_BYTES);
	pair_fini(&pair);
}

static void *mark_device_writes(void *argument)
{
	struct pair *pair = argument;
	char *hva = pair->source_guest.regions[1].hva;

	for (unsigned i = 0; i < 2000; i++) {
		uint64_t offset = (i * 7919ull) % (pair->source_guest.regions[1].size_bytes - 8192);

		if (!fake_guest_device_begin(&pair->source_guest))
			return NULL;
		memset(hva + offset, (int)i, 5000);
		assert_int_equal(
			ramlift_source_mark_dirty(pair->source,
						  pair->source_guest.regions[1].gpa + offset, 5000),
			0);
		fake_guest_device_end(&pair->source_guest);
		usleep(20);
	}
	return NULL;
}

/* A device of the VMM writes while memory flows; dirty tracking does not see that. */
static void test_device_writes_move(void **unused)
{
	struct pair pair;
	pthread_t device;
	int ret;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair.source_config.bandwidth_bytes_per_s = 100 << 20; /* long enough for the device */
	pair_start(&pair);
	assert_int_equal(pthread_create(&device, NULL, mark_device_writes, &pair), 0);
	ret = ramlift_source_run(pair.source, &pair.source_error);
	pthread_join(device, NULL);
	pair_join(&pair);
	assert_int_equal(ret, 0);
	assert_int_equal(ramlift_source_mark_dirty(pair.source, 3ull << 30, 1), -ERANGE);
	assert_int_equal(ramlift_source_mark_dirty(pair.source, 4ull << 30, 1ull << 40), -ERANGE);
	pair_fini(&pair);
}

static void *cancel_soon(void *argument)
{
	struct pair *pair = argument;

	usleep(100000);
	assert_int_equal(ramlift_source_cancel(pair->source), 0);
	return NULL;
}

static void test_cancel_while_streaming(void **unused)
{
	struct pair pair;
	pthread_t canceller;
	int ret;

	(void)unused;
	pair_init(&pair, ramlift_transport_tcp());
	pair.source_config.bandwidth_bytes_per_s = 1 << 20;
	fake_guest_start_writer(&pair.source_guest, 100, 100);
	pair_start(&pair);
	assert_int_equal(pthread_create(&canceller, NULL, cancel_soon, &pair), 0);
	ret = ramlift_source_run(pair.source, &pair.source_error);
	pthread_join(canceller, NULL);
	pair_join(&pair);
	if (ret != -ECANCELED)
		print_message("source: %s\n", pair.source_error.text);
	assert_int_equal(ret, -ECANCELED);
	assert_int_equal(pair.destination_ret, -ECANCELED);
	pair_assert_stayed(&pair);
	assert_true(atomic_load(&pair.source_guest.run));
	pair_fini(&pair);
}

static void test_cancel_before_the_run(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair_start(&pair);
	assert_int_equal(ramlift_source_cancel(pair.source), 0);
	assert_int_equal(ramlift_source_run(pair.source, &pair.source_error), -ECANCELED);
	assert_int_equal(ramlift_destination_cancel(pair.destination), 0);
	pair_join(&pair);
	assert_int_equal(pair.destination_ret, -ECANCELED);
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

static void test_cancel_after_the_end_is_refused(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair_assert_moved(&pair, pair_run(&pair));
	assert_int_equal(ramlift_source_cancel(pair.source), -EALREADY);
	assert_int_equal(ramlift_destination_cancel(pair.destination), -EALREADY);
	pair_fini(&pair);
}

/* Every call of the VMM that can fail does so once; and so does each of the transport's. */
struct failure {
	const char *what;
	size_t guest_field; /* an int of struct fake_guest, at the source or the destination */
	bool at_destination;
	struct memory_faults faults;
};

static const struct failure failures[] = {
	{ "create", offsetof(struct fake_guest, fail_create), true, { 0 } },
	{ "load", offsetof(struct fake_guest, fail_load), true, { 0 } },
	{ "resume", offsetof(struct fake_guest, fail_resume), true, { 0 } },
	{ "pause", offsetof(struct fake_guest, fail_pause), false, { 0 } },
	{ "save", offsetof(struct fake_guest, fail_save), false, { 0 } },
	{ "harvest", offsetof(struct fake_guest, fail_harvest), false, { 0 } },
	{ "first posts", 0, false, { .fail_lane_post = { 1, 1, 1, 1 } } },
	{ "later posts", 0, false, { .fail_lane_post = { 4, 2, 1, 3 } } },
	{ "first register", 0, false, { .fail_register = 1 } },
	{ "last register", 0, false, { .fail_register = 5 } },
	{ "connect", 0, false, { .fail_connect = 1 } },
	{ "accept", 0, false, { .fail_accept = 1 } },
	{ "tokens", 0, false, { .lose_tokens = true } },
};

static void fail_once(const struct failure *failure)
{
	struct fake_guest *guest;
	struct pair pair;
	int ret;

	pair_init(&pair, memory_transport());
	pair.destination_config.timeouts.hand_over_ns = NS_PER_S / 2;
	pair.destination_config.timeouts.connect_ns = NS_PER_S / 2;
	guest = failure->at_destination ? &pair.destination_guest : &pair.source_guest;
	if (failure->guest_field)
		*(int *)((char *)guest + failure->guest_field) = -EIO;
	memory_transport_set_faults(&failure->faults);
	fake_guest_start_writer(&pair.source_guest, 100, 100);
	ret = pair_run(&pair);
	memory_transport_set_faults(NULL);
	if (!ret || !pair.source_error.text[0] || !pair.destination_error.text[0])
		fail_msg("%s: ret %d, source \"%s\", destination \"%s\"", failure->what, ret,
			 pair.source_error.text, pair.destination_error.text);
	assert_true(pair.destination_ret < 0);
	assert_true(pair.destination_error.code < 0);
	pair_assert_stayed(&pair);
	assert_true(atomic_load(&pair.source_guest.run));
	pair_fini(&pair);
}

static void test_each_failure_leaves_the_guest_running(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
		fail_once(&failures[i]);
}

/* Registration goes on for a moment after everything else has failed. */
static void test_a_slow_registration_outlives_nothing(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 1, 1, 1, 1 },
					      .register_us = 50000 };
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	memory_transport_set_faults(&faults);
	assert_int_not_equal(pair_run(&pair), 0);
	memory_transport_set_faults(NULL);
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

static void test_a_destination_that_stops_registering(void **unused)
{
	const struct memory_faults faults = { .register_us = 2000000 };
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair.source_config.timeouts.prepare_ns = NS_PER_S;
	memory_transport_set_faults(&faults);
	assert_int_equal(pair_run(&pair), -ETIMEDOUT);
	memory_transport_set_faults(NULL);
	assert_non_null(strstr(pair.source_error.text, "registering"));
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

/* The destination has read COMMIT, cannot run the guest and says so: it is the source's again. */
static void test_a_refusal_after_commit(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair.destination_guest.fail_resume = -ECANCELED;
	assert_int_equal(pair_run(&pair), -EREMOTEIO);
	pair_assert_stayed(&pair);
	ramlift_source_free(pair.source);
	/* And the same destination takes the next one. */
	pair.destination_guest.fail_resume = 0;
	pair.destination_guest.resumes = 0;
	pair.source_guest.resumes = 0;
	pair.source_guest.starts = 0;
	pair.source_guest.stops = 0;
	assert_int_equal(ramlift_source_new(&pair.source_config, &pair.source, &pair.source_error),
			 0);
	pair_start_destination(&pair);
	pair_assert_moved(&pair, (ramlift_source_run(pair.source, &pair.source_error),
				  pair_join(&pair), pair.destination_ret));
	pair_fini(&pair);
}

static void test_nobody_listens(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	strcpy(pair.to, "127.0.0.1:1");
	assert_int_equal(ramlift_source_new(&pair.source_config, &pair.source, NULL), 0);
	assert_int_equal(ramlift_source_run(pair.source, &pair.source_error), -ECONNREFUSED);
	assert_non_null(strstr(pair.source_error.text, "ramlift receive"));
	ramlift_source_stats(pair.source, &pair.source_stats);
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

static void test_no_common_transport(void **unused)
{
	const struct ramlift_transport *tcp = ramlift_transport_tcp();
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair.destination_config.transports = &tcp;
	assert_int_equal(pair_run(&pair), -EREMOTEIO);
	assert_non_null(strstr(pair.source_error.text, "--transport"));
	assert_int_equal(pair.destination_guest.creates, 0);
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

static void test_the_destination_can_try_again(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair.destination_guest.fail_create = -ENOMEM;
	assert_int_equal(pair_run(&pair), -EREMOTEIO);
	ramlift_source_free(pair.source);
	pair.destination_guest.fail_create = 0;
	assert_int_equal(ramlift_source_new(&pair.source_config, &pair.source, &pair.source_error),
			 0);
	pair_start_destination(&pair);
	pair_assert_moved(&pair, (ramlift_source_run(pair.source, &pair.source_error),
				  pair_join(&pair), pair.destination_ret));
	pair_fini(&pair);
}

/* The journal is part of the commit: without it there is none. */
static void test_no_commit_without_journal(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair.source_config.state_dir = "/nonexistent";
	pair_start(&pair);
	assert_int_equal(ramlift_source_run(pair.source, &pair.source_error), -ENOENT);
	assert_int_equal(ramlift_destination_cancel(pair.destination), 0); /* it hears nothing */
	pair_join(&pair);
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

static void test_a_guest_that_outruns_the_link(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	fake_guest_start_writer(&pair.source_guest, 4000, 0);
	pair.source_config.bandwidth_bytes_per_s = 8 << 20;
	pair.source_config.max_downtime_ns = NS_PER_MS;
	pair.source_config.on_divergence = RAMLIFT_DIVERGENCE_ABORT;
	assert_int_equal(pair_run(&pair), -ETIMEDOUT);
	pair_assert_stayed(&pair);
	pair_fini(&pair);

	pair_init(&pair, memory_transport());
	fake_guest_start_writer(&pair.source_guest, 4000, 0);
	pair.source_config.bandwidth_bytes_per_s = 8 << 20;
	pair.source_config.max_downtime_ns = NS_PER_MS;
	pair.source_config.on_divergence = RAMLIFT_DIVERGENCE_STOP;
	pair_assert_moved(&pair, pair_run(&pair));
	pair_fini(&pair);
}

static void test_bad_configurations_are_refused(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	strcpy(pair.to, "127.0.0.1:1");
#define REFUSED(field, value)                                                                      \
	do {                                                                                       \
		struct ramlift_source_config config = pair.source_config;                          \
		config.field = value;                                                              \
		assert_int_equal(ramlift_source_new(&config, &pair.source, &pair.source_error),    \
				 -EINVAL);                                                         \
		assert_true(pair.source_error.text[0]);                                            \
	} while (0)
	REFUSED(guest_name, "");
	REFUSED(guest_name, "a/b");
	REFUSED(guest_name, ".db");
	REFUSED(lanes_per_rail, 0);
	REFUSED(lanes_per_rail, RAMLIFT_MAX_LANES + 1);
	REFUSED(n_rails, RAMLIFT_MAX_RAILS + 1);
	REFUSED(pin, RAMLIFT_PIN_BUDGET + 1);
	REFUSED(pin, RAMLIFT_PIN_BUDGET); /* of nothing */
	REFUSED(n_regions, 0);
	REFUSED(n_transports, 0);
	REFUSED(slice_bytes, 4096);
	REFUSED(tick_ns, 0);
	REFUSED(to, "nonsense");
	REFUSED(state_dir, NULL);
	REFUSED(timeouts.heartbeat_ns, 0);
	pair.source_config.n_rails = RAMLIFT_MAX_RAILS;
	REFUSED(lanes_per_rail, RAMLIFT_MAX_LANES / RAMLIFT_MAX_RAILS + 1); /* of all rails */
	pair.source_config.n_rails = 0;
	pair.source_config.pin = RAMLIFT_PIN_BUDGET;
	REFUSED(pin_budget_bytes, (16 << 20) - 1);
#undef REFUSED
	assert_null(pair.source);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle_guest_moves_in_memory),
		cmocka_unit_test(test_busy_guest_moves_in_memory),
		cmocka_unit_test(test_busy_guest_moves_over_tcp),
		cmocka_unit_test(test_a_broken_dirty_source_is_noticed),
		cmocka_unit_test(test_zero_pages_and_holes_are_not_sent),
		cmocka_unit_test(test_device_writes_move),
		cmocka_unit_test(test_cancel_while_streaming),
		cmocka_unit_test(test_cancel_before_the_run),
		cmocka_unit_test(test_cancel_after_the_end_is_refused),
		cmocka_unit_test(test_each_failure_leaves_the_guest_running),
		cmocka_unit_test(test_a_slow_registration_outlives_nothing),
		cmocka_unit_test(test_a_destination_that_stops_registering),
		cmocka_unit_test(test_a_refusal_after_commit),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_no_common_transport),
		cmocka_unit_test(test_the_destination_can_try_again),
		cmocka_unit_test(test_no_commit_without_journal),
		cmocka_unit_test(test_a_guest_that_outruns_the_link),
		cmocka_unit_test(test_bad_configurations_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
