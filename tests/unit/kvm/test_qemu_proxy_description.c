/* SPDX-License-Identifier: Apache-2.0 */
/* What one proxy tells the other of a guest's memory, and hostile forms of it. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ramlift.h"
#include "kvm/qemu/proxy_description.h"

#define BLOCK(name, size) "{\"name\": " name ", \"size\": " size "}"
#define BLOCKS(list)	  "{\"proxied_blocks\": [" list "]}"

static struct stream_block blocks[RAMLIFT_MAX_REGIONS];
static unsigned n_blocks;

static int read_text(const char *text, struct ramlift_error *error)
{
	/* Without its NUL, and not a byte longer than it is. */
	size_t n = strlen(text);
	char *bytes = malloc(n ? n : 1);
	int ret;

	assert_non_null(bytes);
	memcpy(bytes, text, n);
	ret = proxy_read_description(bytes, n, blocks, &n_blocks, error);
	free(bytes);
	return ret;
}

/* Only what has a region travels, in the order of the regions. */
static void test_round_trip(void **unused)
{
	static const struct stream_block sent[] = {
		{ .name = "pc.bios", .size_bytes = 256 << 10 },
		{ .name = "/objects/ram-node0", .size_bytes = 3ull << 30, .carried = true },
		{ .name = "vga.vram", .size_bytes = 16 << 20 },
		{ .name = "a \"quoted\\ one", .size_bytes = 1ull << 46 },
	};
	static const int regions[] = { -1, 0, -1, 1 };
	char *text = proxy_describe(sent, regions, 4);

	(void)unused;
	assert_non_null(text);
	assert_int_equal(read_text(text, NULL), 0);
	assert_int_equal(n_blocks, 2);
	assert_string_equal(blocks[0].name, "/objects/ram-node0");
	assert_true(blocks[0].size_bytes == 3ull << 30);
	assert_false(blocks[0].carried);
	assert_string_equal(blocks[1].name, "a \"quoted\\ one");
	assert_true(blocks[1].size_bytes == 1ull << 46);
	free(text);
}

static void test_the_most_and_the_longest(void **unused)
{
	struct stream_block sent[RAMLIFT_MAX_REGIONS + 1];
	int regions[RAMLIFT_MAX_REGIONS + 1];
	struct ramlift_error error = { 0 };
	char *text;

	(void)unused;
	memset(sent, 0, sizeof(sent));
	for (unsigned i = 0; i <= RAMLIFT_MAX_REGIONS; i++) {
		memset(sent[i].name, 'n', sizeof(sent[i].name) - 1);
		sent[i].size_bytes = 4096 * (i + 1ull);
		regions[i] = (int)i;
	}
	text = proxy_describe(sent, regions, RAMLIFT_MAX_REGIONS);
	assert_int_equal(read_text(text, &error), 0);
	assert_int_equal(n_blocks, RAMLIFT_MAX_REGIONS);
	for (unsigned i = 0; i < RAMLIFT_MAX_REGIONS; i++) {
		assert_string_equal(blocks[i].name, sent[i].name);
		assert_int_equal(blocks[i].size_bytes, sent[i].size_bytes);
	}
	free(text);
	text = proxy_describe(sent, regions, RAMLIFT_MAX_REGIONS + 1);
	assert_int_equal(read_text(text, &error), -EPROTO);
	free(text);
}

static void test_hostile_forms(void **unused)
{
	static const char *const texts[] = {
		"",
		"{",
		"null",
		"17",
		"[]",
		"\"proxied_blocks\"",
		"{}",
		"{\"proxied_blocks\": {}}",
		"{\"proxied_blocks\": \"ram\"}",
		"{\"proxied_blocks\": 64}",
		BLOCKS(""),
		BLOCKS("null"),
		BLOCKS("[]"),
		BLOCKS("\"ram\""),
		BLOCKS("{}"),
		BLOCKS("{\"name\": \"ram\"}"),
		BLOCKS("{\"size\": 4096}"),
		BLOCKS(BLOCK("\"\"", "4096")),
		BLOCKS(BLOCK("17", "4096")),
		BLOCKS(BLOCK("null", "4096")),
		BLOCKS(BLOCK("[\"ram\"]", "4096")),
		BLOCKS(BLOCK("\"r\\u0000am\"", "4096")),
		BLOCKS(BLOCK("\"r\\u001b[2Jam\"", "4096")),
		BLOCKS(BLOCK("\"r\\nam\"", "4096")),
		BLOCKS(BLOCK("\"r\\u00e4m\"", "4096")),
		BLOCKS(BLOCK("\"r\xff\x61m\"", "4096")),
		BLOCKS(BLOCK("\"ram\"", "0")),
		BLOCKS(BLOCK("\"ram\"", "-4096")),
		BLOCKS(BLOCK("\"ram\"", "4096.0")),
		BLOCKS(BLOCK("\"ram\"", "1e10")),
		BLOCKS(BLOCK("\"ram\"", "\"4096\"")),
		BLOCKS(BLOCK("\"ram\"", "true")),
		BLOCKS(BLOCK("\"ram\"", "9223372036854775808")),
		BLOCKS(BLOCK("\"ram\"", "99999999999999999999999999")),
		BLOCKS(BLOCK("\"ram\"", "4096") ", " BLOCK("\"\"", "4096")),
		BLOCKS(BLOCK("\"ram\"", "4096")) " and more",
		BLOCKS(BLOCK("\"ram\"", "4096") ","),
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct ramlift_error error = { 0 };

		n_blocks = 77;
		if (read_text(texts[i], &error) != -EPROTO)
			fail_msg("'%s' was taken", texts[i]);
		assert_int_equal(error.code, -EPROTO);
		assert_non_null(strstr(error.text, "not from a proxy"));
		assert_int_equal(n_blocks, 77); /* untouched */
	}
	/* Strange, but with a meaning. */
	assert_int_equal(read_text(BLOCKS(BLOCK("\"ram\"", "9223372036854775807")), NULL), 0);
	assert_true(blocks[0].size_bytes == INT64_MAX);
	assert_int_equal(read_text(" {\"more\": [1], \"proxied_blocks\": [" BLOCK(
					   "\"ram\"", "1") "], \"and\": null}\n",
				   NULL),
			 0);
	assert_int_equal(n_blocks, 1);
}

static void test_too_long_and_too_deep(void **unused)
{
	enum { DEEP = 100000 };
	char *text = calloc(DEEP + 300, 1);
	struct ramlift_error error = { 0 };

	(void)unused;
	assert_non_null(text);
	strcpy(text, "{\"proxied_blocks\": [{\"size\": 4096, \"name\": \"");
	memset(text + strlen(text), 'n', STREAM_MAX_NAME);
	strcat(text, "\"}]}");
	assert_int_equal(read_text(text, &error), -EPROTO);
	memset(text, '[', DEEP);
	memset(text + DEEP, 0, 300);
	assert_int_equal(read_text(text, &error), -EPROTO);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_the_most_and_the_longest),
		cmocka_unit_test(test_hostile_forms),
		cmocka_unit_test(test_too_long_and_too_deep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
