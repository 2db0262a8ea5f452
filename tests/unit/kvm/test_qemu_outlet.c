/* SPDX-License-Identifier: Apache-2.0 */
/* The outlet against a QEMU that listens, and reads when it likes to. */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/ramlift.h"
#include "core/wire.h"
#include "fake_carried.h"
#include "kvm/qemu/outlet.h"

/* Long enough for what must not happen; a slow machine only makes the test milder. */
#define SETTLE_MS 20

struct bench {
	struct ramlift_destination destination;
	struct outlet *outlet;
	struct ramlift_error error;
	char folder[32];
	struct sockaddr_un address;
	int listener;
	int fds[8]; /* QEMU's ends, in the order in which they came */
	unsigned n_fds;
	size_t n_read;
};

static void bench_init(struct bench *bench)
{
	memset(bench, 0, sizeof(*bench));
	fake_carried_init(&bench->destination.carried);
	strcpy(bench->folder, "/tmp/ramlift-outlet-XXXXXX");
	assert_non_null(mkdtemp(bench->folder));
	bench->address.sun_family = AF_UNIX;
	snprintf(bench->address.sun_path, sizeof(bench->address.sun_path), "%s/qemu",
		 bench->folder);
	bench->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(
		bind(bench->listener, (struct sockaddr *)&bench->address, sizeof(bench->address)),
		0);
	assert_int_equal(listen(bench->listener, 8), 0);
	assert_int_equal(outlet_open((struct sockaddr *)&bench->address, sizeof(bench->address),
				     &bench->destination, &bench->outlet, &bench->error),
			 0);
}

static void hang_up(struct bench *bench, unsigned connection)
{
	close(bench->fds[connection]);
	bench->fds[connection] = -1;
}

static void bench_fini(struct bench *bench)
{
	outlet_close(bench->outlet);
	for (unsigned i = 0; i < bench->n_fds; i++) {
		if (bench->fds[i] >= 0)
			hang_up(bench, i);
	}
	close(bench->listener);
	unlink(bench->address.sun_path);
	rmdir(bench->folder);
	fake_carried_fini(&bench->destination.carried);
}

static void give(struct bench *bench, unsigned stream, const char *words)
{
	assert_int_equal(outlet_write(bench->outlet, stream, words, strlen(words), &bench->error),
			 0);
}

static void give_end(struct bench *bench, unsigned stream)
{
	assert_int_equal(outlet_write(bench->outlet, stream, NULL, 0, &bench->error), 0);
}

static bool comes(int fd, int timeout_ms)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	return poll(&poll_fd, 1, timeout_ms) > 0;
}

static int take_connection(struct bench *bench)
{
	int fd;

	assert_true(comes(bench->listener, 60000));
	fd = accept4(bench->listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	bench->fds[bench->n_fds++] = fd;
	return fd;
}

static void read_bytes(int fd, void *bytes, size_t n_bytes)
{
	for (size_t n = 0; n < n_bytes;) {
		ssize_t got;

		assert_true(comes(fd, 60000));
		got = recv(fd, (char *)bytes + n, n_bytes - n, 0);
		assert_true(got > 0);
		n += (size_t)got;
	}
}

static void expect(int fd, const char *words)
{
	char bytes[64] = "";

	read_bytes(fd, bytes, strlen(words));
	assert_string_equal(bytes, words);
}

static void expect_end(int fd)
{
	char byte;

	assert_true(comes(fd, 60000));
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
}

/* QEMU before 8.0 takes the first connection for the main one. */
static void test_the_main_connection_comes_first(void **unused)
{
	struct bench bench;
	int main, first, second;

	(void)unused;
	bench_init(&bench);
	assert_false(comes(bench.listener, SETTLE_MS));
	give(&bench, 2, "two");
	give(&bench, 1, "one");
	assert_false(comes(bench.listener, SETTLE_MS));
	give(&bench, 0, "main");
	main = take_connection(&bench);
	first = take_connection(&bench);
	second = take_connection(&bench);
	expect(main, "main");
	expect(first, "one");
	expect(second, "two");
	give(&bench, 1, " more");
	expect(first, " more");
	assert_false(comes(bench.listener, SETTLE_MS));
	bench_fini(&bench);
}

/* Pieces of three streams mixed, of all sizes, against a reader that takes them one stream after
 * the other. */
static void test_order_within_each_stream(void **unused)
{
	enum { BYTES = 3 << 20 };
	uint8_t *bytes = malloc(BYTES), *got = malloc(BYTES);
	size_t given[3] = { 0 };
	struct bench bench;
	int fds[3];

	(void)unused;
	assert_true(bytes && got);
	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251);
	bench_init(&bench);
	for (unsigned piece = 0; given[0] + given[1] + given[2] < 3ull * BYTES; piece++) {
		unsigned stream = (unsigned)random() % 3;
		size_t n = piece % 2 ? WIRE_MAX_STREAM_BYTES : 1 + (size_t)random() % 5000;

		n = n < BYTES - given[stream] ? n : BYTES - given[stream];
		if (!n)
			continue;
		assert_int_equal(
			outlet_write(bench.outlet, stream, bytes + given[stream], n, &bench.error),
			0);
		given[stream] += n;
	}
	/* Streams beside the main one connect in their order where they had something to say. */
	for (unsigned i = 0; i < 3; i++)
		give_end(&bench, i);
	for (unsigned i = 0; i < 3; i++)
		fds[i] = take_connection(&bench);
	for (unsigned i = 3; i-- > 0;) {
		memset(got, 0, BYTES);
		read_bytes(fds[i], got, BYTES);
		assert_memory_equal(got, bytes, BYTES);
		expect_end(fds[i]);
	}
	bench_fini(&bench);
	free(bytes);
	free(got);
}

