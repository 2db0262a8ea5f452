/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte picks a decoder, the rest is its payload. What decodes must be within the bounds
 * that wire.h promises, and encoding it must give the same bytes again.
 */
#include <errno.h>

#include "core/wire.h"
#include "tests/fuzz/fuzz.h"

static void check_text(const char *text, size_t size)
{
	size_t length = strnlen(text, size);

	CHECK(length < size);
	for (size_t i = 0; i < length; i++)
		CHECK(text[i] >= ' ' && text[i] <= '~');
}

static void check_blob(const void *blob, uint32_t blob_bytes, uint32_t max_bytes,
		       const uint8_t *payload, size_t size)
{
	CHECK(blob_bytes <= max_bytes);
	CHECK((const uint8_t *)blob >= payload);
	CHECK((const uint8_t *)blob + blob_bytes <= payload + size);
}

static void check_again(void *again, uint32_t again_bytes, const uint8_t *payload, size_t size)
{
	CHECK(again);
	CHECK(again_bytes == size);
	CHECK(!memcmp(again, payload, size));
	free(again);
}

static void fuzz_header(const uint8_t *data, size_t size)
{
	struct wire_header header = { 0 };
	uint8_t again[WIRE_HEADER_BYTES];
	struct ramlift_error error = { 0 };
	int ret;

	if (size < WIRE_HEADER_BYTES)
		return;
	ret = wire_header_decode(data, &header, &error);
	if (ret) {
		CHECK(ret == -EPROTO && error.code == -EPROTO && error.text[0]);
		return;
	}
	CHECK(header.type > 0 && header.type < MESSAGE_TYPE_COUNT);
	CHECK(header.length_bytes <= WIRE_MAX_STATE_BYTES + 1024);
	wire_header_encode(&header, again);
	CHECK(!memcmp(again, data, WIRE_HEADER_BYTES));
}

static void check_offer(const struct offer *offer, const uint8_t *payload, size_t size)
{
	CHECK(offer->n_lanes && offer->n_lanes <= RAMLIFT_MAX_LANES);
	CHECK(offer->n_rails && offer->n_rails <= RAMLIFT_MAX_RAILS);
	CHECK(offer->n_lanes % offer->n_rails == 0);
	CHECK(offer->n_transports && offer->n_transports <= WIRE_MAX_TRANSPORTS);
	CHECK(offer->n_regions && offer->n_regions <= RAMLIFT_MAX_REGIONS);
	CHECK(offer->name[0]);
	check_text(offer->name, sizeof(offer->name));
	for (unsigned i = 0; i < offer->n_transports; i++)
		check_text(offer->transports[i], sizeof(offer->transports[i]));
	check_blob(offer->machine, offer->machine_bytes, WIRE_MAX_MACHINE_BYTES, payload, size);
}

static void check_accept(const struct accept *accept, const uint8_t *payload, size_t size)
{
	(void)payload;
	(void)size;
	CHECK(accept->n_rails && accept->n_rails <= RAMLIFT_MAX_RAILS);
	for (unsigned i = 0; i < accept->n_rails; i++)
		CHECK(accept->rails[i].family < RAIL_FAMILY_COUNT);
}

static void check_ask(const struct ask *ask, const uint8_t *payload, size_t size)
{
	(void)payload;
	(void)size;
	check_text(ask->name, sizeof(ask->name));
}

static void check_answer(const struct answer *answer, const uint8_t *payload, size_t size)
{
	(void)payload;
	(void)size;
	CHECK(answer->word < ANSWER_COUNT);
}

static void check_abort(const struct abort_message *message, const uint8_t *payload, size_t size)
{
	(void)payload;
	(void)size;
	CHECK(message->code < 0 && message->code >= -4095);
	check_text(message->text, sizeof(message->text));
}

static void check_final(const struct final *final, const uint8_t *payload, size_t size)
{
	CHECK(final->n_lanes && final->n_lanes <= RAMLIFT_MAX_LANES);
	check_blob(final->state, final->state_bytes, WIRE_MAX_STATE_BYTES, payload, size);
}

static void check_stream_piece(const struct stream_piece *piece, const uint8_t *payload,
			       size_t size)
{
	CHECK(piece->stream < WIRE_MAX_STREAMS);
	check_blob(piece->bytes, piece->n_bytes, WIRE_MAX_STREAM_BYTES, payload, size);
}

#define nothing_to_check(value, payload, size) (void)(value)

#define FUZZ(name, type, check)                                                                    \
	static void fuzz_##name(const uint8_t *data, size_t size)                                  \
	{                                                                                          \
		uint32_t again_bytes = 0;                                                          \
		void *again;                                                                       \
		type value;                                                                        \
		int ret = name##_decode(data, (uint32_t)size, &value);                             \
                                                                                                   \
		CHECK(!ret || ret == -EPROTO);                                                     \
		if (ret)                                                                           \
			return;                                                                    \
		check(&value, data, size);                                                         \
		again = name##_encode(&value, &again_bytes);                                       \
		check_again(again, again_bytes, data, size);                                       \
	}
FUZZ(offer, struct offer, check_offer)
FUZZ(accept, struct accept, check_accept)
FUZZ(slice_key, struct slice_key_message, nothing_to_check)
FUZZ(register, struct register_message, nothing_to_check)
FUZZ(retire, struct retire_message, nothing_to_check)
FUZZ(abort, struct abort_message, check_abort)
FUZZ(final, struct final, check_final)
FUZZ(prepared, struct prepared, nothing_to_check)
FUZZ(commit, struct commit, nothing_to_check)
FUZZ(started, struct started, nothing_to_check)
FUZZ(stream_piece, struct stream_piece, check_stream_piece)
FUZZ(lane_message, struct lane_message, nothing_to_check)
FUZZ(ask, struct ask, check_ask)
FUZZ(answer, struct answer, check_answer)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const decoders[])(const uint8_t *data, size_t size) = {
		fuzz_header,   fuzz_offer,    fuzz_accept,	 fuzz_slice_key, fuzz_abort,
		fuzz_final,    fuzz_prepared, fuzz_commit,	 fuzz_started,	 fuzz_stream_piece,
		fuzz_register, fuzz_retire,   fuzz_lane_message, fuzz_ask,	 fuzz_answer,
	};
	uint8_t *payload;

	if (!size)
		return 0;
	payload = malloc(size - 1 ? size - 1 : 1); /* of its own: bounds are bounds */
	CHECK(payload);
	memcpy(payload, data + 1, size - 1);
	decoders[data[0] % (sizeof(decoders) / sizeof(decoders[0]))](payload, size - 1);
	free(payload);
	return 0;
}
