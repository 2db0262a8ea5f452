/* SPDX-License-Identifier: Apache-2.0 */
/* The control channel against another one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "channel_rig.h"

static void test_order_and_content(void **unused)
{
	enum { MESSAGES = 400, LARGEST = 60000 };
	unsigned char *payload = malloc(LARGEST);
	struct channel *a, *b;

	(void)unused;
	assert_non_null(payload);
	open_pair(PATIENT_NS, &a, &b);
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < MESSAGES / 4; i++) {
			uint32_t n = i % 10 ? i : i * LARGEST / MESSAGES;

			memset(payload, (int)i, n);
			assert_int_equal(
				channel_send(round % 2 ? b : a, MESSAGE_OFFER, payload, n, NULL),
				0);
		}
		for (unsigned i = 0; i < MESSAGES / 4; i++) {
			struct message *message = receive(round % 2 ? a : b);
			uint32_t n = i % 10 ? i : i * LARGEST / MESSAGES;

			assert_int_equal(message->type, MESSAGE_OFFER);
			assert_int_equal(message->length_bytes, n);
			memset(payload, (int)i, n);
			assert_memory_equal(message->payload, payload, n);
			free(message);
		}
	}
	free(payload);
	channel_close(a);
	channel_close(b);
	channel_close(NULL);
}

static void test_send_owned(void **unused)
{
	struct started started = { 5 };
	struct ramlift_error error = { 0 };
	struct channel *a, *b;
	struct message *message;
	uint32_t length;
	void *payload = started_encode(&started, &length);

	(void)unused;
	open_pair(PATIENT_NS, &a, &b);
	assert_int_equal(channel_send_owned(a, MESSAGE_STARTED, payload, length, &error), 0);
	message = receive(b);
	assert_int_equal(started_decode(message->payload, message->length_bytes, &started), 0);
	assert_int_equal(started.start_ns, 5);
	free(message);
	assert_int_equal(channel_send_owned(a, MESSAGE_STARTED, NULL, 0, &error), -ENOMEM);
	assert_non_null(strstr(error.text, "STARTED"));
	channel_close(a);
	channel_close(b);
}

static void test_deadline_and_interruption(void **unused)
{
	struct ramlift_error error = { .code = 1, .text = "untouched" };
	int interrupt_fd = eventfd(0, 0);
	struct channel *a, *b;
	struct message *message;
	uint64_t one = 1;

	(void)unused;
	open_pair(PATIENT_NS, &a, &b);
	assert_int_equal(channel_receive(a, A_MOMENT_NS, interrupt_fd, &message, &error),
			 -ETIMEDOUT);
	assert_int_equal(channel_receive(a, 0, NEVER, &message, &error), -ETIMEDOUT);
	assert_string_equal(error.text, "untouched");
	assert_int_equal(write(interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(channel_receive(a, LONG_NS, interrupt_fd, &message, &error), -ECANCELED);
	assert_string_equal(error.text, "untouched");
	/* It lives on. */
	assert_int_equal(channel_send(b, MESSAGE_COMMIT, "x", 1, NULL), 0);
	message = receive(a);
	assert_int_equal(message->type, MESSAGE_COMMIT);
	free(message);
	channel_close(a);
	channel_close(b);
	close(interrupt_fd);
}

/* Where they end is of no meaning: a message may come with others in one, or in pieces. */
static void test_messages_and_records(void **unused)
{
	enum { MESSAGES = 5, BYTES = WIRE_HEADER_BYTES + 3 };
	struct wire_header header = { MESSAGE_FINAL, 3 };
	uint8_t bytes[MESSAGES * BYTES];
	struct channel *channel;
	struct stream *stream;

	(void)unused;
	open_with_stream(PATIENT_NS, &channel, &stream);
	for (unsigned i = 0; i < MESSAGES; i++) {
		wire_header_encode(&header, bytes + (size_t)i * BYTES);
		memcpy(bytes + (size_t)i * BYTES + WIRE_HEADER_BYTES, "abc", 3);
	}
	/* Four and a half, and the other half. */
	assert_int_equal(stream_send(stream, bytes, 4 * BYTES + 5, LONG_NS, NEVER), 0);
	for (unsigned i = 0; i < MESSAGES - 1; i++)
		free(receive(channel));
	assert_int_equal(stream_send(stream, bytes + 4 * BYTES + 5, BYTES - 5, LONG_NS, NEVER), 0);
	free(receive(channel));
	stream_free(stream);
	channel_close(channel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_content),
		cmocka_unit_test(test_send_owned),
		cmocka_unit_test(test_deadline_and_interruption),
		cmocka_unit_test(test_messages_and_records),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, channels_plain, NULL);

	return failed + cmocka_run_group_tests_name("TLS", tests, channels_under_tls, NULL);
}
