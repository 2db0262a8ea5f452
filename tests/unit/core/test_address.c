/* SPDX-License-Identifier: Apache-2.0 */
/* Forms of addresses, and sockets with deadlines: whole transfers,
 * partial progress, interruption. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/ramlift.h"
#include "tests/support/cmocka_all.h"

#define N_OF(a)	    (sizeof(a) / sizeof((a)[0]))
#define LONG_NS	    (clock_now_ns() + 20 * NS_PER_S) /* against hangs only */
#define A_MOMENT_NS (clock_now_ns() + 50 * NS_PER_MS)

static void test_forms(void **unused)
{
	static const struct {
		const char *text;
		int passive, family;
		uint16_t port;
		const char *printed;
	} rows[] = {
		{ "127.0.0.1:7440", 0, AF_INET, 7440, "127.0.0.1:7440" },
		{ "127.0.0.1:0", 0, AF_INET, 0, "127.0.0.1:0" },
		{ "127.0.0.1:65535", 0, AF_INET, 65535, "127.0.0.1:65535" },
		{ "127.0.0.1:0000080", 0, AF_INET, 80, "127.0.0.1:80" },
		{ "[127.0.0.1]:1", 0, AF_INET, 1, "127.0.0.1:1" },
		{ "[::1]:7440", 0, AF_INET6, 7440, "[::1]:7440" },
		{ "[fd00:0:0::1]:1", 0, AF_INET6, 1, "[fd00::1]:1" },
		{ "0.0.0.0:1", 1, AF_INET, 1, "0.0.0.0:1" },
		{ "[::]:1", 1, AF_INET6, 1, "[::]:1" },
	};

	(void)unused;
	for (size_t i = 0; i < N_OF(rows); i++) {
		struct ramlift_error error = { 0 };
		struct address address;

		if (address_parse(rows[i].text, rows[i].passive, &address, &error))
			fail_msg("%s: %s", rows[i].text, error.text);
		assert_int_equal(address.socket.ss_family, rows[i].family);
		assert_int_equal(address_port(&address), rows[i].port);
		assert_string_equal(address.text, rows[i].printed);
		address_set_port(&address, 12345);
		assert_int_equal(address_port(&address), 12345);
		assert_non_null(strstr(address.text, ":12345"));
	}
}

static void test_any_address_only_where_it_listens(void **unused)
{
	struct address address;

	(void)unused;
	assert_int_equal(address_parse(":7440", 1, &address, NULL), 0);
	assert_int_equal(address_port(&address), 7440);
	assert_int_equal(address_parse(":7440", 0, &address, NULL), -EINVAL);
	assert_int_equal(address_parse("[]:7440", 0, &address, NULL), -EINVAL);
}

static void test_bad_forms(void **unused)
{
	static const char *const forms[] = {
		"",
		":",
		"host",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:x",
		"127.0.0.1:1x",
		"127.0.0.1:-1",
		"127.0.0.1:+1",
		"127.0.0.1: 1",
		"127.0.0.1:1 ",
		"127.0.0.1:65536",
		"127.0.0.1:99999",
		"127.0.0.1:12345678",
		"::1:7440",
		"::1",
		"fd00::1:1",
		"[::1]",
		"[::1]7440",
		"[::1:7440",
		"::1]:7440",
		"[::1]:",
		"[::1]:0x10",
		"a:b:1",
	};
	struct address address, before;
	char text[400];

	(void)unused;
	memset(&address, 0x5a, sizeof(address));
	before = address;
	for (size_t i = 0; i < N_OF(forms); i++) {
		struct ramlift_error error = { 0 };

		if (address_parse(forms[i], 0, &address, &error) != -EINVAL)
			fail_msg("\"%s\" is taken", forms[i]);
		assert_int_equal(error.code, -EINVAL);
		assert_non_null(strstr(error.text, "host:port"));
	}
	/* A name that is too long for any host. */
	memset(text, 'a', sizeof(text));
	strcpy(text + 300, ":1");
	assert_int_equal(address_parse(text, 0, &address, NULL), -EINVAL);
	assert_memory_equal(&address, &before, sizeof(before)); /* untouched */
}

static void test_names_that_do_not_resolve(void **unused)
{
	struct ramlift_error error = { 0 };
	struct address address;

	(void)unused;
	/* Numbers in brackets only, so that no name server is asked. */
	assert_int_equal(address_parse("[1:2]:80", 0, &address, &error), -EHOSTUNREACH);
	assert_non_null(strstr(error.text, "cannot resolve"));
}