/* QEMU's main thread waits for one stream while it does not read another. */
static void test_no_stream_holds_up_another(void **unused)
{
	enum { BYTES = 8 << 20 };
	uint8_t *bytes = calloc(BYTES, 1);
	struct bench bench;
	int main, channel;

	(void)unused;
	assert_non_null(bytes);
	bench_init(&bench);
	give(&bench, 0, "main");
	main = take_connection(&bench);
	expect(main, "main");
	assert_int_equal(outlet_write(bench.outlet, 0, bytes, BYTES, &bench.error), 0);
	give(&bench, 1, "channel");
	channel = take_connection(&bench);
	expect(channel, "channel");
	assert_int_equal(outlet_write(bench.outlet, 1, bytes, BYTES, &bench.error), 0);
	/* And the return path comes, although nothing is read. */
	assert_int_equal(send(main, "loading", 7, MSG_NOSIGNAL), 7);
	while (fake_carried_bytes(&bench.destination.carried, 0) < 7)
		usleep(1000);
	read_bytes(main, bytes, BYTES);
	read_bytes(channel, bytes, BYTES);
	bench_fini(&bench);
	free(bytes);
}

static bool return_path_has_ended(void *context)
{
	struct bench *bench = context;

	return fake_carried_ends(&bench->destination.carried, 0);
}

static void test_return_path(void **unused)
{
	struct bench bench;
	struct fake_carried *carried = &bench.destination.carried;
	int main, channel;

	(void)unused;
	bench_init(&bench);
	give(&bench, 0, "main");
	give(&bench, 1, "channel");
	main = take_connection(&bench);
	channel = take_connection(&bench);
	/* QEMU says nothing there; if it did, nobody would be interested. */
	assert_int_equal(send(channel, "noise", 5, MSG_NOSIGNAL), 5);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(send(main, "0123456789", 10, MSG_NOSIGNAL), 10);
	/* It has loaded its guest, and closes both. */
	expect(main, "main");
	expect(channel, "channel");
	hang_up(&bench, 1);
	hang_up(&bench, 0);
	fake_carried_await(return_path_has_ended, &bench, "the return path's end");
	/* That is no error as long as nobody has anything more to say. */
	give_end(&bench, 0);
	give_end(&bench, 1);
	outlet_close(bench.outlet);
	bench.outlet = NULL;
	assert_int_equal(carried->streams[0].n_bytes, 10000);
	for (unsigned i = 0; i < 10000; i++)
		assert_int_equal(carried->streams[0].bytes[i], '0' + i % 10);
	assert_int_equal(carried->streams[0].n_ends, 1);
	assert_int_equal(carried->streams[1].n_pieces + carried->streams[1].n_ends, 0);
	bench_fini(&bench);
}

static bool writing_fails(void *context)
{
	struct bench *bench = context;

	return outlet_write(bench->outlet, 0, "more", 4, &bench->error) != 0;
}

