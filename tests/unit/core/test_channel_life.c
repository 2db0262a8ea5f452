/* SPDX-License-Identifier: Apache-2.0 */
/* The control channel with a peer that is silent, gone, deaf or hostile. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "channel_rig.h"

static void test_a_silent_peer_is_dead(void **unused)
{
	struct channel *channel;
	int peer;

	(void)unused;
	open_half(SHORT_NS, &channel, &peer);
	assert_dead(channel, -EHOSTDOWN, "silent for 300 ms");
	channel_close(channel);
	close(peer);
}

static void test_half_a_message_does_not_keep_it_alive(void **unused)
{
	const uint8_t header[] = { WIRE_MAGIC, WIRE_VERSION, MESSAGE_OFFER, 0, 0, 0, 0, 100 };
	struct channel *channel;
	int peer;

	(void)unused;
	for (size_t n = 1; n <= sizeof(header); n += 7) {
		open_half(SHORT_NS, &channel, &peer);
		send_raw(peer, header, n);
		assert_dead(channel, -EHOSTDOWN, "silent");
		channel_close(channel);
		close(peer);
	}
}

/* Two idle channels keep each other alive, well beyond a heartbeat. */
static void test_idle_channels_live(void **unused)
{
	struct channel *a, *b;
	struct message *message;

	(void)unused;
	open_pair(NS_PER_S, &a, &b);
	assert_int_equal(
		channel_receive(a, clock_now_ns() + 5 * NS_PER_S / 2, NEVER, &message, NULL),
		-ETIMEDOUT);
	assert_int_equal(channel_receive(b, 0, NEVER, &message, NULL), -ETIMEDOUT);
	assert_true(channel_rtt_ns(a) > 0);
	assert_true(channel_rtt_ns(a) < NS_PER_S);
	channel_close(a);
	channel_close(b);
}

static void test_pings_are_answered(void **unused)
{
	uint8_t bytes[WIRE_HEADER_BYTES], payload[8];
	struct wire_header header;
	struct channel *channel;
	bool answered = false;
	int peer;

	(void)unused;
	open_half(PATIENT_NS, &channel, &peer);
	send_raw_message(peer, MESSAGE_PING, "12345678", 8);
	while (!answered) { /* its own pings may come first */
		assert_int_equal(receive_all(peer, bytes, sizeof(bytes), LONG_NS, NEVER), 0);
		assert_int_equal(wire_header_decode(bytes, &header, NULL), 0);
		assert_int_equal(header.length_bytes, 8);
		assert_int_equal(receive_all(peer, payload, 8, LONG_NS, NEVER), 0);
		answered = header.type == MESSAGE_PONG;
	}
	assert_memory_equal(payload, "12345678", 8);
	close(peer);
	channel_close(channel);
}

static void test_the_peer_goes_away(void **unused)
{
	struct channel *channel;
	struct message *message;
	int peer;

	(void)unused;
	open_half(PATIENT_NS, &channel, &peer);
	send_raw_message(peer, MESSAGE_FINAL, "abc", 3);
	send_raw(peer, "R", 1); /* and a message that never ends */
	shutdown(peer, SHUT_WR);
	/* What came before is still given out. */
	message = receive(channel);
	assert_int_equal(message->type, MESSAGE_FINAL);
	assert_memory_equal(message->payload, "abc", 3);
	free(message);
	assert_dead(channel, -ECONNRESET, "lost");
	channel_close(channel);
	close(peer);
}

static void test_sending_to_a_peer_that_is_gone(void **unused)
{
	struct ramlift_error error = { 0 };
	struct channel *channel;
	int peer, ret = 0;

	(void)unused;
	open_half(PATIENT_NS, &channel, &peer);
	close(peer);
	for (uint64_t end_ns = LONG_NS; !ret && clock_now_ns() < end_ns;)
		ret = channel_send(channel, MESSAGE_COMMIT, "x", 1, &error);
	assert_true(ret == -EPIPE || ret == -ECONNRESET);
	assert_int_equal(error.code, ret);
	channel_close(channel);
}

