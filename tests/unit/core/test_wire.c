/* SPDX-License-Identifier: Apache-2.0 */
/* Each message there and back, cut short at every byte, changed at every byte, and with bytes left
 * over. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/wire.h"
#include "tests/support/cmocka_all.h"

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

/* Any message, decoded. */
union value {
	struct offer offer;
	struct accept accept;
	struct slice_key_message slice_key;
	struct register_message registering;
	struct retire_message retire;
	struct abort_message abort;
	struct final final;
	struct prepared prepared;
	struct commit commit;
	struct started started;
	struct stream_piece stream_piece;
	struct lane_message lane;
	struct ask ask;
	struct answer answer;
};

struct codec {
	enum message_type type;
	void *(*encode)(const union value *value, uint32_t *length_bytes);
	int (*decode)(const void *payload, uint32_t length_bytes, union value *value);
	void (*check)(const union value *value, const uint8_t *payload, uint32_t length_bytes);
};

#define WRAP(name) WRAP_AS(name, name)
#define WRAP_AS(field, name)                                                                       \
	static void *wrap_##name##_encode(const union value *value, uint32_t *length_bytes)        \
	{                                                                                          \
		return name##_encode(&value->field, length_bytes);                                 \
	}                                                                                          \
	static int wrap_##name##_decode(const void *payload, uint32_t length_bytes,                \
					union value *value)                                        \
	{                                                                                          \
		return name##_decode(payload, length_bytes, &value->field);                        \
	}
WRAP(offer)
WRAP(accept)
WRAP(slice_key)
WRAP_AS(registering, register)
WRAP(retire)
WRAP(abort)
WRAP(final)
WRAP(prepared)
WRAP(commit)
WRAP(started)
WRAP(stream_piece)
WRAP_AS(lane, lane_message)
WRAP(ask)
WRAP(answer)

static void check_text(const char *text, size_t size)
{
	size_t length = strnlen(text, size);

	assert_true(length < size);
	for (size_t i = 0; i < length; i++)
		assert_in_range((unsigned char)text[i], ' ', '~');
}

static void check_blob(const void *blob, uint32_t blob_bytes, uint32_t max_bytes,
		       const uint8_t *payload, uint32_t length_bytes)
{
	assert_true(blob_bytes <= max_bytes);
	assert_true((const uint8_t *)blob >= payload);
	assert_true((const uint8_t *)blob + blob_bytes <= payload + length_bytes);
}

static void check_offer(const union value *value, const uint8_t *payload, uint32_t length_bytes)
{
	const struct offer *offer = &value->offer;

	assert_in_range(offer->n_lanes, 1, RAMLIFT_MAX_LANES);
	assert_in_range(offer->n_transports, 1, WIRE_MAX_TRANSPORTS);
	assert_in_range(offer->n_regions, 1, RAMLIFT_MAX_REGIONS);
	check_text(offer->name, sizeof(offer->name));
	assert_true(offer->name[0]);
	for (unsigned i = 0; i < offer->n_transports; i++)
		check_text(offer->transports[i], sizeof(offer->transports[i]));
	for (unsigned i = 0; i < offer->n_regions; i++) {
		assert_null(offer->regions[i].hva);
		assert_int_equal(offer->regions[i].memfd, -1);
	}
	check_blob(offer->machine, offer->machine_bytes, WIRE_MAX_MACHINE_BYTES, payload,
		   length_bytes);
}

static void check_abort(const union value *value, const uint8_t *payload, uint32_t length_bytes)
{
	(void)payload;
	(void)length_bytes;
	assert_in_range(-value->abort.code, 1, 4095);
	check_text(value->abort.text, sizeof(value->abort.text));
}

static void check_final(const union value *value, const uint8_t *payload, uint32_t length_bytes)
{
	assert_in_range(value->final.n_lanes, 1, RAMLIFT_MAX_LANES);
	check_blob(value->final.state, value->final.state_bytes, WIRE_MAX_STATE_BYTES, payload,
		   length_bytes);
}

