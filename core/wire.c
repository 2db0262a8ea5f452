/* SPDX-License-Identifier: Apache-2.0 */
#include "core/wire.h"

#include "core/error.h"
#include "core/wire_bytes.h"

static const struct {
	const char *name;
	uint32_t max_bytes;
} messages[MESSAGE_TYPE_COUNT] = {
	[MESSAGE_OFFER] = { "OFFER", WIRE_MAX_MACHINE_BYTES + 4096 },
	[MESSAGE_ACCEPT] = { "ACCEPT", 256 },
	[MESSAGE_REGISTER] = { "REGISTER", 8 },
	[MESSAGE_RETIRE] = { "RETIRE", 8 },
	[MESSAGE_SLICE_KEY] = { "SLICE_KEY", 64 },
	[MESSAGE_ABORT] = { "ABORT", 1024 },
	[MESSAGE_PING] = { "PING", 8 },
	[MESSAGE_PONG] = { "PONG", 8 },
	[MESSAGE_FINAL] = { "FINAL", WIRE_MAX_STATE_BYTES + 1024 },
	[MESSAGE_PREPARED] = { "PREPARED", 32 },
	[MESSAGE_COMMIT] = { "COMMIT", 32 },
	[MESSAGE_STARTED] = { "STARTED", 8 },
	[MESSAGE_STREAM] = { "STREAM", WIRE_MAX_STREAM_BYTES + 8 },
	[MESSAGE_LANE_LOST] = { "LANE_LOST", 2 },
	[MESSAGE_LANE_FENCED] = { "LANE_FENCED", 2 },
	[MESSAGE_ASK] = { "ASK", 128 },
	[MESSAGE_ANSWER] = { "ANSWER", 1 },
};

const char *message_name(enum message_type type)
{
	return (unsigned)type < MESSAGE_TYPE_COUNT && messages[type].name ? messages[type].name
									  : "unknown";
}

void wire_header_encode(const struct wire_header *header, uint8_t bytes[WIRE_HEADER_BYTES])
{
	uint32_t length = htobe32(header->length_bytes);

	bytes[0] = WIRE_MAGIC;
	bytes[1] = WIRE_VERSION;
	bytes[2] = (uint8_t)header->type;
	bytes[3] = 0;
	memcpy(&bytes[4], &length, sizeof(length));
}

int wire_header_decode(const uint8_t bytes[WIRE_HEADER_BYTES], struct wire_header *header,
		       struct ramlift_error *error)
{
	unsigned type = bytes[2];
	uint32_t length;

	if (bytes[0] != WIRE_MAGIC || bytes[3])
		return error_set(error, -EPROTO,
				 "the peer does not speak Ramlift's protocol: check the port");
	if (bytes[1] != WIRE_VERSION)
		return error_set(error, -EPROTO,
				 "the peer speaks protocol version %u, this side %u: "
				 "install the same version of ramlift on both hosts",
				 bytes[1], WIRE_VERSION);
	memcpy(&length, &bytes[4], sizeof(length));
	length = be32toh(length);
	if (!type || type >= MESSAGE_TYPE_COUNT)
		return error_set(error, -EPROTO, "the peer sent a message of unknown type %u",
				 type);
	if (length > messages[type].max_bytes)
		return error_set(error, -EPROTO, "the peer sent %s with %u bytes, %u at most",
				 messages[type].name, length, messages[type].max_bytes);
	header->type = (enum message_type)type;
	header->length_bytes = length;
	return 0;
}

void *offer_encode(const struct offer *offer, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put(&writer, offer->session_id, sizeof(offer->session_id));
	put_u32(&writer, offer->generation);
	put_u8(&writer, offer->verify);
	put_u8(&writer, offer->n_rails);
	put_u16(&writer, offer->n_lanes);
	put_u64(&writer, offer->slice_bytes);
	put_u64(&writer, offer->pin_budget_bytes);
	put_string(&writer, offer->name);
	put_u8(&writer, (uint8_t)offer->n_transports);
	for (unsigned i = 0; i < offer->n_transports; i++)
		put_string(&writer, offer->transports[i]);
	put_u8(&writer, (uint8_t)offer->n_regions);
	for (unsigned i = 0; i < offer->n_regions; i++) {
		put_u64(&writer, offer->regions[i].gpa);
		put_u64(&writer, offer->regions[i].size_bytes);
		put_u64(&writer, offer->regions[i].page_size_bytes);
		put_u16(&writer, (uint16_t)offer->regions[i].numa_node);
	}
	put_u32(&writer, offer->machine_bytes);
	put(&writer, offer->machine, offer->machine_bytes);
	return finish_writing(&writer, length_bytes);
}

