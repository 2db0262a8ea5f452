/* SPDX-License-Identifier: Apache-2.0 */
/* A destination whose source asks for slices that make no sense, and a source whose destination
 * announces some: the other side is played by this test, message by message. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/address.h"
#include "core/channel.h"
#include "core/source.h"
#include "session_pair.h"
#include "tests/support/cmocka_all.h"

#define LONG_NS	    (clock_now_ns() + 60 * NS_PER_S) /* against hangs only */
#define SLICE_BYTES (1ull << 20)
#define N_SLICES    6u
#define JOURNAL_US  100000u

/* The side that this test plays. */
struct impostor {
	struct channel *channel;
	struct endpoint *endpoint;
	struct slice slices[N_SLICES];
	char *memory;
	struct transport_params params;
};

static void impostor_init(struct impostor *impostor)
{
	memset(impostor, 0, sizeof(*impostor));
	impostor->memory = calloc(N_SLICES, SLICE_BYTES);
	assert_non_null(impostor->memory);
	for (unsigned i = 0; i < N_SLICES; i++)
		impostor->slices[i] =
			(struct slice){ impostor->memory + i * SLICE_BYTES, SLICE_BYTES };
	impostor->params = (struct transport_params){ .n_rails = 1,
						      .n_lanes = 1,
						      .slices = impostor->slices,
						      .n_slices = N_SLICES,
						      .interrupt_fd = -1,
						      .io_timeout_ns = 60 * NS_PER_S };
}

static void impostor_fini(struct impostor *impostor)
{
	channel_close(impostor->channel);
	memory_transport()->close(impostor->endpoint);
	free(impostor->memory);
}

/* host: of the destination; NULL: this is it. */
static void open_channel(struct impostor *impostor, int fd, const char *host)
{
	const struct ramlift_security config = { 0 };
	struct ramlift_error error = { 0 };
	struct security *security;
	struct stream *stream;
	int ret;

	assert_int_equal(security_new(&config, &security, NULL), 0);
	ret = host ? stream_connect(fd, security, host, LONG_NS, -1, &stream, &error)
		   : stream_accept(fd, security, LONG_NS, -1, &stream, &error);
	if (ret)
		fail_msg("%s", error.text);
	security_free(security);
	assert_int_equal(channel_open(stream, 4 * NS_PER_S, &impostor->channel, NULL), 0);
}

static void say(struct impostor *impostor, enum message_type type, void *payload, uint32_t length)
{
	/* The other side may have closed already, which is what is hoped for. */
	channel_send_owned(impostor->channel, type, payload, length, NULL);
}

static void say_register(struct impostor *impostor, uint32_t slice, unsigned rails)
{
	struct register_message message = { .slice = slice, .rails = rails };
	uint32_t length;
	void *payload = register_encode(&message, &length);

	say(impostor, MESSAGE_REGISTER, payload, length);
}

static void say_retire(struct impostor *impostor, uint32_t slice)
{
	struct retire_message message = { .slice = slice };
	uint32_t length;
	void *payload = retire_encode(&message, &length);

	say(impostor, MESSAGE_RETIRE, payload, length);
}

static void say_slice_key(struct impostor *impostor, uint32_t slice)
{
	struct slice_key_message message = { .slice = slice };
	uint32_t length;
	void *payload = slice_key_encode(&message, &length);

	say(impostor, MESSAGE_SLICE_KEY, payload, length);
}

static struct message *hear(struct impostor *impostor, enum message_type type)
{
	struct ramlift_error error = { 0 };
	struct message *message;

	if (channel_receive(impostor->channel, LONG_NS, -1, &message, &error))
		fail_msg("%s", error.text);
	assert_int_equal(message->type, type);
	return message;
}

/* ---- the source is hostile ---- */

static void offer(struct impostor *impostor, uint8_t n_rails, uint16_t n_lanes)
{
	struct offer message = { .generation = 1,
				 .n_rails = n_rails,
				 .n_lanes = n_lanes,
				 .slice_bytes = SLICE_BYTES,
				 .name = "victim",
				 .n_transports = 1,
				 .transports = { "memory" },
				 .n_regions = 2 };
	uint32_t length;
	void *payload;

	memset(message.session_id, 0x5a, SESSION_ID_BYTES);
	memset(impostor->params.session_id, 0x5a, SESSION_ID_BYTES);
	for (unsigned i = 0; i < 2; i++)
		message.regions[i] =
			(struct ramlift_region){ .gpa = (uint64_t)i << 32,
						 .size_bytes = N_SLICES / 2 * SLICE_BYTES,
						 .page_size_bytes = 4096,
						 .numa_node = -1 };
	payload = offer_encode(&message, &length);
	say(impostor, MESSAGE_OFFER, payload, length);
}