static void check_stream_piece(const union value *value, const uint8_t *payload,
			       uint32_t length_bytes)
{
	assert_true(value->stream_piece.stream < WIRE_MAX_STREAMS);
	check_blob(value->stream_piece.bytes, value->stream_piece.n_bytes, WIRE_MAX_STREAM_BYTES,
		   payload, length_bytes);
}

static void check_ask(const union value *value, const uint8_t *payload, uint32_t length_bytes)
{
	(void)payload;
	(void)length_bytes;
	check_text(value->ask.name, sizeof(value->ask.name));
}

static void check_answer(const union value *value, const uint8_t *payload, uint32_t length_bytes)
{
	(void)payload;
	(void)length_bytes;
	assert_in_range(value->answer.word, 0, ANSWER_COUNT - 1);
}

#define CODEC(TYPE, name, check)                                                                   \
	{                                                                                          \
		MESSAGE_##TYPE, wrap_##name##_encode, wrap_##name##_decode, check                  \
	}
static const struct codec codecs[] = {
	CODEC(OFFER, offer, check_offer),
	CODEC(ACCEPT, accept, NULL),
	CODEC(SLICE_KEY, slice_key, NULL),
	CODEC(ABORT, abort, check_abort),
	CODEC(FINAL, final, check_final),
	CODEC(PREPARED, prepared, NULL),
	CODEC(COMMIT, commit, NULL),
	CODEC(STARTED, started, NULL),
	CODEC(STREAM, stream_piece, check_stream_piece),
	CODEC(REGISTER, register, NULL),
	CODEC(RETIRE, retire, NULL),
	CODEC(LANE_LOST, lane_message, NULL),
	CODEC(LANE_FENCED, lane_message, NULL),
	CODEC(ASK, ask, check_ask),
	CODEC(ANSWER, answer, check_answer),
};

/* ---- samples: the least and the most that each message can be ---- */

static uint8_t blob[WIRE_MAX_STATE_BYTES];

static void fill_text(char *text, size_t size)
{
	for (size_t i = 0; i + 1 < size; i++)
		text[i] = (char)(' ' + i % ('~' - ' ' + 1));
	text[size - 1] = '\0';
}

static void sample_offer(union value *value, bool most)
{
	struct offer *offer = &value->offer;

	memset(offer->session_id, most ? 0xff : 0, sizeof(offer->session_id));
	offer->generation = most ? UINT32_MAX : 0;
	offer->verify = most;
	offer->n_rails = most ? RAMLIFT_MAX_RAILS : 1;
	offer->n_lanes = most ? RAMLIFT_MAX_LANES : 1;
	offer->slice_bytes = most ? UINT64_MAX : 0;
	offer->pin_budget_bytes = most ? UINT64_MAX - 1 : 0;
	fill_text(offer->name, most ? sizeof(offer->name) : 2);
	offer->n_transports = most ? WIRE_MAX_TRANSPORTS : 1;
	for (unsigned i = 0; i < offer->n_transports; i++)
		fill_text(offer->transports[i], most ? sizeof(offer->transports[i]) : 1);
	offer->n_regions = most ? RAMLIFT_MAX_REGIONS : 1;
	for (unsigned i = 0; i < offer->n_regions; i++) {
		offer->regions[i].gpa = most ? UINT64_MAX - i : 0;
		offer->regions[i].size_bytes = most ? UINT64_MAX - 2 * i : 0;
		offer->regions[i].page_size_bytes = most ? UINT64_MAX - 3 * i : 0;
		offer->regions[i].numa_node = most ? WIRE_MAX_NUMA_NODES - 1 : -1;
	}
	offer->machine = blob;
	offer->machine_bytes = most ? WIRE_MAX_MACHINE_BYTES : 0;
}

