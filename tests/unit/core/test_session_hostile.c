/* SPDX-License-Identifier: Apache-2.0 */
/* A destination whose source asks for slices that make no sense, or ends with lanes that it has
 * not. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/address.h"
#include "impostor.h"
#include "tests/support/cmocka_all.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_source_that_asks_for_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