/* Up to the phase in which slices are asked for. */
static void come_in(struct impostor *impostor, const struct pair *pair, uint8_t n_rails)
{
	const struct sockaddr_storage nowhere[RAMLIFT_MAX_RAILS] = { 0 };
	struct address address;
	struct message *message;
	struct accept accept;
	int fd;

	assert_int_equal(address_parse(pair->to, 0, &address, NULL), 0);
	assert_int_equal(address_connect(&address, LONG_NS, -1, &fd, NULL), 0);
	open_channel(impostor, fd, "127.0.0.1");
	offer(impostor, n_rails, n_rails);
	message = hear(impostor, MESSAGE_ACCEPT);
	assert_int_equal(accept_decode(message->payload, message->length_bytes, &accept), 0);
	assert_true(accept.journal_us > 0);
	free(message);
	impostor->params.n_rails = n_rails;
	impostor->params.n_lanes = n_rails;
	assert_int_equal(memory_transport()->connect(&impostor->params, nowhere, LONG_NS,
						     &impostor->endpoint, NULL),
			 0);
}

static void say_lane(struct impostor *impostor, enum message_type type, unsigned lane)
{
	struct lane_message message = { .lane = (uint16_t)lane };
	uint32_t length;
	void *payload = lane_message_encode(&message, &length);

	say(impostor, type, payload, length);
}

/* FINAL with a token for each lane whose bit is set. */
static void say_final(struct impostor *impostor, unsigned n_lanes, unsigned tokens)
{
	struct final message = { .n_lanes = n_lanes };
	uint32_t length;
	void *payload;

	for (unsigned i = 0; i < n_lanes; i++)
		message.tokens[i] = tokens >> i & 1;
	payload = final_encode(&message, &length);
	say(impostor, MESSAGE_FINAL, payload, length);
}

enum act {
	END,
	REGISTER,
	RETIRE,
	HEAR_KEY,
	REGISTER_CUT,
	REGISTER_LONG,
	RETIRE_CUT,
	LOSE, /* a lane, in the place of the slice */
	LOSE_CUT,
	HEAR_FENCED,
	FINISH, /* a number of lanes, and their tokens */
};

struct step {
	enum act act;
	uint32_t slice;
	unsigned rails;
};

static const struct hostile_source {
	const char *what;
	uint8_t n_rails;
	struct step steps[8];
	const char *words;
} hostile_sources[] = {
	{ "slice out of range", 1, { { REGISTER, N_SLICES, 1 } }, "REGISTER" },
	{ "slice far out of range", 1, { { REGISTER, UINT32_MAX, 1 } }, "REGISTER" },
	{ "no rail", 1, { { REGISTER, 0, 0 } }, "REGISTER" },
	{ "a rail beyond", 1, { { REGISTER, 0, 2 } }, "REGISTER" },
	{ "a rail and one beyond", 2, { { REGISTER, 0, 5 } }, "REGISTER" },
	{ "twice at once", 1, { { REGISTER, 3, 1 }, { REGISTER, 3, 1 } }, "REGISTER" },
	{ "twice", 1, { { REGISTER, 3, 1 }, { HEAR_KEY, 3, 0 }, { REGISTER, 3, 1 } }, "REGISTER" },
	{ "too short", 1, { { REGISTER_CUT, 0, 1 } }, "REGISTER" },
	{ "too long", 1, { { REGISTER_LONG, 0, 1 } }, "REGISTER" },
	{ "retire what is not there", 1, { { RETIRE, 0, 0 } }, "RETIRE" },
	{ "retire out of range", 1, { { RETIRE, N_SLICES, 0 } }, "RETIRE" },
	{ "retire far out of range", 1, { { RETIRE, UINT32_MAX, 0 } }, "RETIRE" },
	{ "retire twice",
	  1,
	  { { REGISTER, 5, 1 }, { HEAR_KEY, 5, 0 }, { RETIRE, 5, 0 }, { RETIRE, 5, 0 } },
	  "RETIRE" },
	{ "retire too short",
	  1,
	  { { REGISTER, 5, 1 }, { HEAR_KEY, 5, 0 }, { RETIRE_CUT, 5, 0 } },
	  "RETIRE" },
	{ "lose a lane that is none", 2, { { LOSE, 2, 0 } }, "LANE_LOST" },
	{ "lose one far out of range", 2, { { LOSE, UINT16_MAX, 0 } }, "LANE_LOST" },
	{ "lose too short", 2, { { LOSE_CUT, 0, 0 } }, "LANE_LOST" },
	{ "lose a lane twice at once", 2, { { LOSE, 1, 0 }, { LOSE, 1, 0 } }, "LANE_LOST" },
	{ "lose a lane twice",
	  2,
	  { { LOSE, 0, 0 }, { HEAR_FENCED, 0, 0 }, { LOSE, 0, 0 } },
	  "LANE_LOST" },
	{ "a token too few", 2, { { FINISH, 1, 1 } }, "FINAL" },
	{ "a token too many", 2, { { FINISH, 3, 7 } }, "FINAL" },
	{ "no token for a lane that was not lost", 2, { { FINISH, 2, 1 } }, "FINAL" },
	{ "no token at all", 2, { { FINISH, 2, 0 } }, "FINAL" },
	{ "a token for a lane that was lost",
	  2,
	  { { LOSE, 1, 0 }, { HEAR_FENCED, 1, 0 }, { FINISH, 2, 3 } },
	  "FINAL" },
	{ "no token for the other lane",
	  2,
	  { { LOSE, 1, 0 }, { HEAR_FENCED, 1, 0 }, { FINISH, 2, 2 } },
	  "FINAL" },
	{ "after much that is right",
	  2,
	  { { REGISTER, 0, 3 },
	    { HEAR_KEY, 0, 0 },
	    { RETIRE, 0, 0 },
	    { REGISTER, 0, 1 },
	    { HEAR_KEY, 0, 0 },
	    { RETIRE, 1, 0 } },
	  "RETIRE" },
};