static void sample(enum message_type type, bool most, union value *value)
{
	uint64_t number = most ? UINT64_MAX : 0;

	memset(value, 0, sizeof(*value));
	switch (type) {
	case MESSAGE_OFFER:
		sample_offer(value, most);
		break;
	case MESSAGE_ACCEPT:
		value->accept.transport = (uint8_t)number;
		value->accept.fresh = most;
		value->accept.journal_us = (uint32_t)number;
		value->accept.n_rails = most ? RAMLIFT_MAX_RAILS : 1;
		for (unsigned i = 0; i < value->accept.n_rails; i++) {
			struct rail_address *rail = &value->accept.rails[i];

			rail->family = most ? RAIL_FAMILY_INET6 : RAIL_FAMILY_CONTROL;
			memset(rail->bytes, most ? 0xff : 0, sizeof(rail->bytes));
			rail->port = (uint16_t)number;
		}
		break;
	case MESSAGE_SLICE_KEY:
		value->slice_key.slice = (uint32_t)number;
		value->slice_key.key.address = number;
		for (unsigned i = 0; i < RAMLIFT_MAX_RAILS; i++)
			value->slice_key.key.rkeys[i] = (uint32_t)number;
		break;
	case MESSAGE_REGISTER:
		value->registering = (struct register_message){ (uint32_t)number, (uint8_t)number };
		break;
	case MESSAGE_RETIRE:
		value->retire.slice = (uint32_t)number;
		break;
	case MESSAGE_ABORT:
		value->abort.code = most ? -4095 : -1;
		fill_text(value->abort.text, most ? sizeof(value->abort.text) : 1);
		break;
	case MESSAGE_FINAL:
		value->final = (struct final){ .verify = most,
					       .digest = number,
					       .n_lanes = most ? RAMLIFT_MAX_LANES : 1,
					       .state = blob,
					       .state_bytes = most ? WIRE_MAX_STATE_BYTES : 0 };
		for (unsigned i = 0; i < value->final.n_lanes; i++)
			value->final.tokens[i] = number - i;
		break;
	case MESSAGE_PREPARED:
		value->prepared = (struct prepared){ number, number, number, number };
		break;
	case MESSAGE_COMMIT:
		memset(value->commit.session_id, most ? 0xff : 0, SESSION_ID_BYTES);
		value->commit.generation = (uint32_t)number;
		break;
	case MESSAGE_STREAM:
		value->stream_piece = (struct stream_piece){ most ? WIRE_MAX_STREAMS - 1 : 0, blob,
							     most ? WIRE_MAX_STREAM_BYTES : 0 };
		break;
	case MESSAGE_LANE_LOST:
	case MESSAGE_LANE_FENCED:
		value->lane.lane = (uint16_t)number;
		break;
	case MESSAGE_ASK:
		memset(value->ask.session_id, most ? 0xff : 0, SESSION_ID_BYTES);
		value->ask.generation = (uint32_t)number;
		fill_text(value->ask.name, most ? sizeof(value->ask.name) : 2);
		break;
	case MESSAGE_ANSWER:
		value->answer.word = most ? ANSWER_COUNT - 1 : 0;
		break;
	default:
		value->started.start_ns = number;
	}
}

/* In memory of exactly that size, so that a read behind its end is seen. */
static uint8_t *copy_of(const void *bytes, uint32_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	assert_non_null(copy);
	memcpy(copy, bytes, n);
	return copy;
}

/* What decodes must keep to the bounds and be what those bytes, and no others, say. */
static bool decodes(const struct codec *codec, const void *bytes, uint32_t n)
{
	uint8_t *payload = copy_of(bytes, n);
	union value value;
	uint32_t again_bytes;
	void *again;
	int ret;

	memset(&value, 0x5a, sizeof(value));
	ret = codec->decode(payload, n, &value);
	if (!ret) {
		if (codec->check)
			codec->check(&value, payload, n);
		again = codec->encode(&value, &again_bytes);
		assert_non_null(again);
		assert_int_equal(again_bytes, n);
		assert_memory_equal(again, payload, n);
		free(again);
	} else {
		assert_int_equal(ret, -EPROTO);
	}
	free(payload);
	return !ret;
}

