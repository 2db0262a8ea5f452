/* SPDX-License-Identifier: Apache-2.0 */
/* The control channel against another one, and against peers that are silent, dead or hostile. Over
 * TCP on loopback, as in life: only there can a close lose what was said last. */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/channel.h"
#include "core/clock.h"
#include "core/ramlift.h"
#include "tests/support/cmocka_all.h"

#define LONG_NS	    (clock_now_ns() + 30 * NS_PER_S) /* against hangs only */
#define A_MOMENT_NS (clock_now_ns() + 50 * NS_PER_MS)
#define PATIENT_NS  (30 * NS_PER_S) /* a heartbeat that no test waits for */
#define SHORT_NS    (300 * NS_PER_MS)
#define NEVER	    -1

static void connect_pair(int *a, int *b)
{
	struct address address;
	int listener;

	assert_int_equal(address_parse("127.0.0.1:0", 1, &address, NULL), 0);
	assert_int_equal(address_listen(&address, &listener, NULL), 0);
	assert_int_equal(address_of_socket(listener, &address), 0);
	assert_int_equal(address_connect(&address, LONG_NS, NEVER, a, NULL), 0);
	assert_int_equal(wait_for_fd(listener, POLLIN, LONG_NS, NEVER), 0);
	*b = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(*b >= 0);
	close(listener);
}

/* The streams are lanes' here, for these need neither files nor a greeting: what is below the
 * channel is test_stream.c's business. */
static const uint8_t *secret; /* NULL: plain */

union accepted {
	struct stream *stream;
	int fd; /* before */
};

static void *accept_thread(void *argument)
{
	struct stream **stream = argument;
	int fd = *(int *)argument;

	*stream = NULL;
	stream_accept_lane(fd, secret, LONG_NS, NEVER, stream, NULL);
	return NULL;
}

static void open_pair(uint64_t heartbeat_ns, struct channel **a, struct channel **b)
{
	union accepted accepted;
	struct stream *stream;
	pthread_t thread;
	int fd;

	connect_pair(&fd, &accepted.fd);
	assert_int_equal(pthread_create(&thread, NULL, accept_thread, &accepted), 0);
	assert_int_equal(stream_connect_lane(fd, secret, LONG_NS, NEVER, &stream, NULL), 0);
	pthread_join(thread, NULL);
	assert_non_null(accepted.stream);
	assert_int_equal(channel_open(stream, heartbeat_ns, a, NULL), 0);
	assert_int_equal(channel_open(accepted.stream, heartbeat_ns, b, NULL), 0);
}

/* A channel at one end, the bare socket at the other. */
static void open_half(uint64_t heartbeat_ns, struct channel **channel, int *peer)
{
	struct stream *stream;
	int fd;

	connect_pair(&fd, peer);
	assert_int_equal(stream_connect_lane(fd, NULL, LONG_NS, NEVER, &stream, NULL), 0);
	assert_int_equal(channel_open(stream, heartbeat_ns, channel, NULL), 0);
}

static void send_raw(int fd, const void *bytes, size_t n)
{
	assert_int_equal(send_all(fd, bytes, n, LONG_NS, NEVER), 0);
}

static void send_raw_message(int fd, enum message_type type, const void *payload, uint32_t n)
{
	struct wire_header header = { type, n };
	uint8_t bytes[WIRE_HEADER_BYTES];

	wire_header_encode(&header, bytes);
	send_raw(fd, bytes, sizeof(bytes));
	send_raw(fd, payload, n);
}

static struct message *receive(struct channel *channel)
{
	struct ramlift_error error = { 0 };
	struct message *message;

	if (channel_receive(channel, LONG_NS, NEVER, &message, &error))
		fail_msg("%s", error.text);
	return message;
}

