/* SPDX-License-Identifier: Apache-2.0 */
#include "session_pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka_all.h"

void pair_init(struct pair *pair, const struct ramlift_transport *transport)
{
	pair_init_sized(pair, transport, GUEST_BYTES);
}

void pair_init_sized(struct pair *pair, const struct ramlift_transport *transport,
		     uint64_t guest_bytes)
{
	memset(pair, 0, sizeof(*pair));
	fake_guest_init(&pair->source_guest, guest_bytes);
	fake_guest_init(&pair->destination_guest, 0);
	pair->transport = transport;
	strcpy(pair->state_dir, "/tmp/ramlift-test-XXXXXX");
	assert_non_null(mkdtemp(pair->state_dir));

	ramlift_destination_config_init(&pair->destination_config);
	pair->destination_config.guest_ops = &fake_guest_ops;
	pair->destination_config.guest = &pair->destination_guest;
	pair->destination_config.listen = "127.0.0.1:0";
	pair->destination_config.transports = &pair->transport;
	pair->destination_config.n_transports = 1;
	pair->destination_config.state_dir = pair->state_dir;

	ramlift_source_config_init(&pair->source_config);
	pair->source_config.guest_name = "fake";
	pair->source_config.guest_ops = &fake_guest_ops;
	pair->source_config.guest = &pair->source_guest;
	pair->source_config.dirty_source_ops = &fake_dirty_ops;
	pair->source_config.dirty_source = &pair->source_guest;
	pair->source_config.regions = pair->source_guest.regions;
	pair->source_config.n_regions = pair->source_guest.n_regions;
	pair->source_config.transports = &pair->transport;
	pair->source_config.n_transports = 1;
	pair->source_config.to = pair->to;
	pair->source_config.state_dir = pair->state_dir;
	pair->source_config.slice_bytes = 4 << 20;
	pair->source_config.tick_ns = 5 * NS_PER_MS;
	pair->source_config.verify = true;
}

static void *destination_thread(void *argument)
{
	struct pair *pair = argument;

	pair->destination_ret =
		ramlift_destination_run(pair->destination, &pair->destination_error);
	return NULL;
}

void pair_start_destination(struct pair *pair)
{
	assert_int_equal(pthread_create(&pair->thread, NULL, destination_thread, pair), 0);
}

void pair_make(struct pair *pair)
{
	assert_int_equal(ramlift_destination_new(&pair->destination_config, &pair->destination,
						 &pair->destination_error),
			 0);
	snprintf(pair->to, sizeof(pair->to), "127.0.0.1:%u",
		 ramlift_destination_port(pair->destination));
	assert_int_equal(
		ramlift_source_new(&pair->source_config, &pair->source, &pair->source_error), 0);
}

void pair_start(struct pair *pair)
{
	pair_make(pair);
	pair_start_destination(pair);
}

void pair_join(struct pair *pair)
{
	pthread_join(pair->thread, NULL);
	ramlift_source_stats(pair->source, &pair->source_stats);
	ramlift_destination_stats(pair->destination, &pair->destination_stats);
}

int pair_run(struct pair *pair)
{
	int ret;

	pair_start(pair);
	ret = ramlift_source_run(pair->source, &pair->source_error);
	pair_join(pair);
	return ret;
}

void pair_fini(struct pair *pair)
{
	char command[80];

	ramlift_source_free(pair->source);
	ramlift_destination_free(pair->destination);
	fake_guest_fini(&pair->source_guest);
	fake_guest_fini(&pair->destination_guest);
	snprintf(command, sizeof(command), "rm -r %s", pair->state_dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(memory_transport_open_endpoints(), 0);
	assert_int_equal(memory_transport_late_writes(), 0);
}

void pair_assert_moved(struct pair *pair, int ret)
{
	if (ret)
		print_message("source: %s\ndestination: %s\n", pair->source_error.text,
			      pair->destination_error.text);
	assert_int_equal(ret, 0);
	assert_int_equal(pair->destination_ret, 0);
	assert_true(fake_guest_same_ram(&pair->source_guest, &pair->destination_guest));
	assert_int_equal(pair->destination_guest.state, pair->source_guest.state);
	assert_int_equal(pair->source_guest.resumes, 0);
	assert_int_equal(pair->destination_guest.resumes, 1);
	assert_int_equal(pair->source_guest.starts, 1);
	assert_int_equal(pair->source_guest.stops, 1);
	assert_int_equal(pair->source_stats.phase, RAMLIFT_PHASE_DONE);
	assert_int_equal(pair->destination_stats.phase, RAMLIFT_PHASE_DONE);
	assert_true(pair->source_stats.verified);
	assert_true(pair->destination_stats.verified);
	assert_int_equal(pair->source_stats.digest, pair->destination_stats.digest);
}

void pair_assert_stayed(struct pair *pair)
{
	assert_int_equal(pair->source_guest.resumes, pair->source_guest.pauses ? 1 : 0);
	assert_int_equal(pair->source_guest.stops, pair->source_guest.starts);
	assert_false(pair->source_guest.tracking);
	assert_false(pair->destination_guest.created);
	assert_int_equal(pair->source_stats.phase, RAMLIFT_PHASE_FAILED);
}