static void test_there_and_back(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < 2 * N_OF(codecs); i++) {
		const struct codec *codec = &codecs[i / 2];
		struct wire_header header = { .type = codec->type };
		uint8_t bytes[WIRE_HEADER_BYTES];
		union value value;
		void *payload;

		sample(codec->type, i % 2, &value);
		payload = codec->encode(&value, &header.length_bytes);
		assert_non_null(payload);
		assert_true(decodes(codec, payload, header.length_bytes));
		free(payload);
		/* The largest of each type gets through the header's bound. */
		wire_header_encode(&header, bytes);
		assert_int_equal(wire_header_decode(bytes, &header, NULL), 0);
	}
}

/* A middle-sized message: some of everything. */
static void *middle(const struct codec *codec, uint32_t *length)
{
	union value value;
	void *payload;

	sample(codec->type, true, &value);
	if (codec->type == MESSAGE_OFFER) {
		value.offer.n_regions = 3;
		value.offer.machine_bytes = 40;
	} else if (codec->type == MESSAGE_FINAL) {
		value.final.state_bytes = 40;
	} else if (codec->type == MESSAGE_STREAM) {
		value.stream_piece.n_bytes = 40;
	}
	payload = codec->encode(&value, length);
	assert_non_null(payload);
	return payload;
}

static void test_every_truncation_is_refused(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < N_OF(codecs); i++) {
		uint32_t length;
		void *payload = middle(&codecs[i], &length);

		for (uint32_t n = 0; n < length; n++)
			assert_false(decodes(&codecs[i], payload, n));
		assert_true(decodes(&codecs[i], payload, length));
		free(payload);
	}
}

static void test_bytes_left_over_are_refused(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < N_OF(codecs); i++) {
		uint32_t length;
		void *payload = middle(&codecs[i], &length);
		uint8_t *longer = calloc(1, length + 100);

		assert_non_null(longer);
		memcpy(longer, payload, length);
		for (uint32_t n = 1; n <= 100; n++)
			assert_false(decodes(&codecs[i], longer, length + n));
		free(longer);
		free(payload);
	}
}

static void test_every_byte_changed_stays_in_bounds(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < N_OF(codecs); i++) {
		uint32_t length;
		uint8_t *payload = middle(&codecs[i], &length);

		for (uint32_t at = 0; at < length; at++) {
			uint8_t right = payload[at];

			for (unsigned value = 0; value < 256; value++) {
				payload[at] = (uint8_t)value;
				decodes(&codecs[i], payload, length);
			}
			payload[at] = right;
		}
		free(payload);
	}
}

/* The values next to each bound, one at a time. */
static void test_bounds_of_an_offer(void **unused)
{
	enum { RAILS = 21, LANES = 22, SLICE_BYTES = 24, NAME = 40, TRANSPORTS = 43 };
	struct offer offer = {
		.n_rails = 1, .n_lanes = 1, .name = "a", .n_transports = 1, .n_regions = 1
	};
	const struct codec *codec = &codecs[0];
	uint8_t *payload;
	uint32_t length;

	(void)unused;
	payload = offer_encode(&offer, &length);
	assert_true(decodes(codec, payload, length));
	payload[LANES + 1] = RAMLIFT_MAX_LANES;
	assert_true(decodes(codec, payload, length));
	payload[LANES + 1] = RAMLIFT_MAX_LANES + 1;
	assert_false(decodes(codec, payload, length));
	payload[LANES + 1] = 0;
	assert_false(decodes(codec, payload, length));
	payload[LANES] = 1;
	assert_false(decodes(codec, payload, length));
	payload[LANES] = 0;
	payload[LANES + 1] = 3;
	payload[RAILS] = 2; /* lanes must divide evenly */
	assert_false(decodes(codec, payload, length));
	payload[LANES + 1] = 4;
	assert_true(decodes(codec, payload, length));
	payload[LANES + 1] = 36;
	payload[RAILS] = RAMLIFT_MAX_RAILS + 1;
	assert_false(decodes(codec, payload, length));
	payload[RAILS] = 0;
	assert_false(decodes(codec, payload, length));
	payload[RAILS] = 1;
	payload[LANES + 1] = 1;
	payload[NAME + 2] = 0x7f;
	assert_false(decodes(codec, payload, length));
	payload[NAME + 2] = '\n';
	assert_false(decodes(codec, payload, length));
	payload[NAME + 2] = 0;
	assert_false(decodes(codec, payload, length));
	payload[NAME + 2] = 'b';
	payload[TRANSPORTS] = 0;
	assert_false(decodes(codec, payload, length));
	payload[TRANSPORTS] = WIRE_MAX_TRANSPORTS + 1;
	assert_false(decodes(codec, payload, length));
	free(payload);

	/* Each of the counts one above what there may be, with all the bytes that go with it. */
	offer.n_regions = RAMLIFT_MAX_REGIONS;
	offer.machine = blob;
	offer.machine_bytes = WIRE_MAX_MACHINE_BYTES + 1;
	payload = offer_encode(&offer, &length);
	assert_false(decodes(codec, payload, length));
	free(payload);
	offer.machine_bytes = 0;
	offer.name[0] = '\0';
	payload = offer_encode(&offer, &length);
	assert_false(decodes(codec, payload, length));
	free(payload);
}

