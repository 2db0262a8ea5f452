/* SPDX-License-Identifier: Apache-2.0 */
/* Whole migrations over a fake RDMA device of which each call fails once: verbs, connection
 * manager, the engine's and the transport's tables. The guest runs on one side, and nothing is left
 * behind. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "fake.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/fake_guest.h"

#define GUEST_BYTES (3ull << 20)

struct migration {
	struct fake_guest source_guest, destination_guest;
	struct ramlift_source_config source_config;
	struct ramlift_destination_config destination_config;
	struct ramlift_destination *destination;
	struct ramlift_error source_error, destination_error;
	char state_dir[40], to[32];
	int source_ret, destination_ret;
};

static const char *const rails[] = { "fake0" };
static const struct ramlift_transport *transports[1];

static void set_timeouts(struct ramlift_timeouts *timeouts)
{
	timeouts->connect_ns = 500 * NS_PER_MS;
	timeouts->io_ns = 500 * NS_PER_MS;
	timeouts->prepare_ns = 2 * NS_PER_S;
	timeouts->hand_over_ns = 2 * NS_PER_S;
}

static void migration_init(struct migration *migration)
{
	struct ramlift_source_config *source = &migration->source_config;
	struct ramlift_destination_config *destination = &migration->destination_config;

	memset(migration, 0, sizeof(*migration));
	fake_reset();
	transports[0] = ramlift_transport_rdma();
	fake_guest_init(&migration->source_guest, GUEST_BYTES);
	fake_guest_init(&migration->destination_guest, 0);
	strcpy(migration->state_dir, "/tmp/ramlift-test-XXXXXX");
	assert_non_null(mkdtemp(migration->state_dir));

	ramlift_destination_config_init(destination);
	destination->guest_ops = &fake_guest_ops;
	destination->guest = &migration->destination_guest;
	destination->listen = "127.0.0.1:0";
	destination->transports = transports;
	destination->n_transports = 1;
	destination->rails = rails;
	destination->n_rails = 1;
	destination->state_dir = migration->state_dir;
	set_timeouts(&destination->timeouts);

	ramlift_source_config_init(source);
	source->guest_name = "fake";
	source->guest_ops = &fake_guest_ops;
	source->guest = &migration->source_guest;
	source->dirty_source_ops = &fake_dirty_ops;
	source->dirty_source = &migration->source_guest;
	source->regions = migration->source_guest.regions;
	source->n_regions = migration->source_guest.n_regions;
	source->transports = transports;
	source->n_transports = 1;
	source->rails = rails;
	source->n_rails = 1;
	source->lanes_per_rail = 2;
	source->to = migration->to;
	source->state_dir = migration->state_dir;
	source->slice_bytes = 1 << 20;
	source->tick_ns = 5 * NS_PER_MS;
	source->verify = true;
	set_timeouts(&source->timeouts);
}

static void migration_fini(struct migration *migration)
{
	char command[80];

	fake_guest_fini(&migration->source_guest);
	fake_guest_fini(&migration->destination_guest);
	snprintf(command, sizeof(command), "rm -r %s", migration->state_dir);
	assert_int_equal(system(command), 0);
}

static void *run_destination(void *argument)
{
	struct migration *migration = argument;

	migration->destination_ret =
		ramlift_destination_run(migration->destination, &migration->destination_error);
	return NULL;
}

static int run_source(struct migration *migration)
{
	struct ramlift_source *source;
	int ret;

	ret = ramlift_source_new(&migration->source_config, &source, &migration->source_error);
	if (ret)
		return ret;
	ret = ramlift_source_run(source, &migration->source_error);
	while (ret == -EINPROGRESS || ret == -ENOMEM) {
		int settled = ramlift_source_settle(source, &migration->source_error);

		if (settled == -EALREADY) /* it was no doubt */
			break;
		ret = settled;
	}
	ramlift_source_free(source);
	return ret;
}

/* -errno of whoever has failed first, as far as that can be told. */
static int migrate(struct migration *migration)
{
	pthread_t thread;
	int ret = ramlift_destination_new(&migration->destination_config, &migration->destination,
					  &migration->destination_error);

	if (ret)
		return ret;
	snprintf(migration->to, sizeof(migration->to), "127.0.0.1:%u",
		 ramlift_destination_port(migration->destination));
	assert_int_equal(pthread_create(&thread, NULL, run_destination, migration), 0);
	ret = run_source(migration);
	if (ret)
		ramlift_destination_cancel(migration->destination);
	pthread_join(thread, NULL);
	ramlift_destination_free(migration->destination);
	return ret;
}

static void assert_runs_there(struct migration *migration)
{
	assert_int_equal(migration->destination_ret, 0);
	assert_int_equal(migration->destination_guest.resumes, 1);
	assert_int_equal(migration->source_guest.resumes, 0);
	assert_true(migration->source_guest.paused);
	assert_true(fake_guest_same_ram(&migration->source_guest, &migration->destination_guest));
}

static void assert_runs_here(struct migration *migration)
{
	assert_false(migration->source_guest.paused);
	assert_int_equal(migration->destination_guest.resumes, 0);
	assert_false(migration->destination_guest.created);
	assert_true(migration->source_error.code || migration->destination_error.code);
}

static void test_every_call_fails_once(void **state)
{
	unsigned nth = 0;
	bool failed;

	(void)state;
	do {
		struct migration migration;
		int ret;

		migration_init(&migration);
		fake_fail_call(++nth);
		ret = migrate(&migration);
		failed = fake_has_failed();
		fake_fail_call(0);
		if (!failed)
			assert_int_equal(ret, 0);
		if (ret)
			assert_runs_here(&migration);
		else
			assert_runs_there(&migration);
		assert_false(migration.source_guest.tracking);
		assert_int_equal(migration.source_guest.stops, migration.source_guest.starts);
		assert_int_equal(fake_live(), 0);
		migration_fini(&migration);
	} while (failed);
	print_message("%u calls have failed once\n", nth - 1);
	assert_true(nth > 80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_call_fails_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
