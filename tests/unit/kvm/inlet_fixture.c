/* SPDX-License-Identifier: Apache-2.0 */
#include "inlet_fixture.h"

#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int region_of(void *context, const struct stream_block *block)
{
	(void)context;
	if (!strcmp(block->name, "ram"))
		return 0;
	return strcmp(block->name, "second") ? -1 : 1;
}

void bench_open(struct bench *bench)
{
	memset(bench, 0, sizeof(*bench));
	fake_carried_init(&bench->source.carried);
	assert_int_equal(inlet_open(0, &bench->inlet, &bench->error), 0);
	assert_true(inlet_port(bench->inlet));
}

void bench_start(struct bench *bench)
{
	assert_int_equal(
		inlet_start(bench->inlet, getpid(), &bench->source, region_of, NULL, &bench->error),
		0);
}

void bench_init(struct bench *bench)
{
	bench_open(bench);
	bench_start(bench);
}

void bench_fini(struct bench *bench)
{
	inlet_close(bench->inlet);
	for (unsigned i = 0; i < bench->n_fds; i++)
		bench_disconnect(bench, i);
	assert_int_equal(bench->source.carried.n_outside, 0);
	fake_carried_fini(&bench->source.carried);
}

int bench_connect(struct bench *bench)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(inlet_port(bench->inlet)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0 && bench->n_fds < sizeof(bench->fds) / sizeof(bench->fds[0]));
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	bench->fds[bench->n_fds++] = fd;
	return fd;
}

void bench_send(int fd, const struct bytes *bytes, size_t from, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, bytes->data + from, n, MSG_NOSIGNAL);

		assert_true(sent > 0);
		from += (size_t)sent;
		n -= (size_t)sent;
	}
}

void bench_send_all(int fd, const struct bytes *bytes)
{
	bench_send(fd, bytes, 0, bytes->used);
}

void bench_disconnect(struct bench *bench, unsigned connection)
{
	if (bench->fds[connection] >= 0)
		close(bench->fds[connection]);
	bench->fds[connection] = -1;
}

struct expectation {
	struct bench *bench;
	unsigned stream, number;
	size_t n_bytes;
	int fd;
};

static bool named(void *context)
{
	const struct expectation *expected = context;

	return fake_carried_named(&expected->bench->source.carried) >= expected->number;
}

void bench_await_named(struct bench *bench, unsigned n_pages)
{
	struct expectation expected = { .bench = bench, .number = n_pages };

	fake_carried_await(named, &expected, "pages are named");
}

static bool has_bytes(void *context)
{
	const struct expectation *expected = context;

	return fake_carried_bytes(&expected->bench->source.carried, expected->stream) >=
	       expected->n_bytes;
}

void bench_await_bytes(struct bench *bench, unsigned stream, size_t n_bytes)
{
	struct expectation expected = { .bench = bench, .stream = stream, .n_bytes = n_bytes };

	fake_carried_await(has_bytes, &expected, "bytes are passed on");
}

static bool has_ended(void *context)
{
	const struct expectation *expected = context;

	return fake_carried_ends(&expected->bench->source.carried, expected->stream);
}

void bench_await_end(struct bench *bench, unsigned stream)
{
	struct expectation expected = { .bench = bench, .stream = stream };

	fake_carried_await(has_ended, &expected, "a stream's end is passed on");
}

bool bench_complete(struct bench *bench)
{
	uint64_t since_ns = 0;
	bool complete = inlet_complete(bench->inlet, &since_ns);

	assert_true(complete == (since_ns != 0));
	return complete;
}

static bool is_complete(void *context)
{
	return bench_complete(context);
}

void bench_await_complete(struct bench *bench)
{
	fake_carried_await(is_complete, bench, "all has been read");
}

static bool is_closed(void *context)
{
	const struct expectation *expected = context;
	char byte;
	ssize_t n = recv(expected->fd, &byte, 1, MSG_DONTWAIT);

	return !n || (n < 0 && errno == ECONNRESET);
}

void bench_await_turned_away(int fd)
{
	struct expectation expected = { .fd = fd };

	fake_carried_await(is_closed, &expected, "a connection is turned away");
}

static bool has_failed(void *context)
{
	struct bench *bench = context;

	return inlet_check(bench->inlet, &bench->error) != 0;
}

int bench_await_failure(struct bench *bench, const char *words)
{
	fake_carried_await(has_failed, bench, words);
	if (!strstr(bench->error.text, words))
		fail_msg("'%s', and not '%s'", bench->error.text, words);
	return bench->error.code;
}

static bool has_looked(void *context)
{
	const struct expectation *expected = context;

	return atomic_load(&expected->bench->source.carried.backlog_asked) - expected->number > 20;
}

void bench_await_looks(struct bench *bench)
{
	struct expectation expected = {
		.bench = bench,
		.number = atomic_load(&bench->source.carried.backlog_asked),
	};

	fake_carried_await(has_looked, &expected, "somebody waits for room");
}

void bench_assert_bytes(struct bench *bench, unsigned stream, const void *bytes, size_t n_bytes)
{
	struct fake_carried *carried = &bench->source.carried;

	pthread_mutex_lock(&carried->lock);
	assert_int_equal(carried->streams[stream].n_bytes, n_bytes);
	if (n_bytes)
		assert_memory_equal(carried->streams[stream].bytes, bytes, n_bytes);
	pthread_mutex_unlock(&carried->lock);
}

void put_hello(struct bytes *bytes, unsigned channel)
{
	put_number(bytes, 0x11223344, 4);
	put_number(bytes, 1, 4);
	put_number(bytes, 0, 8); /* the UUID */
	put_number(bytes, 0, 8);
	put_number(bytes, channel, 1);
	for (unsigned i = 25; i < MULTIFD_HELLO_BYTES; i++)
		put_number(bytes, 0, 1);
}

static void put_zeros(struct bytes *bytes, size_t n)
{
	static const uint8_t zeros[4096];

	while (n) {
		size_t part = n < sizeof(zeros) ? n : sizeof(zeros);

		put_bytes(bytes, zeros, part);
		n -= part;
	}
}

void put_packet(struct bytes *bytes, unsigned flags, const char *block, unsigned first_page,
		unsigned n_normal, unsigned n_zero)
{
	unsigned n_pages = n_normal + n_zero;

	put_number(bytes, 0x11223344, 4);
	put_number(bytes, 1, 4);
	put_number(bytes, flags, 4);
	put_number(bytes, MULTIFD_MAX_PAGES, 4);
	put_number(bytes, n_normal, 4);
	put_number(bytes, n_normal * 4096, 4);
	put_number(bytes, 7, 8);
	put_number(bytes, n_zero, 4);
	put_zeros(bytes, 28);
	put_bytes(bytes, block, strlen(block));
	put_zeros(bytes, 256 - strlen(block));
	for (unsigned i = 0; i < MULTIFD_MAX_PAGES; i++)
		put_number(bytes, i < n_pages ? (first_page + i) * 4096ull : 0, 8);
	for (unsigned i = 0; i < n_normal; i++) {
		uint8_t page[4096];

		memset(page, 0x5a, sizeof(page));
		put_bytes(bytes, page, sizeof(page));
	}
}

void put_beginning(struct bytes *bytes)
{
	put_ram_begins(bytes);
	put_section_ends(bytes, true);
}

void put_ending(struct bytes *bytes)
{
	put_ram_continues(bytes, true);
	put_section_ends(bytes, true);
}