static void assert_dead(struct channel *channel, int code, const char *word)
{
	struct message *message = (struct message *)&channel;
	struct ramlift_error error = { 0 };

	assert_int_equal(channel_receive(channel, LONG_NS, NEVER, &message, &error), code);
	assert_int_equal(error.code, code);
	assert_non_null(strstr(error.text, word));
	assert_ptr_equal(message, &channel); /* untouched */
	/* And it stays so. */
	assert_int_equal(channel_receive(channel, LONG_NS, NEVER, &message, NULL), code);
}

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

/* ---- life and death ---- */

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

/* ---- what is not the protocol ---- */

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

/* ---- last words ---- */

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

/* ---- records ---- */

/* Where they end is of no meaning: a message may come with others in one, or in pieces. */
static void test_messages_and_records(void **unused)
{
	enum { MESSAGES = 5, BYTES = WIRE_HEADER_BYTES + 3 };
	struct wire_header header = { MESSAGE_FINAL, 3 };
	uint8_t bytes[MESSAGES * BYTES];
	union accepted accepted;
	struct channel *channel;
	struct stream *stream;
	pthread_t thread;
	int fd;

	(void)unused;
	connect_pair(&fd, &accepted.fd);
	assert_int_equal(pthread_create(&thread, NULL, accept_thread, &accepted), 0);
	assert_int_equal(stream_connect_lane(fd, secret, LONG_NS, NEVER, &stream, NULL), 0);
	pthread_join(thread, NULL);
	assert_int_equal(channel_open(accepted.stream, PATIENT_NS, &channel, NULL), 0);
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

/* ---- several threads ---- */

#define SENDERS		8u
#define SENDER_MESSAGES 150u
#define SENDER_LARGEST	20000u

struct sender {
	struct channel *channel;
	unsigned index;
	pthread_t thread;
	int ret;
};

static uint32_t sender_length(unsigned index, unsigned i)
{
	return 2 + (index * 7919 + i * 104729) % SENDER_LARGEST;
}

static void *sender_thread(void *argument)
{
	struct sender *sender = argument;
	unsigned char *payload = malloc(2 + SENDER_LARGEST);

	for (unsigned i = 0; payload && i < SENDER_MESSAGES && !sender->ret; i++) {
		uint32_t n = sender_length(sender->index, i);

		memset(payload, (int)i, n);
		payload[0] = (unsigned char)sender->index;
		sender->ret = channel_send(sender->channel, MESSAGE_OFFER, payload, n, NULL);
	}
	free(payload);
	return NULL;
}

static void test_senders_do_not_interleave(void **unused)
{
	struct sender senders[SENDERS] = { 0 };
	unsigned next[SENDERS] = { 0 };
	struct channel *a, *b;

	(void)unused;
	open_pair(PATIENT_NS, &a, &b);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i].channel = a;
		senders[i].index = i;
		assert_int_equal(
			pthread_create(&senders[i].thread, NULL, sender_thread, &senders[i]), 0);
	}
	for (unsigned i = 0; i < SENDERS * SENDER_MESSAGES; i++) {
		struct message *message = receive(b);
		unsigned index = message->payload[0];

		assert_int_equal(message->type, MESSAGE_OFFER);
		assert_in_range(index, 0, SENDERS - 1);
		assert_int_equal(message->length_bytes, sender_length(index, next[index]));
		for (uint32_t at = 1; at < message->length_bytes; at++) {
			if (message->payload[at] != (uint8_t)next[index])
				fail_msg("byte %u of message %u is another's", at, next[index]);
		}
		next[index]++;
		free(message);
	}
	for (unsigned i = 0; i < SENDERS; i++) {
		pthread_join(senders[i].thread, NULL);
		assert_int_equal(senders[i].ret, 0);
	}
	channel_close(a);
	channel_close(b);
}

#define MANY 5000u

static void *many_thread(void *argument)
{
	struct sender *sender = argument;

	for (uint32_t i = 0; i < MANY && !sender->ret; i++)
		sender->ret = channel_send(sender->channel, MESSAGE_SLICE_KEY, &i, sizeof(i), NULL);
	return NULL;
}