int offer_decode(const void *payload, uint32_t length_bytes, struct offer *offer)
{
	struct reader reader = { payload, length_bytes, false };

	memset(offer, 0, sizeof(*offer));
	get_bytes(&reader, offer->session_id, sizeof(offer->session_id));
	offer->generation = get_u32(&reader);
	offer->verify = get_bool(&reader);
	offer->n_rails = get_u8(&reader);
	offer->n_lanes = get_u16(&reader);
	offer->slice_bytes = get_u64(&reader);
	offer->pin_budget_bytes = get_u64(&reader);
	get_string(&reader, offer->name, sizeof(offer->name));
	offer->n_transports = get_u8(&reader);
	if (!offer->n_transports || offer->n_transports > WIRE_MAX_TRANSPORTS)
		return -EPROTO;
	for (unsigned i = 0; i < offer->n_transports; i++)
		get_string(&reader, offer->transports[i], sizeof(offer->transports[i]));
	offer->n_regions = get_u8(&reader);
	if (!offer->n_regions || offer->n_regions > RAMLIFT_MAX_REGIONS)
		return -EPROTO;
	for (unsigned i = 0; i < offer->n_regions; i++) {
		offer->regions[i].gpa = get_u64(&reader);
		offer->regions[i].size_bytes = get_u64(&reader);
		offer->regions[i].page_size_bytes = get_u64(&reader);
		offer->regions[i].numa_node = (int16_t)get_u16(&reader);
		offer->regions[i].memfd = -1;
		if (offer->regions[i].numa_node < -1 ||
		    offer->regions[i].numa_node >= WIRE_MAX_NUMA_NODES)
			return -EPROTO;
	}
	offer->machine = get_blob(&reader, WIRE_MAX_MACHINE_BYTES, &offer->machine_bytes);
	if (!offer->name[0] || !offer->n_lanes || offer->n_lanes > RAMLIFT_MAX_LANES ||
	    !offer->n_rails || offer->n_rails > RAMLIFT_MAX_RAILS ||
	    offer->n_lanes % offer->n_rails)
		return -EPROTO;
	return finish_reading(&reader);
}

void *accept_encode(const struct accept *accept, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u8(&writer, accept->transport);
	put_u8(&writer, accept->fresh);
	put_u32(&writer, accept->journal_us);
	put_u8(&writer, (uint8_t)accept->n_rails);
	for (unsigned i = 0; i < accept->n_rails; i++) {
		put_u8(&writer, (uint8_t)accept->rails[i].family);
		put(&writer, accept->rails[i].bytes, sizeof(accept->rails[i].bytes));
		put_u16(&writer, accept->rails[i].port);
	}
	return finish_writing(&writer, length_bytes);
}

int accept_decode(const void *payload, uint32_t length_bytes, struct accept *accept)
{
	struct reader reader = { payload, length_bytes, false };

	accept->transport = get_u8(&reader);
	accept->fresh = get_bool(&reader);
	accept->journal_us = get_u32(&reader);
	accept->n_rails = get_u8(&reader);
	if (!accept->n_rails || accept->n_rails > RAMLIFT_MAX_RAILS)
		return -EPROTO;
	for (unsigned i = 0; i < accept->n_rails; i++) {
		unsigned family = get_u8(&reader);

		if (family >= RAIL_FAMILY_COUNT)
			return -EPROTO;
		accept->rails[i].family = (enum rail_family)family;
		get_bytes(&reader, accept->rails[i].bytes, sizeof(accept->rails[i].bytes));
		accept->rails[i].port = get_u16(&reader);
	}
	return finish_reading(&reader);
}

void *register_encode(const struct register_message *message, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u32(&writer, message->slice);
	put_u8(&writer, (uint8_t)message->rails);
	return finish_writing(&writer, length_bytes);
}

int register_decode(const void *payload, uint32_t length_bytes, struct register_message *message)
{
	struct reader reader = { payload, length_bytes, false };

	message->slice = get_u32(&reader);
	message->rails = get_u8(&reader);
	return finish_reading(&reader);
}

void *retire_encode(const struct retire_message *message, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u32(&writer, message->slice);
	return finish_writing(&writer, length_bytes);
}

int retire_decode(const void *payload, uint32_t length_bytes, struct retire_message *message)
{
	struct reader reader = { payload, length_bytes, false };

	message->slice = get_u32(&reader);
	return finish_reading(&reader);
}

void *slice_key_encode(const struct slice_key_message *message, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u32(&writer, message->slice);
	put_u64(&writer, message->key.address);
	for (unsigned i = 0; i < RAMLIFT_MAX_RAILS; i++)
		put_u32(&writer, message->key.rkeys[i]);
	return finish_writing(&writer, length_bytes);
}

int slice_key_decode(const void *payload, uint32_t length_bytes, struct slice_key_message *message)
{
	struct reader reader = { payload, length_bytes, false };

	message->slice = get_u32(&reader);
	message->key.address = get_u64(&reader);
	for (unsigned i = 0; i < RAMLIFT_MAX_RAILS; i++)
		message->key.rkeys[i] = get_u32(&reader);
	return finish_reading(&reader);
}

void *abort_encode(const struct abort_message *abort, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u32(&writer, (uint32_t)-abort->code);
	put_string(&writer, abort->text);
	return finish_writing(&writer, length_bytes);
}

int abort_decode(const void *payload, uint32_t length_bytes, struct abort_message *abort)
{
	struct reader reader = { payload, length_bytes, false };
	uint32_t code = get_u32(&reader);

	get_string(&reader, abort->text, sizeof(abort->text));
	if (!code || code > 4095)
		return -EPROTO;
	abort->code = -(int)code;
	return finish_reading(&reader);
}