static void expect_failure(struct bench *bench, int code, const char *words)
{
	fake_carried_await(writing_fails, bench, words);
	assert_int_equal(bench->error.code, code);
	if (!strstr(bench->error.text, words))
		fail_msg("'%s', and not '%s'", bench->error.text, words);
	/* It stays so. */
	assert_int_equal(outlet_write(bench->outlet, 1, "more", 4, &bench->error), code);
	assert_non_null(strstr(bench->error.text, words));
}

static void test_qemu_hangs_up(void **unused)
{
	struct bench bench;

	(void)unused;
	bench_init(&bench);
	give(&bench, 0, "main");
	expect(take_connection(&bench), "main");
	hang_up(&bench, 0);
	expect_failure(&bench, -EPIPE, "cannot write to the destination's QEMU: Broken pipe");
	bench_fini(&bench);
}

static void test_qemu_is_gone(void **unused)
{
	struct bench bench;

	(void)unused;
	bench_init(&bench);
	unlink(bench.address.sun_path);
	expect_failure(&bench, -ENOENT, "cannot connect to the destination's QEMU: No such file");
	bench_fini(&bench);
}

/* The source is gone, and QEMU speaks to it. */
static void test_the_session_fails(void **unused)
{
	struct bench bench;

	(void)unused;
	bench_init(&bench);
	fake_carried_fail(&bench.destination.carried, -ECONNRESET);
	give(&bench, 0, "main");
	assert_int_equal(send(take_connection(&bench), "loaded", 6, MSG_NOSIGNAL), 6);
	expect_failure(&bench, -ECONNRESET, "the session is over");
	bench_fini(&bench);
}

/* The main connection has not come, so nothing is taken at all. */
static void test_what_waits_is_limited(void **unused)
{
	enum { PIECE = 32 << 20 };
	uint8_t *bytes = calloc(PIECE, 1);
	struct bench bench;

	(void)unused;
	assert_non_null(bytes);
	bench_init(&bench);
	for (unsigned i = 0; i < OUTLET_MAX_BYTES / PIECE - 1; i++)
		assert_int_equal(outlet_write(bench.outlet, 1 + i % 2, bytes, PIECE, &bench.error),
				 0);
	/* What keeping a piece costs counts as well, or small ones would be without limit. */
	assert_int_equal(outlet_write(bench.outlet, 3, bytes, PIECE, &bench.error), -ENOBUFS);
	assert_non_null(strstr(bench.error.text, "does not read its stream"));
	give_end(&bench, 1);
	free(bytes);
	/* What is not taken in time is dropped. */
	bench_fini(&bench);
}

static void *read_late(void *argument)
{
	struct bench *bench = argument;
	char bytes[1 << 14];

	usleep(SETTLE_MS * 1000);
	for (ssize_t n = 1; n > 0; bench->n_read += (size_t)n) {
		n = recv(bench->fds[0], bytes, sizeof(bytes), 0);
		n = n > 0 ? n : 0;
	}
	return NULL;
}

/* All that was given arrives although the outlet is closed at once. */
static void test_close_writes_what_is_left(void **unused)
{
	enum { BYTES = 640 << 10 }; /* more than a socket holds */
	uint8_t *bytes = calloc(BYTES, 1);
	struct bench bench;
	pthread_t reader;

	(void)unused;
	assert_non_null(bytes);
	bench_init(&bench);
	outlet_close(bench.outlet); /* before there was anything to say */
	assert_false(comes(bench.listener, 0));
	assert_int_equal(outlet_open((struct sockaddr *)&bench.address, sizeof(bench.address),
				     &bench.destination, &bench.outlet, &bench.error),
			 0);
	assert_int_equal(outlet_write(bench.outlet, 0, bytes, BYTES, &bench.error), 0);
	take_connection(&bench);
	assert_int_equal(pthread_create(&reader, NULL, read_late, &bench), 0);
	outlet_close(bench.outlet);
	bench.outlet = NULL;
	pthread_join(reader, NULL);
	assert_int_equal(bench.n_read, BYTES);
	outlet_close(NULL);
	bench_fini(&bench);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_main_connection_comes_first),
		cmocka_unit_test(test_order_within_each_stream),
		cmocka_unit_test(test_no_stream_holds_up_another),
		cmocka_unit_test(test_return_path),
		cmocka_unit_test(test_qemu_hangs_up),
		cmocka_unit_test(test_qemu_is_gone),
		cmocka_unit_test(test_the_session_fails),
		cmocka_unit_test(test_what_waits_is_limited),
		cmocka_unit_test(test_close_writes_what_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
