/* SPDX-License-Identifier: Apache-2.0 */
/* What each field of a message is after it was sent, and where it lies in the payload. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/wire.h"
#include "tests/support/cmocka_all.h"

/* There and back says nothing about two fields that change places: here each is looked at. */
static void test_fields_of_an_offer(void **unused)
{
	struct offer offer = {
		.session_id = "0123456789abcdef",
		.generation = 7,
		.verify = true,
		.n_rails = 2,
		.n_lanes = 6,
		.slice_bytes = 1 << 28,
		.pin_budget_bytes = 1 << 27,
		.name = "db-1",
		.n_transports = 2,
		.transports = { "rdma", "tcp" },
		.n_regions = 2,
		.regions = { { .gpa = 0,
			       .size_bytes = 4096,
			       .page_size_bytes = 4096,
			       .numa_node = -1 },
			     { .gpa = 1ull << 32,
			       .size_bytes = 1 << 21,
			       .page_size_bytes = 1 << 21,
			       .numa_node = 3 } },
		.machine = "description",
		.machine_bytes = 11,
	};
	struct offer decoded;
	uint32_t length;
	void *payload = offer_encode(&offer, &length);

	(void)unused;
	assert_int_equal(offer_decode(payload, length, &decoded), 0);
	assert_memory_equal(decoded.session_id, offer.session_id, SESSION_ID_BYTES);
	assert_int_equal(decoded.generation, 7);
	assert_true(decoded.verify);
	assert_int_equal(decoded.n_lanes, 6);
	assert_int_equal(decoded.n_rails, 2);
	assert_int_equal(decoded.slice_bytes, 1 << 28);
	assert_int_equal(decoded.pin_budget_bytes, 1 << 27);
	assert_string_equal(decoded.name, "db-1");
	assert_int_equal(decoded.n_transports, 2);
	assert_string_equal(decoded.transports[0], "rdma");
	assert_string_equal(decoded.transports[1], "tcp");
	assert_int_equal(decoded.n_regions, 2);
	assert_int_equal(decoded.regions[1].gpa, 1ull << 32);
	assert_int_equal(decoded.regions[1].size_bytes, 1 << 21);
	assert_int_equal(decoded.regions[0].page_size_bytes, 4096);
	assert_int_equal(decoded.regions[0].numa_node, -1);
	assert_int_equal(decoded.regions[1].numa_node, 3);
	assert_int_equal(decoded.machine_bytes, 11);
	assert_memory_equal(decoded.machine, "description", 11);
	free(payload);
}

static void test_fields_of_the_others(void **unused)
{
	struct accept accept = {
		1, true, 1250, 1, { { RAIL_FAMILY_INET, "\x0a\x00\x00\x02", 0x1234 } }
	};
	struct slice_key_message slice_key = { 3, { 0x1122334455667788, { 0x99, 0x9a } } };
	struct retire_message retire = { 5 };
	struct abort_message abort = { -ENOMEM, "no memory" };
	struct final final = { true, 12, 3, { 11, 0, 13 }, "state", 5 };
	struct prepared prepared = { 1, 2, 3, 4 };
	struct commit commit = { "0123456789abcdef", 9 };
	struct started started = { 1234567 };
	struct stream_piece stream_piece = { 2, "piece", 5 };
	struct ask ask = { "0123456789abcdef", 10, "db-1" };
	struct answer answer = { ANSWER_PENDING };
	struct lane_message lane_message = { 0x1234 };
	uint32_t length;
	void *payload;

	(void)unused;
#define THERE_AND_BACK(name, type)                                                                 \
	payload = name##_encode(&name, &length);                                                   \
	memset(&name, 0, sizeof(name));                                                            \
	assert_int_equal(name##_decode(payload, length, &name), 0)
	THERE_AND_BACK(accept, struct accept);
	assert_int_equal(accept.transport, 1);
	assert_int_equal(accept.n_rails, 1);
	assert_int_equal(accept.rails[0].family, RAIL_FAMILY_INET);
	assert_memory_equal(accept.rails[0].bytes, "\x0a\0\0\x02\0\0", 6);
	assert_int_equal(accept.rails[0].port, 0x1234);
	assert_true(accept.fresh);
	assert_int_equal(accept.journal_us, 1250);
	assert_int_equal(length, 7 + 19);
	assert_memory_equal((char *)payload + 24, "\x12\x34", 2); /* big-endian */
	free(payload);
	THERE_AND_BACK(slice_key, struct slice_key_message);
	assert_int_equal(slice_key.slice, 3);
	assert_int_equal(slice_key.key.address, 0x1122334455667788);
	assert_int_equal(slice_key.key.rkeys[0], 0x99);
	assert_int_equal(slice_key.key.rkeys[1], 0x9a);
	free(payload);
	payload = register_encode(&(struct register_message){ 4, 5 }, &length);
	assert_int_equal(length, 5);
	assert_memory_equal(payload, "\0\0\0\x04\x05", 5);
	free(payload);
	THERE_AND_BACK(retire, struct retire_message);
	assert_int_equal(retire.slice, 5);
	free(payload);
	THERE_AND_BACK(abort, struct abort_message);
	assert_int_equal(abort.code, -ENOMEM);
	assert_string_equal(abort.text, "no memory");
	free(payload);
	THERE_AND_BACK(final, struct final);
	assert_int_equal(final.n_lanes, 3);
	assert_int_equal(final.tokens[0], 11);
	assert_int_equal(final.tokens[1], 0);
	assert_int_equal(final.tokens[2], 13);
	assert_int_equal(final.tokens[3], 0);
	assert_true(final.verify);
	assert_int_equal(final.digest, 12);
	assert_int_equal(final.state_bytes, 5);
	assert_memory_equal(final.state, "state", 5);
	free(payload);
	THERE_AND_BACK(prepared, struct prepared);
	assert_int_equal(prepared.digest, 1);
	assert_int_equal(prepared.fence_ns, 2);
	assert_int_equal(prepared.verify_ns, 3);
	assert_int_equal(prepared.load_ns, 4);
	free(payload);
	THERE_AND_BACK(stream_piece, struct stream_piece);
	assert_int_equal(stream_piece.stream, 2);
	assert_int_equal(stream_piece.n_bytes, 5);
	assert_memory_equal(stream_piece.bytes, "piece", 5);
	free(payload);
	THERE_AND_BACK(commit, struct commit);
	assert_memory_equal(commit.session_id, "0123456789abcdef", SESSION_ID_BYTES);
	assert_int_equal(commit.generation, 9);
	free(payload);
	THERE_AND_BACK(ask, struct ask);
	assert_memory_equal(ask.session_id, "0123456789abcdef", SESSION_ID_BYTES);
	assert_int_equal(ask.generation, 10);
	assert_string_equal(ask.name, "db-1");
	free(payload);
	THERE_AND_BACK(answer, struct answer);
	assert_int_equal(answer.word, ANSWER_PENDING);
	assert_int_equal(length, 1);
	free(payload);
	THERE_AND_BACK(lane_message, struct lane_message);
	assert_int_equal(lane_message.lane, 0x1234);
	assert_memory_equal(payload, "\x12\x34", 2);
	free(payload);
	THERE_AND_BACK(started, struct started);
	assert_int_equal(started.start_ns, 1234567);
	free(payload);
#undef THERE_AND_BACK
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields_of_an_offer),
		cmocka_unit_test(test_fields_of_the_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
