/* SPDX-License-Identifier: Apache-2.0 */
/* What was said last arrives, whoever closes first. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "channel_rig.h"

static void test_last_words_arrive(void **unused)
{
	(void)unused;
	for (unsigned round = 0; round < 6; round++) {
		struct channel *a, *b;
		struct message *message;

		open_pair(PATIENT_NS, &a, &b);
		/* What a has not read when it closes would make the kernel reset the connection. */
		for (unsigned i = 0; i < 50; i++)
			assert_int_equal(channel_send(b, MESSAGE_SLICE_KEY, "key", 3, NULL), 0);
		assert_int_equal(channel_send(a, MESSAGE_ABORT, "why", 3, NULL), 0);
		channel_close(a);
		message = receive(b);
		assert_int_equal(message->type, MESSAGE_ABORT);
		assert_memory_equal(message->payload, "why", 3);
		free(message);
		assert_dead(b, -ECONNRESET, "lost");
		channel_close(b);
	}
}

/* A close with bytes unread resets the connection, and what was said last can be lost on its way:
 * the peer must see an orderly end. */
static void test_closing_with_bytes_unread_is_orderly(void **unused)
{
	struct wire_header header = { 0 };
	uint8_t bytes[WIRE_HEADER_BYTES];
	struct channel *channel;
	char payload[1024];
	ssize_t n;
	int peer;

	(void)unused;
	open_half(PATIENT_NS, &channel, &peer);
	for (uint32_t i = 0; i < 3000; i++) /* more than the queue holds */
		send_raw_message(peer, MESSAGE_SLICE_KEY, &i, sizeof(i));
	assert_int_equal(channel_send(channel, MESSAGE_ABORT, "why", 3, NULL), 0);
	channel_close(channel);
	while (header.type != MESSAGE_ABORT) {
		assert_int_equal(receive_all(peer, bytes, sizeof(bytes), LONG_NS, NEVER), 0);
		assert_int_equal(wire_header_decode(bytes, &header, NULL), 0);
		assert_in_range(header.length_bytes, 0, sizeof(payload));
		assert_int_equal(receive_all(peer, payload, header.length_bytes, LONG_NS, NEVER),
				 0);
	}
	assert_int_equal(wait_for_fd(peer, POLLIN, LONG_NS, NEVER), 0);
	do { /* a last ping */
		n = recv(peer, payload, sizeof(payload), 0);
	} while (n > 0);
	assert_int_equal(n, 0); /* and no ECONNRESET */
	close(peer);
}

struct flood {
	int fd;
	atomic_bool stop;
};

static void *flood_thread(void *argument)
{
	static const char junk[65536];
	struct flood *flood = argument;

	while (!atomic_load(&flood->stop) &&
	       !send_all(flood->fd, junk, sizeof(junk), A_MOMENT_NS, NEVER))
		;
	atomic_store(&flood->stop, true);
	return NULL;
}

/* Closing waits a moment for the peer to read, not for as long as the peer sends. */
static void test_a_flood_does_not_hold_up_the_close(void **unused)
{
	struct flood flood = { 0 };
	struct channel *channel;
	pthread_t thread;
	uint64_t begin_ns;

	(void)unused;
	open_half(PATIENT_NS, &channel, &flood.fd);
	assert_int_equal(pthread_create(&thread, NULL, flood_thread, &flood), 0);
	usleep(100000);
	begin_ns = clock_now_ns();
	channel_close(channel);
	assert_true(clock_now_ns() - begin_ns < 10 * NS_PER_S);
	atomic_store(&flood.stop, true);
	pthread_join(thread, NULL);
	close(flood.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_words_arrive),
		cmocka_unit_test(test_closing_with_bytes_unread_is_orderly),
		cmocka_unit_test(test_a_flood_does_not_hold_up_the_close),
	};
	const struct CMUnitTest with_tls[] = {
		cmocka_unit_test(test_last_words_arrive),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, channels_plain, NULL);

	return failed + cmocka_run_group_tests_name("TLS", with_tls, channels_under_tls, NULL);
}