static void test_sending_to_a_peer_that_does_not_read(void **unused)
{
	uint32_t n = WIRE_MAX_STATE_BYTES;
	struct ramlift_error error = { 0 };
	struct channel *channel;
	char *much = calloc(1, n);
	int peer, ret = 0;

	(void)unused;
	assert_non_null(much);
	open_half(SHORT_NS, &channel, &peer);
	for (unsigned i = 0; i < 100 && !ret; i++)
		ret = channel_send(channel, MESSAGE_FINAL, much, n, &error);
	assert_true(ret < 0);
	assert_int_equal(error.code, ret);
	free(much);
	channel_close(channel);
	close(peer);
}

static void assert_refuses(const void *bytes, size_t n, const char *word)
{
	struct channel *channel;
	int peer;

	open_half(PATIENT_NS, &channel, &peer);
	send_raw(peer, bytes, n);
	assert_dead(channel, -EPROTO, word);
	close(peer);
	channel_close(channel);
}

static void test_hostile_bytes(void **unused)
{
	static const uint8_t version[] = { WIRE_MAGIC, WIRE_VERSION + 1, MESSAGE_OFFER, 0, 0, 0, 0,
					   0 };
	static const uint8_t type[] = {
		WIRE_MAGIC, WIRE_VERSION, MESSAGE_TYPE_COUNT, 0, 0, 0, 0, 0
	};
	static const uint8_t longer[] = { WIRE_MAGIC, WIRE_VERSION, MESSAGE_FINAL, 0,
					  0xff,	      0xff,	    0xff,	   0xff };
	static const uint8_t commit[] = {
		WIRE_MAGIC, WIRE_VERSION, MESSAGE_COMMIT, 0, 0, 0, 0, 33
	};
	static const uint8_t short_ping[] = {
		WIRE_MAGIC, WIRE_VERSION, MESSAGE_PING, 0, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7
	};
	static const uint8_t empty_pong[] = {
		WIRE_MAGIC, WIRE_VERSION, MESSAGE_PONG, 0, 0, 0, 0, 0
	};

	(void)unused;
	assert_refuses("GET / HTTP/1.1\r\n\r\n", 18, "does not speak");
	assert_refuses("\x16\x03\x01\x02\x00\x01\x00\x01", 8, "does not speak");
	assert_refuses(version, sizeof(version), "version");
	assert_refuses(type, sizeof(type), "unknown type");
	assert_refuses(longer, sizeof(longer), "FINAL");
	assert_refuses(commit, sizeof(commit), "COMMIT");
	assert_refuses(short_ping, sizeof(short_ping), "");
	assert_refuses(empty_pong, sizeof(empty_pong), "");
}

/* A PONG with any number in it changes nothing but the round trip. */
static void test_a_pong_from_the_future(void **unused)
{
	uint64_t future = UINT64_MAX;
	struct channel *channel;
	struct message *message;
	int peer;

	(void)unused;
	open_half(PATIENT_NS, &channel, &peer);
	send_raw_message(peer, MESSAGE_PONG, &future, sizeof(future));
	send_raw_message(peer, MESSAGE_COMMIT, NULL, 0);
	message = receive(channel);
	assert_int_equal(message->type, MESSAGE_COMMIT);
	free(message);
	assert_int_equal(channel_rtt_ns(channel), 0);
	close(peer);
	channel_close(channel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_silent_peer_is_dead),
		cmocka_unit_test(test_half_a_message_does_not_keep_it_alive),
		cmocka_unit_test(test_idle_channels_live),
		cmocka_unit_test(test_pings_are_answered),
		cmocka_unit_test(test_the_peer_goes_away),
		cmocka_unit_test(test_sending_to_a_peer_that_is_gone),
		cmocka_unit_test(test_sending_to_a_peer_that_does_not_read),
		cmocka_unit_test(test_hostile_bytes),
		cmocka_unit_test(test_a_pong_from_the_future),
	};
	const struct CMUnitTest with_tls[] = {
		cmocka_unit_test(test_idle_channels_live),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, channels_plain, NULL);

	return failed + cmocka_run_group_tests_name("TLS", with_tls, channels_under_tls, NULL);
}
