/* SPDX-License-Identifier: Apache-2.0 */
/* A source whose destination answers what it was not asked. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/address.h"
#include "core/source.h"
#include "impostor.h"
#include "tests/support/cmocka_all.h"

#define JOURNAL_US 100000u

static void say_slice_key(struct impostor *impostor, uint32_t slice)
{
	struct slice_key_message message = { .slice = slice };
	uint32_t length;
	void *payload = slice_key_encode(&message, &length);

	say(impostor, MESSAGE_SLICE_KEY, payload, length);
}

static void *source_thread(void *argument)
{
	struct pair *pair = argument;

	pair->destination_ret = ramlift_source_run(pair->source, &pair->source_error);
	return NULL;
}

/* Let the source in, whose guest has 24 slices; says ACCEPT for so many rails. */
static void let_in(struct impostor *impostor, struct pair *pair, unsigned n_rails)
{
	struct accept accept = { .fresh = true, .journal_us = JOURNAL_US, .n_rails = n_rails };
	struct sockaddr_storage addresses[RAMLIFT_MAX_RAILS];
	struct address address;
	struct message *message;
	struct offer offered;
	int listen_fd, fd;
	uint32_t length;
	void *payload;

	assert_int_equal(address_parse("127.0.0.1:0", 1, &address, NULL), 0);
	assert_int_equal(address_listen(&address, &listen_fd, NULL), 0);
	assert_int_equal(address_of_socket(listen_fd, &address), 0);
	snprintf(pair->to, sizeof(pair->to), "127.0.0.1:%u", address_port(&address));
	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	assert_int_equal(pthread_create(&pair->thread, NULL, source_thread, pair), 0);
	assert_int_equal(wait_for_fd(listen_fd, POLLIN, LONG_NS, -1), 0);
	fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	close(listen_fd);
	open_channel(impostor, fd, NULL);
	message = hear(impostor, MESSAGE_OFFER);
	assert_int_equal(offer_decode(message->payload, message->length_bytes, &offered), 0);
	assert_int_equal(offered.n_rails, 1);
	assert_int_equal(offered.n_lanes, pair->source_config.lanes_per_rail);
	assert_int_equal(offered.slice_bytes, SLICE_BYTES);
	memcpy(impostor->params.session_id, offered.session_id, SESSION_ID_BYTES);
	free(message);
	impostor->params.n_lanes = offered.n_lanes;
	assert_int_equal(memory_transport()->listen(&impostor->params, NULL, &impostor->endpoint,
						    addresses, NULL),
			 0);
	payload = accept_encode(&accept, &length);
	say(impostor, MESSAGE_ACCEPT, payload, length);
}

static void assert_source_refuses(struct impostor *impostor, struct pair *pair, const char *words)
{
	pthread_join(pair->thread, NULL);
	ramlift_source_stats(pair->source, &pair->source_stats);
	assert_int_equal(pair->destination_ret, -EPROTO); /* of the source's thread here */
	if (!strstr(pair->source_error.text, words))
		fail_msg("'%s' without '%s'", pair->source_error.text, words);
	/* The downtime that the source predicts has what its peer's journal takes. */
	assert_true(pair->source->rates.journal_ns > JOURNAL_US * NS_PER_US);
	pair_assert_stayed(pair);
	impostor_fini(impostor);
	pair_fini(pair);
}

static void source_init(struct pair *pair, struct impostor *impostor)
{
	pair_init(pair, memory_transport());
	pair->source_config.slice_bytes = SLICE_BYTES;
	impostor_init(impostor);
}

static void test_a_destination_with_other_rails(void **unused)
{
	struct impostor impostor;
	struct pair pair;

	(void)unused;
	source_init(&pair, &impostor);
	let_in(&impostor, &pair, 2);
	assert_source_refuses(&impostor, &pair, "answers for 2 rails of 1");
}

/* Slices that the guest never touched, and that are none. */
static void test_keys_that_nobody_asked_for(void **unused)
{
	static const uint32_t slices[] = { 23, 18, 24, UINT32_MAX };

	(void)unused;
	for (unsigned i = 0; i < 4; i++) {
		struct impostor impostor;
		struct pair pair;

		source_init(&pair, &impostor);
		let_in(&impostor, &pair, 1);
		free(hear(&impostor, MESSAGE_REGISTER)); /* so it has connected */
		say_slice_key(&impostor, slices[i]);
		assert_source_refuses(&impostor, &pair, "the destination announced");
	}
}

