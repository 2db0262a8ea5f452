/* SPDX-License-Identifier: Apache-2.0 */
/* Channels to test; see the header. */
#include "channel_rig.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static const uint8_t *secret; /* NULL: plain */

int channels_plain(void **unused)
{
	(void)unused;
	secret = NULL;
	return 0;
}

int channels_under_tls(void **unused)
{
	static const uint8_t some_secret[STREAM_SECRET_BYTES] = "known to the two of them";

	(void)unused;
	secret = some_secret;
	return 0;
}

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

void open_with_stream(uint64_t heartbeat_ns, struct channel **channel, struct stream **stream)
{
	union accepted accepted;
	pthread_t thread;
	int fd;

	connect_pair(&fd, &accepted.fd);
	assert_int_equal(pthread_create(&thread, NULL, accept_thread, &accepted), 0);
	assert_int_equal(stream_connect_lane(fd, secret, LONG_NS, NEVER, stream, NULL), 0);
	pthread_join(thread, NULL);
	assert_non_null(accepted.stream);
	assert_int_equal(channel_open(accepted.stream, heartbeat_ns, channel, NULL), 0);
}

void open_pair(uint64_t heartbeat_ns, struct channel **a, struct channel **b)
{
	struct stream *stream;

	open_with_stream(heartbeat_ns, b, &stream);
	assert_int_equal(channel_open(stream, heartbeat_ns, a, NULL), 0);
}

void open_half(uint64_t heartbeat_ns, struct channel **channel, int *peer)
{
	struct stream *stream;
	int fd;

	connect_pair(&fd, peer);
	assert_int_equal(stream_connect_lane(fd, NULL, LONG_NS, NEVER, &stream, NULL), 0);
	assert_int_equal(channel_open(stream, heartbeat_ns, channel, NULL), 0);
}

void send_raw(int fd, const void *bytes, size_t n)
{
	assert_int_equal(send_all(fd, bytes, n, LONG_NS, NEVER), 0);
}

void send_raw_message(int fd, enum message_type type, const void *payload, uint32_t n)
{
	struct wire_header header = { type, n };
	uint8_t bytes[WIRE_HEADER_BYTES];

	wire_header_encode(&header, bytes);
	send_raw(fd, bytes, sizeof(bytes));
	send_raw(fd, payload, n);
}

struct message *receive(struct channel *channel)
{
	struct ramlift_error error = { 0 };
	struct message *message;

	if (channel_receive(channel, LONG_NS, NEVER, &message, &error))
		fail_msg("%s", error.text);
	return message;
}

void assert_dead(struct channel *channel, int code, const char *word)
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