void *lane_message_encode(const struct lane_message *message, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u16(&writer, message->lane);
	return finish_writing(&writer, length_bytes);
}

int lane_message_decode(const void *payload, uint32_t length_bytes, struct lane_message *message)
{
	struct reader reader = { payload, length_bytes, false };

	message->lane = get_u16(&reader);
	return finish_reading(&reader);
}

void *ask_encode(const struct ask *ask, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put(&writer, ask->session_id, sizeof(ask->session_id));
	put_u32(&writer, ask->generation);
	put_string(&writer, ask->name);
	return finish_writing(&writer, length_bytes);
}

int ask_decode(const void *payload, uint32_t length_bytes, struct ask *ask)
{
	struct reader reader = { payload, length_bytes, false };

	get_bytes(&reader, ask->session_id, sizeof(ask->session_id));
	ask->generation = get_u32(&reader);
	get_string(&reader, ask->name, sizeof(ask->name));
	return finish_reading(&reader);
}

void *answer_encode(const struct answer *answer, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u8(&writer, (uint8_t)answer->word);
	return finish_writing(&writer, length_bytes);
}

int answer_decode(const void *payload, uint32_t length_bytes, struct answer *answer)
{
	struct reader reader = { payload, length_bytes, false };
	unsigned word = get_u8(&reader);

	if (word >= ANSWER_COUNT)
		return -EPROTO;
	answer->word = (enum answer_word)word;
	return finish_reading(&reader);
}

void *final_encode(const struct final *final, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u8(&writer, final->verify);
	put_u64(&writer, final->digest);
	put_u8(&writer, (uint8_t) final->n_lanes);
	for (unsigned i = 0; i < final->n_lanes; i++)
		put_u64(&writer, final->tokens[i]);
	put_u32(&writer, final->state_bytes);
	put(&writer, final->state, final->state_bytes);
	return finish_writing(&writer, length_bytes);
}

int final_decode(const void *payload, uint32_t length_bytes, struct final *final)
{
	struct reader reader = { payload, length_bytes, false };

	memset(final->tokens, 0, sizeof(final->tokens));
	final->verify = get_bool(&reader);
	final->digest = get_u64(&reader);
	final->n_lanes = get_u8(&reader);
	if (!final->n_lanes || final->n_lanes > RAMLIFT_MAX_LANES)
		return -EPROTO;
	for (unsigned i = 0; i < final->n_lanes; i++)
		final->tokens[i] = get_u64(&reader);
	final->state = get_blob(&reader, WIRE_MAX_STATE_BYTES, &final->state_bytes);
	return finish_reading(&reader);
}

void *prepared_encode(const struct prepared *prepared, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u64(&writer, prepared->digest);
	put_u64(&writer, prepared->fence_ns);
	put_u64(&writer, prepared->verify_ns);
	put_u64(&writer, prepared->load_ns);
	return finish_writing(&writer, length_bytes);
}

int prepared_decode(const void *payload, uint32_t length_bytes, struct prepared *prepared)
{
	struct reader reader = { payload, length_bytes, false };

	prepared->digest = get_u64(&reader);
	prepared->fence_ns = get_u64(&reader);
	prepared->verify_ns = get_u64(&reader);
	prepared->load_ns = get_u64(&reader);
	return finish_reading(&reader);
}

void *commit_encode(const struct commit *commit, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put(&writer, commit->session_id, sizeof(commit->session_id));
	put_u32(&writer, commit->generation);
	return finish_writing(&writer, length_bytes);
}

int commit_decode(const void *payload, uint32_t length_bytes, struct commit *commit)
{
	struct reader reader = { payload, length_bytes, false };

	get_bytes(&reader, commit->session_id, sizeof(commit->session_id));
	commit->generation = get_u32(&reader);
	return finish_reading(&reader);
}

void *started_encode(const struct started *started, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u64(&writer, started->start_ns);
	return finish_writing(&writer, length_bytes);
}

int started_decode(const void *payload, uint32_t length_bytes, struct started *started)
{
	struct reader reader = { payload, length_bytes, false };

	started->start_ns = get_u64(&reader);
	return finish_reading(&reader);
}

void *stream_piece_encode(const struct stream_piece *piece, uint32_t *length_bytes)
{
	struct writer writer = { 0 };

	put_u16(&writer, piece->stream);
	put_u32(&writer, piece->n_bytes);
	put(&writer, piece->bytes, piece->n_bytes);
	return finish_writing(&writer, length_bytes);
}

int stream_piece_decode(const void *payload, uint32_t length_bytes, struct stream_piece *piece)
{
	struct reader reader = { payload, length_bytes, false };

	piece->stream = get_u16(&reader);
	piece->bytes = get_blob(&reader, WIRE_MAX_STREAM_BYTES, &piece->n_bytes);
	if (piece->stream >= WIRE_MAX_STREAMS)
		return -EPROTO;
	return finish_reading(&reader);
}