static void test_a_key_twice(void **unused)
{
	struct register_message asked;
	struct impostor impostor;
	struct message *message;
	struct pair pair;

	(void)unused;
	source_init(&pair, &impostor);
	pair.source_config.pin = RAMLIFT_PIN_ALL;
	let_in(&impostor, &pair, 1);
	message = hear(&impostor, MESSAGE_REGISTER);
	assert_int_equal(register_decode(message->payload, message->length_bytes, &asked), 0);
	assert_int_equal(asked.rails, 1);
	free(message);
	/* The last of those that are asked for, which no lane comes to: it has no pages. */
	do {
		message = hear(&impostor, MESSAGE_REGISTER);
		assert_int_equal(register_decode(message->payload, message->length_bytes, &asked),
				 0);
		free(message);
	} while (asked.slice != 23);
	say_slice_key(&impostor, 23);
	say_slice_key(&impostor, 23);
	assert_source_refuses(&impostor, &pair, "announced slice 23");
}

/* Up to a lane that is lost and that the destination has been told of. */
static void lose_lane(struct impostor *impostor, struct pair *pair)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 1 } };
	struct lane_message lost;
	struct message *message;
	struct slice_key key;
	uint32_t length;
	void *payload;

	memory_transport_set_faults(&faults);
	source_init(pair, impostor);
	pair->source_config.timeouts.io_ns = NS_PER_S / 4;
	pair->source_config.timeouts.heartbeat_ns = NS_PER_S;
	let_in(impostor, pair, 1);
	free(hear(impostor, MESSAGE_REGISTER)); /* of the first slice, which has a stripe of each */
	memory_transport_set_faults(NULL);
	assert_int_equal(memory_transport()->register_slice(impostor->endpoint, 0, 1, &key, NULL),
			 0);
	payload = slice_key_encode(&(struct slice_key_message){ 0, key }, &length);
	say(impostor, MESSAGE_SLICE_KEY, payload, length);
	do {
		assert_int_equal(channel_receive(impostor->channel, LONG_NS, -1, &message, NULL),
				 0);
		length = message->type;
		if (length == MESSAGE_LANE_LOST)
			assert_int_equal(
				lane_message_decode(message->payload, message->length_bytes, &lost),
				0);
		free(message);
	} while (length != MESSAGE_LANE_LOST);
	assert_int_equal(lost.lane, 1);
}

static void test_a_lane_is_fenced_that_nobody_lost(void **unused)
{
	/* One that lives, one that is none; the right one, but twice. */
	static const unsigned lanes[][2] = { { 0, 0 }, { 4, 4 }, { UINT16_MAX, 0 }, { 1, 1 } };

	(void)unused;
	for (size_t i = 0; i < sizeof(lanes) / sizeof(lanes[0]); i++) {
		struct impostor impostor;
		struct pair pair;

		lose_lane(&impostor, &pair);
		if (lanes[i][0] == 1) /* or its stripes go to lanes that find it alive */
			memory_transport()->fence_lane(impostor.endpoint, 1, NULL);
		say_lane(&impostor, MESSAGE_LANE_FENCED, lanes[i][0]);
		say_lane(&impostor, MESSAGE_LANE_FENCED, lanes[i][1]);
		assert_source_refuses(&impostor, &pair, "LANE_FENCED");
	}
}

static void test_a_fence_without_a_loss(void **unused)
{
	struct impostor impostor;
	struct pair pair;

	(void)unused;
	source_init(&pair, &impostor);
	let_in(&impostor, &pair, 1);
	free(hear(&impostor, MESSAGE_REGISTER)); /* so it has connected */
	say_lane(&impostor, MESSAGE_LANE_FENCED, 0);
	assert_source_refuses(&impostor, &pair, "LANE_FENCED");
}

/* It lives, answers every PING, and never fences. */
static void test_a_fence_that_does_not_come(void **unused)
{
	struct impostor impostor;
	struct pair pair;

	(void)unused;
	lose_lane(&impostor, &pair);
	pthread_join(pair.thread, NULL);
	assert_int_equal(pair.destination_ret, -ETIMEDOUT); /* of the source's thread here */
	assert_non_null(strstr(pair.source_error.text, "that lane 1, which was lost"));
	assert_non_null(strstr(pair.source_error.text, "as it was told to"));
	ramlift_source_stats(pair.source, &pair.source_stats);
	pair_assert_stayed(&pair);
	impostor_fini(&impostor);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_destination_with_other_rails),
		cmocka_unit_test(test_keys_that_nobody_asked_for),
		cmocka_unit_test(test_a_key_twice),
		cmocka_unit_test(test_a_lane_is_fenced_that_nobody_lost),
		cmocka_unit_test(test_a_fence_without_a_loss),
		cmocka_unit_test(test_a_fence_that_does_not_come),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