/* ---- sockets ---- */

static void listen_at_loopback(struct address *address, int *fd)
{
	assert_int_equal(address_parse("127.0.0.1:0", 1, address, NULL), 0);
	assert_int_equal(address_listen(address, fd, NULL), 0);
	assert_int_equal(address_of_socket(*fd, address), 0);
	assert_int_not_equal(address_port(address), 0);
}

static void test_connect_and_names(void **unused)
{
	struct address address, at_client, at_server;
	int listener, client, server;

	(void)unused;
	listen_at_loopback(&address, &listener);
	assert_int_equal(address_connect(&address, LONG_NS, -1, &client, NULL), 0);
	assert_int_equal(wait_for_fd(listener, POLLIN, LONG_NS, -1), 0);
	server = accept(listener, NULL, NULL);
	assert_true(server >= 0);
	assert_int_equal(address_of_peer(client, &at_client), 0);
	assert_string_equal(at_client.text, address.text);
	assert_int_equal(address_of_socket(client, &at_client), 0);
	assert_int_equal(address_of_peer(server, &at_server), 0);
	assert_string_equal(at_client.text, at_server.text);
	assert_int_equal(address_of_peer(listener, &at_server), -ENOTCONN);
	close(client);
	close(server);
	close(listener);
}

static void test_failures_to_listen_and_connect(void **unused)
{
	struct ramlift_error error = { 0 };
	struct address address;
	int listener, fd = 77;

	(void)unused;
	listen_at_loopback(&address, &listener);
	assert_int_equal(address_listen(&address, &fd, &error), -EADDRINUSE);
	assert_non_null(strstr(error.text, address.text));
	close(listener);
	assert_int_equal(address_connect(&address, LONG_NS, -1, &fd, &error), -ECONNREFUSED);
	assert_int_equal(error.code, -ECONNREFUSED);
	assert_non_null(strstr(error.text, address.text));
	assert_int_equal(fd, 77);
}