static void test_more_messages_than_the_queue_holds(void **unused)
{
	struct sender sender = { 0 };
	struct channel *b;

	(void)unused;
	open_pair(PATIENT_NS, &sender.channel, &b);
	assert_int_equal(pthread_create(&sender.thread, NULL, many_thread, &sender), 0);
	usleep(200000); /* the queue fills */
	for (uint32_t i = 0; i < MANY; i++) {
		struct message *message = receive(b);

		assert_memory_equal(message->payload, &i, sizeof(i));
		free(message);
	}
	pthread_join(sender.thread, NULL);
	assert_int_equal(sender.ret, 0);
	channel_close(sender.channel);
	channel_close(b);
}

static void test_closing_with_a_full_queue(void **unused)
{
	struct sender sender = { 0 };
	struct channel *b;

	(void)unused;
	open_pair(PATIENT_NS, &sender.channel, &b);
	assert_int_equal(pthread_create(&sender.thread, NULL, many_thread, &sender), 0);
	pthread_join(sender.thread, NULL); /* all in the queue or the socket */
	assert_int_equal(sender.ret, 0);
	channel_close(b);
	channel_close(sender.channel);
}

/* The session's thread is busy for longer than a heartbeat, while slices are announced. */
static void test_a_full_queue_is_not_the_peers_death(void **unused)
{
	struct sender sender = { 0 };
	struct channel *b;

	(void)unused;
	open_pair(NS_PER_S, &sender.channel, &b);
	assert_int_equal(pthread_create(&sender.thread, NULL, many_thread, &sender), 0);
	pthread_join(sender.thread, NULL);
	assert_int_equal(sender.ret, 0);
	usleep(2500000);
	for (uint32_t i = 0; i < MANY; i++)
		free(receive(b));
	channel_close(sender.channel);
	channel_close(b);
}

int main(void)
{
	static const uint8_t some_secret[STREAM_SECRET_BYTES] = "known to the two of them";
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_content),
		cmocka_unit_test(test_send_owned),
		cmocka_unit_test(test_deadline_and_interruption),
		cmocka_unit_test(test_a_silent_peer_is_dead),
		cmocka_unit_test(test_half_a_message_does_not_keep_it_alive),
		cmocka_unit_test(test_idle_channels_live),
		cmocka_unit_test(test_pings_are_answered),
		cmocka_unit_test(test_the_peer_goes_away),
		cmocka_unit_test(test_sending_to_a_peer_that_is_gone),
		cmocka_unit_test(test_sending_to_a_peer_that_does_not_read),
		cmocka_unit_test(test_hostile_bytes),
		cmocka_unit_test(test_a_pong_from_the_future),
		cmocka_unit_test(test_last_words_arrive),
		cmocka_unit_test(test_closing_with_bytes_unread_is_orderly),
		cmocka_unit_test(test_a_flood_does_not_hold_up_the_close),
		cmocka_unit_test(test_messages_and_records),
		cmocka_unit_test(test_senders_do_not_interleave),
		cmocka_unit_test(test_more_messages_than_the_queue_holds),
		cmocka_unit_test(test_closing_with_a_full_queue),
		cmocka_unit_test(test_a_full_queue_is_not_the_peers_death),
	};
	const struct CMUnitTest with_tls[] = {
		cmocka_unit_test(test_order_and_content),
		cmocka_unit_test(test_send_owned),
		cmocka_unit_test(test_deadline_and_interruption),
		cmocka_unit_test(test_idle_channels_live),
		cmocka_unit_test(test_last_words_arrive),
		cmocka_unit_test(test_messages_and_records),
		cmocka_unit_test(test_senders_do_not_interleave),
		cmocka_unit_test(test_more_messages_than_the_queue_holds),
		cmocka_unit_test(test_closing_with_a_full_queue),
		cmocka_unit_test(test_a_full_queue_is_not_the_peers_death),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, NULL, NULL);

	secret = some_secret;
	return failed + cmocka_run_group_tests_name("TLS", with_tls, NULL, NULL);
}
