/* SPDX-License-Identifier: Apache-2.0 */
/* What every message of the control channel begins with, and what is refused for its sake. */
#include <errno.h>
#include <string.h>

#include "core/wire.h"
#include "tests/support/cmocka_all.h"

static void test_header_there_and_back(void **unused)
{
	(void)unused;
	for (unsigned type = 1; type < MESSAGE_TYPE_COUNT; type++) {
		struct wire_header header = { .type = type, .length_bytes = 1 }, decoded;
		uint8_t bytes[WIRE_HEADER_BYTES];

		wire_header_encode(&header, bytes);
		assert_int_equal(bytes[0], WIRE_MAGIC);
		assert_int_equal(bytes[1], WIRE_VERSION);
		assert_int_equal(wire_header_decode(bytes, &decoded, NULL), 0);
		assert_int_equal(decoded.type, type);
		assert_int_equal(decoded.length_bytes, 1);
	}
}

static void assert_refused(const uint8_t *bytes, const char *word)
{
	struct wire_header header = { .type = 77, .length_bytes = 78 };
	struct ramlift_error error = { 0 };

	assert_int_equal(wire_header_decode(bytes, &header, &error), -EPROTO);
	assert_int_equal(error.code, -EPROTO);
	assert_non_null(strstr(error.text, word));
	assert_int_equal(header.type, 77); /* untouched */
	assert_int_equal(header.length_bytes, 78);
}

static void test_header_of_strangers_is_refused(void **unused)
{
	const uint8_t right[WIRE_HEADER_BYTES] = { WIRE_MAGIC, WIRE_VERSION, MESSAGE_PING };
	uint8_t bytes[WIRE_HEADER_BYTES];

	(void)unused;
	for (unsigned value = 0; value < 256; value++) {
		memcpy(bytes, right, sizeof(bytes));
		bytes[0] = (uint8_t)value;
		if (value != WIRE_MAGIC)
			assert_refused(bytes, "port");
		memcpy(bytes, right, sizeof(bytes));
		bytes[1] = (uint8_t)value;
		if (value != WIRE_VERSION)
			assert_refused(bytes, "version");
		memcpy(bytes, right, sizeof(bytes));
		bytes[2] = (uint8_t)value;
		if (!value || value >= MESSAGE_TYPE_COUNT)
			assert_refused(bytes, "unknown type");
		memcpy(bytes, right, sizeof(bytes));
		bytes[3] = (uint8_t)value;
		if (value)
			assert_refused(bytes, "port");
	}
	assert_refused((const uint8_t *)"GET / HT", "port");
}

static void test_names(void **unused)
{
	(void)unused;
	assert_string_equal(message_name(MESSAGE_OFFER), "OFFER");
	assert_string_equal(message_name(MESSAGE_STARTED), "STARTED");
	assert_string_equal(message_name(0), "unknown");
	assert_string_equal(message_name(MESSAGE_TYPE_COUNT), "unknown");
	assert_string_equal(message_name((enum message_type) - 1), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_there_and_back),
		cmocka_unit_test(test_header_of_strangers_is_refused),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