static void test_wait(void **unused)
{
	int fd = eventfd(0, 0), interrupt_fd = eventfd(0, 0);
	uint64_t one = 1;

	(void)unused;
	assert_int_equal(wait_for_fd(fd, POLLIN, A_MOMENT_NS, interrupt_fd), -ETIMEDOUT);
	assert_int_equal(wait_for_fd(fd, POLLIN, A_MOMENT_NS, -1), -ETIMEDOUT);
	assert_int_equal(wait_for_fd(fd, POLLIN, 0, -1), -ETIMEDOUT);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(wait_for_fd(fd, POLLIN, LONG_NS, interrupt_fd), 0);
	assert_int_equal(wait_for_fd(fd, POLLIN, 0, -1), 0); /* as a look */
	/* The interruption comes first. */
	assert_int_equal(write(interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(wait_for_fd(fd, POLLIN, LONG_NS, interrupt_fd), -ECANCELED);
	assert_int_equal(read(fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(wait_for_fd(fd, POLLIN, LONG_NS, interrupt_fd), -ECANCELED);
	close(fd);
	close(interrupt_fd);
}

#define STREAM_BYTES (4u << 20)

struct stream {
	int fd;
	unsigned char *data;
};

/* Read in odd pieces, slowly at first, so that the sender meets a full socket. */
static void *odd_reader(void *argument)
{
	struct stream *stream = argument;
	size_t got = 0;

	for (size_t piece = 1; got < STREAM_BYTES; piece = piece * 3 % 60007 + 1) {
		size_t left = STREAM_BYTES - got;
		ssize_t n = read(stream->fd, stream->data + got, piece < left ? piece : left);

		if (n <= 0)
			break;
		got += (size_t)n;
		if (got < 100)
			usleep(1000);
	}
	return NULL;
}

static void *odd_writer(void *argument)
{
	struct stream *stream = argument;
	size_t put = 0;

	for (size_t piece = 1; put < STREAM_BYTES; piece = piece * 3 % 60007 + 1) {
		size_t left = STREAM_BYTES - put;
		ssize_t n = write(stream->fd, stream->data + put, piece < left ? piece : left);

		if (n <= 0)
			break;
		put += (size_t)n;
		if (put < 100)
			usleep(1000);
	}
	return NULL;
}

/* The first end is non-blocking, as the calls under test want it; the second is not. */
static void make_pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
}

static void stream_through(bool send)
{
	unsigned char *ours = malloc(STREAM_BYTES), *theirs = malloc(STREAM_BYTES);
	struct stream stream;
	pthread_t thread;
	int fds[2], ret;

	assert_non_null(ours);
	assert_non_null(theirs);
	for (size_t i = 0; i < STREAM_BYTES; i++)
		(send ? ours : theirs)[i] = (unsigned char)(i * 7 + i / 251);
	memset(send ? theirs : ours, 0, STREAM_BYTES);
	make_pair(fds);
	stream = (struct stream){ fds[1], theirs };
	assert_int_equal(pthread_create(&thread, NULL, send ? odd_reader : odd_writer, &stream), 0);
	if (send)
		ret = send_all(fds[0], ours, STREAM_BYTES, LONG_NS, -1);
	else
		ret = receive_all(fds[0], ours, STREAM_BYTES, LONG_NS, -1);
	pthread_join(thread, NULL);
	assert_int_equal(ret, 0);
	assert_memory_equal(ours, theirs, STREAM_BYTES);
	close(fds[0]);
	close(fds[1]);
	free(ours);
	free(theirs);
}

static void test_partial_progress(void **unused)
{
	(void)unused;
	stream_through(true);
	stream_through(false);
}

static void test_the_end_of_the_stream(void **unused)
{
	char bytes[10];
	int fds[2];

	(void)unused;
	make_pair(fds);
	assert_int_equal(write(fds[1], "12345", 5), 5);
	close(fds[1]);
	assert_int_equal(receive_all(fds[0], bytes, 5, LONG_NS, -1), 0);
	assert_memory_equal(bytes, "12345", 5);
	assert_int_equal(receive_all(fds[0], bytes, 1, LONG_NS, -1), -ECONNRESET);
	assert_int_equal(send_all(fds[0], bytes, 1, LONG_NS, -1), -EPIPE); /* and no SIGPIPE */
	assert_int_equal(receive_all(fds[0], bytes, 0, LONG_NS, -1), 0);
	assert_int_equal(send_all(fds[0], NULL, 0, LONG_NS, -1), 0);
	close(fds[0]);

	make_pair(fds);
	assert_int_equal(write(fds[1], "123", 3), 3);
	close(fds[1]);
	assert_int_equal(receive_all(fds[0], bytes, 5, LONG_NS, -1), -ECONNRESET);
	close(fds[0]);
}

static void test_a_peer_that_does_nothing(void **unused)
{
	char *much = calloc(1, STREAM_BYTES);
	int interrupt_fd = eventfd(0, 0);
	uint64_t one = 1;
	int fds[2];

	(void)unused;
	assert_non_null(much);
	make_pair(fds);
	assert_int_equal(receive_all(fds[0], much, 1, A_MOMENT_NS, interrupt_fd), -ETIMEDOUT);
	assert_int_equal(send_all(fds[0], much, STREAM_BYTES, A_MOMENT_NS, interrupt_fd),
			 -ETIMEDOUT);
	assert_int_equal(write(interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(receive_all(fds[0], much, 1, LONG_NS, interrupt_fd), -ECANCELED);
	assert_int_equal(send_all(fds[0], much, STREAM_BYTES, LONG_NS, interrupt_fd), -ECANCELED);
	close(fds[0]);
	close(fds[1]);
	close(interrupt_fd);
	free(much);
}

static void *interrupt_soon(void *argument)
{
	uint64_t one = 1;

	usleep(50000);
	if (write(*(int *)argument, &one, sizeof(one)) != sizeof(one))
		abort();
	return NULL;
}

static void test_interrupted_in_the_middle(void **unused)
{
	int interrupt_fd = eventfd(0, 0);
	pthread_t thread;
	char bytes[10];
	int fds[2];

	(void)unused;
	make_pair(fds);
	assert_int_equal(write(fds[1], "123", 3), 3);
	assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, &interrupt_fd), 0);
	assert_int_equal(receive_all(fds[0], bytes, 5, LONG_NS, interrupt_fd), -ECANCELED);
	pthread_join(thread, NULL);
	close(fds[0]);
	close(fds[1]);
	close(interrupt_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_any_address_only_where_it_listens),
		cmocka_unit_test(test_bad_forms),
		cmocka_unit_test(test_names_that_do_not_resolve),
		cmocka_unit_test(test_connect_and_names),
		cmocka_unit_test(test_failures_to_listen_and_connect),
		cmocka_unit_test(test_wait),
		cmocka_unit_test(test_partial_progress),
		cmocka_unit_test(test_the_end_of_the_stream),
		cmocka_unit_test(test_a_peer_that_does_nothing),
		cmocka_unit_test(test_interrupted_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