static void test_bounds_of_an_abort(void **unused)
{
	static const struct {
		uint8_t code[4];
		bool right;
	} rows[] = {
		{ { 0, 0, 0, 0 }, false },	{ { 0, 0, 0, 1 }, true },
		{ { 0, 0, 0x0f, 0xff }, true }, { { 0, 0, 0x10, 0 }, false },
		{ { 0x80, 0, 0, 0 }, false },	{ { 0xff, 0xff, 0xff, 0xff }, false },
	};
	uint8_t bytes[4 + 2 + 480] = { 0 };

	(void)unused;
	for (size_t i = 0; i < N_OF(rows); i++) {
		memcpy(bytes, rows[i].code, 4);
		assert_int_equal(decodes(&codecs[3], bytes, 6), rows[i].right);
	}
	memset(bytes, 'x', sizeof(bytes));
	memcpy(bytes, "\0\0\0\1\x01\xdf", 6); /* 479 characters: all that fit */
	assert_true(decodes(&codecs[3], bytes, sizeof(bytes) - 1));
	bytes[5] = 0xe0;
	assert_false(decodes(&codecs[3], bytes, sizeof(bytes)));
}

/* The longest payload that the header of a type allows. */
static uint32_t longest(enum message_type type)
{
	uint64_t low = 0, high = UINT32_MAX;

	while (low < high) {
		struct wire_header header = { type, (uint32_t)((low + high + 1) / 2) };
		uint8_t bytes[WIRE_HEADER_BYTES];

		wire_header_encode(&header, bytes);
		if (wire_header_decode(bytes, &header, NULL))
			high = header.length_bytes - 1;
		else
			low = header.length_bytes;
	}
	return (uint32_t)low;
}

static void test_header_bounds_the_length_by_type(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < N_OF(codecs); i++) {
		union value value;
		uint32_t length;

		sample(codecs[i].type, true, &value);
		free(codecs[i].encode(&value, &length));
		assert_true(longest(codecs[i].type) >= length);
		assert_true(longest(codecs[i].type) <= length + 4096);
	}
	assert_int_equal(longest(MESSAGE_PING), 8);
	assert_int_equal(longest(MESSAGE_PONG), 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_every_truncation_is_refused),
		cmocka_unit_test(test_bytes_left_over_are_refused),
		cmocka_unit_test(test_every_byte_changed_stays_in_bounds),
		cmocka_unit_test(test_bounds_of_an_offer),
		cmocka_unit_test(test_bounds_of_an_abort),
		cmocka_unit_test(test_header_bounds_the_length_by_type),
	};

	for (size_t i = 0; i < sizeof(blob); i++)
		blob[i] = (uint8_t)(i * 31 + i / 256);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
