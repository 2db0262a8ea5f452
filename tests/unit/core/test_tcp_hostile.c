/* SPDX-License-Identifier: Apache-2.0 */
/* A source of TCP lanes that writes where it must not. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "tcp_rig.h"

struct hostile {
	const char *what;
	uint32_t slice, length_bytes;
	uint64_t offset_bytes;
};

static const struct hostile hostiles[] = {
	{ "slice out of range", N_SLICES, PAGE, 0 },
	{ "slice far out of range", UINT32_MAX - 1, PAGE, 0 },
	{ "nothing", 0, 0, 0 },
	{ "nothing, at the end", 0, 0, 64 * PAGE },
	{ "too long by a byte", 1, WRITE_MAX + 1, 0 },
	{ "as long as can be", 1, UINT32_MAX, 0 },
	{ "a byte over the end", 0, PAGE, 63 * PAGE + 1 },
	{ "at the end", 0, PAGE, 64 * PAGE },
	{ "a byte at the end", 0, 1, 64 * PAGE },
	{ "longer than a slice", 2, 2 * PAGE, 0 },
	{ "behind the end", 0, PAGE, 1ull << 40 },
	{ "the sum overflows to 0", 0, PAGE, UINT64_MAX - PAGE + 1 },
	{ "the sum overflows to the middle", 0, 2 * PAGE, UINT64_MAX - PAGE + 1 },
	{ "the last offset", 0, 1, UINT64_MAX },
	{ "negative as a signed number", 0, PAGE, (uint64_t)-PAGE },
};

static void attack(const struct hostile *hostile, bool after_a_write)
{
	struct ramlift_error error = { 0 };
	char junk[2 * PAGE];
	struct pair pair;
	struct stream *stream;

	memset(junk, 0x66, sizeof(junk));
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	if (after_a_write) {
		send_header(stream, 2, PAGE, 0);
		send_raw(stream, junk, PAGE);
	}
	send_header(stream, hostile->slice, hostile->length_bytes, hostile->offset_bytes);
	stream_send(stream, junk, sizeof(junk), LONG_NS, -1);
	if (await_tokens(&pair, TOKEN, &error) != -EPROTO)
		fail_msg("%s: %d %s", hostile->what, error.code, error.text);
	assert_non_null(strstr(error.text, "outside"));
	if (after_a_write) {
		assert_memory_equal(pair.destination.slices[2].hva, junk, PAGE);
		memset(pair.destination.slices[2].hva, 0, PAGE);
	}
	assert_memory_untouched(&pair);
	stream_free(stream);
	pair_fini(&pair);
}

static void test_no_write_leaves_its_slice(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof(hostiles) / sizeof(hostiles[0]); i++) {
		attack(&hostiles[i], false);
		attack(&hostiles[i], true);
	}
}

/* Of a batch of which one write is wrong, none is carried out; nor of one that is too long. */
static void attack_with_batch(uint32_t n_writes, unsigned wrong)
{
	struct ramlift_error error = { 0 };
	struct header header = { .n_writes = htobe32(n_writes) };
	char junk[2 * PAGE];
	struct pair pair;
	struct stream *stream;

	memset(junk, 0x66, sizeof(junk));
	for (unsigned i = 0; i < 64; i++) {
		header.writes[i].length_bytes = htobe32(1);
		header.writes[i].slice = htobe32(i == wrong ? N_SLICES : 0);
	}
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_raw(stream, &header, sizeof(header));
	stream_send(stream, junk, sizeof(junk), LONG_NS, -1);
	assert_int_equal(await_tokens(&pair, TOKEN, &error), -EPROTO);
	assert_non_null(strstr(error.text, "too long"));
	assert_memory_untouched(&pair);
	stream_free(stream);
	pair_fini(&pair);
}

static void test_no_batch_is_too_long(void **unused)
{
	(void)unused;
	attack_with_batch(64, 63);
	attack_with_batch(2, 1);
	attack_with_batch(65, UINT32_MAX);
	attack_with_batch(1u << 31, UINT32_MAX);
	attack_with_batch(UINT32_MAX, UINT32_MAX);
}

/* What a batch does not need is 0, in a token too. */
static void attack_with_header(const struct header *header)
{
	struct ramlift_error error = { 0 };
	char junk[2 * PAGE];
	struct stream *stream;
	struct pair pair;

	memset(junk, 0x66, sizeof(junk));
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_raw(stream, header, sizeof(*header));
	stream_send(stream, junk, sizeof(junk), LONG_NS, -1);
	assert_int_equal(await_tokens(&pair, TOKEN, &error), -EPROTO);
	assert_non_null(strstr(error.text, "malformed"));
	assert_memory_untouched(&pair);
	stream_free(stream);
	pair_fini(&pair);
}

static void test_what_is_not_used_is_zero(void **unused)
{
	const struct header token = { .token = htobe64(TOKEN) }, write = one_write(0, PAGE, 0);
	struct header header;

	(void)unused;
	header = write;
	header.reserved = htobe32(1);
	attack_with_header(&header);
	header = write;
	header.token = htobe64(TOKEN);
	attack_with_header(&header);
	header = write;
	header.writes[1].offset_bytes = htobe64(1);
	attack_with_header(&header);
	header = write;
	header.writes[63].slice = htobe32(1);
	attack_with_header(&header);
	header = token;
	header.reserved = htobe32(1);
	attack_with_header(&header);
	header = token;
	header.writes[0].length_bytes = htobe32(1);
	attack_with_header(&header);
}

/* The borders themselves are allowed. */
static void test_writes_up_to_the_border(void **unused)
{
	struct header header;
	char junk[PAGE];
	struct pair pair;
	struct stream *stream;

	(void)unused;
	memset(junk, 0x66, sizeof(junk));
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_header(stream, 2, PAGE, 0);
	send_raw(stream, junk, PAGE);
	send_header(stream, 0, 1, 64 * PAGE - 1);
	send_raw(stream, junk, 1);
	header = (struct header){ .token = htobe64(TOKEN) };
	send_raw(stream, &header, sizeof(header));
	assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
	assert_memory_equal(pair.destination.slices[2].hva, junk, PAGE);
	assert_int_equal(((char *)pair.destination.slices[0].hva)[64 * PAGE - 1], 0x66);
	stream_free(stream);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_write_leaves_its_slice),
		cmocka_unit_test(test_no_batch_is_too_long),
		cmocka_unit_test(test_what_is_not_used_is_zero),
		cmocka_unit_test(test_writes_up_to_the_border),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, lanes_plain, NULL);

	return failed + cmocka_run_group_tests_name("TLS", tests, lanes_under_tls, NULL);
}