static void take_step(struct impostor *impostor, const struct step *step)
{
	struct slice_key_message key;
	struct lane_message fenced;
	struct message *message;

	switch (step->act) {
	case REGISTER:
		say_register(impostor, step->slice, step->rails);
		break;
	case RETIRE:
		say_retire(impostor, step->slice);
		break;
	case HEAR_KEY:
		message = hear(impostor, MESSAGE_SLICE_KEY);
		assert_int_equal(slice_key_decode(message->payload, message->length_bytes, &key),
				 0);
		assert_int_equal(key.slice, step->slice);
		free(message);
		break;
	case REGISTER_CUT:
		say(impostor, MESSAGE_REGISTER, calloc(1, 4), 4);
		break;
	case REGISTER_LONG:
		say(impostor, MESSAGE_REGISTER, calloc(1, 6), 6);
		break;
	case RETIRE_CUT:
		say(impostor, MESSAGE_RETIRE, calloc(1, 3), 3);
		break;
	case LOSE:
		if (step->slice < impostor->params.n_lanes)
			memory_transport()->drop_lane(impostor->endpoint, step->slice);
		say_lane(impostor, MESSAGE_LANE_LOST, step->slice);
		break;
	case LOSE_CUT:
		say(impostor, MESSAGE_LANE_LOST, calloc(1, 1), 1);
		break;
	case HEAR_FENCED:
		message = hear(impostor, MESSAGE_LANE_FENCED);
		assert_int_equal(
			lane_message_decode(message->payload, message->length_bytes, &fenced), 0);
		assert_int_equal(fenced.lane, step->slice);
		free(message);
		break;
	case FINISH:
		say_final(impostor, step->slice, step->rails);
		break;
	case END:
		break;
	}
}

static const char *const names[] = { "memory0", "memory1" };

static void play_source(const struct hostile_source *hostile)
{
	struct impostor impostor;
	struct pair pair;

	pair_init(&pair, memory_transport_with_rails());
	if (hostile->n_rails > 1) {
		pair.destination_config.rails = names;
		pair.destination_config.n_rails = hostile->n_rails;
	}
	impostor_init(&impostor);
	pair_start(&pair);
	come_in(&impostor, &pair, hostile->n_rails);
	for (unsigned i = 0; i < 8 && hostile->steps[i].act != END; i++)
		take_step(&impostor, &hostile->steps[i]);
	pair_join(&pair);
	if (pair.destination_ret != -EPROTO || !strstr(pair.destination_error.text, hostile->words))
		fail_msg("%s: %d, '%s'", hostile->what, pair.destination_ret,
			 pair.destination_error.text);
	assert_false(pair.destination_guest.created);
	assert_int_equal(pair.destination_guest.resumes, 0);
	impostor_fini(&impostor);
	pair_fini(&pair);
}

static void test_a_source_that_asks_for_nonsense(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof(hostile_sources) / sizeof(hostile_sources[0]); i++)
		play_source(&hostile_sources[i]);
}

/* ---- the destination is hostile ---- */

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
		cmocka_unit_test(test_a_source_that_asks_for_nonsense),
		cmocka_unit_test(test_a_destination_with_other_rails),
		cmocka_unit_test(test_keys_that_nobody_asked_for),
		cmocka_unit_test(test_a_key_twice),
		cmocka_unit_test(test_a_lane_is_fenced_that_nobody_lost),
		cmocka_unit_test(test_a_fence_without_a_loss),
		cmocka_unit_test(test_a_fence_that_does_not_come),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
