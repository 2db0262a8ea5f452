/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Look at the beginning of QEMU's main connection without taking it, for a proxy that nobody told
 * whose guest comes: which process it is, and which RAM blocks it will send.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/error.h"
#include "kvm/qemu/inlet_private.h"
#include "kvm/qemu/socket_owner.h"

#define TABLE_BYTES (64u << 10) /* by far more than a stream has before its pages */
#define TABLE_NS    (10 * NS_PER_S)

struct peek {
	struct stream_block *blocks;
	unsigned n_blocks;
	bool done;
};

static int ignore(void *context, const void *bytes, size_t n_bytes, struct ramlift_error *error)
{
	(void)context;
	(void)bytes;
	(void)n_bytes;
	(void)error;
	return 0;
}

/* The table is all that is wanted: end the parsing there. */
static int take_blocks(void *context, struct stream_block *blocks, unsigned n_blocks,
		       struct ramlift_error *error)
{
	struct peek *peek = context;

	memcpy(peek->blocks, blocks, n_blocks * sizeof(blocks[0]));
	peek->n_blocks = n_blocks;
	peek->done = true;
	return error_set(error, -ECANCELED, "enough");
}

static int parse(struct peek *peek, const void *bytes, size_t n_bytes, struct ramlift_error *error)
{
	static const struct stream_sink sink = { .pass = ignore, .blocks = take_blocks };
	struct qemu_stream *stream;
	int ret;

	ret = qemu_stream_new(&sink, peek, &stream, error);
	if (ret)
		return ret;
	ret = qemu_stream_feed(stream, bytes, n_bytes, error);
	qemu_stream_free(stream);
	return peek->done ? 0 : ret;
}

/* What has come so far is parsed again and again until the table is whole. */
static int read_table(struct inlet *inlet, struct peek *peek, int interrupt_fd,
		      struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + TABLE_NS;
	char *bytes = malloc(TABLE_BYTES);
	int ret = bytes ? 0 : -ENOMEM;

	while (!ret && !peek->done) {
		ssize_t n = recv(inlet->peeked_fd, bytes, TABLE_BYTES, MSG_PEEK | MSG_DONTWAIT);

		if (!n)
			ret = error_set(error, -ECONNRESET, "QEMU closed its connection again");
		else if (n > 0)
			ret = parse(peek, bytes, (size_t)n, error);
		/* New bytes cannot be waited for while old ones are there: look now and then. */
		if (!ret && !peek->done)
			ret = wait_for_fd(interrupt_fd, POLLIN, clock_now_ns() + NS_PER_MS, -1)
				      ? 0
				      : -ECANCELED;
		if (!ret && !peek->done && (n == TABLE_BYTES || clock_now_ns() > deadline_ns))
			ret = error_set(error, -EPROTO,
					"QEMU's stream does not begin with a table of RAM blocks");
	}
	free(bytes);
	return ret;
}

static int find_process(struct inlet *inlet, pid_t *pid, struct ramlift_error *error)
{
	struct address here, there;
	int ret = address_of_socket(inlet->peeked_fd, &here);

	if (!ret)
		ret = address_of_peer(inlet->peeked_fd, &there);
	if (ret)
		return error_set(error, ret, "the connection from QEMU broke: %s", strerror(-ret));
	return socket_owner((struct sockaddr *)&there.socket, (struct sockaddr *)&here.socket, pid,
			    error);
}

int inlet_peek(struct inlet *inlet, int interrupt_fd, pid_t *pid, struct stream_block *blocks,
	       unsigned *n_blocks, struct ramlift_error *error)
{
	struct peek peek = { .blocks = blocks };
	int ret;

	do {
		ret = wait_for_fd(inlet->listen_fd, POLLIN, UINT64_MAX, interrupt_fd);
		if (!ret)
			inlet->peeked_fd =
				accept4(inlet->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} while (ret == -ETIMEDOUT || (!ret && inlet->peeked_fd < 0));
	if (ret)
		return error_set(error, ret, ret == -ECANCELED ? "cancelled" : "cannot listen: %s",
				 strerror(-ret));
	/* libvirt connects and hands the socket over: once QEMU has sent something, QEMU has it. */
	ret = read_table(inlet, &peek, interrupt_fd, error);
	if (!ret)
		ret = find_process(inlet, pid, error);
	if (ret)
		return ret;
	*n_blocks = peek.n_blocks;
	return 0;
}
