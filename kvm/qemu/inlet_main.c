/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's main connection: everything but the pages of shared blocks goes on, in order; what follows
 * the RAM section waits for the release. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/error.h"
#include "kvm/qemu/inlet_private.h"

#define READ_BYTES (256u << 10)

struct reader {
	struct inlet_connection *connection;
	struct qemu_stream *stream;
	bool ram_ended;
	bool has_devices; /* something came behind the RAM section */
	/* Neighbouring pages are named together. */
	int run_region;
	bool run_zeros;
	uint64_t run_first, run_pages;
};

static void name_run(struct reader *reader)
{
	struct ramlift_source *source = reader->connection->inlet->source;
	unsigned region = (unsigned)reader->run_region;

	if (reader->run_pages && reader->run_zeros)
		source_queue_zeros(source, region, reader->run_first, reader->run_pages);
	else if (reader->run_pages)
		source_queue_pages(source, region, reader->run_first, reader->run_pages);
	inlet_named(reader->connection, reader->run_pages);
	reader->run_pages = 0;
}

static int await_release(struct inlet *inlet)
{
	int ret;

	pthread_mutex_lock(&inlet->lock);
	while (!inlet->released && !inlet->stopping && !inlet->error.code)
		pthread_cond_wait(&inlet->changed, &inlet->lock);
	ret = inlet->released && !inlet->stopping ? 0 : -ECANCELED;
	pthread_mutex_unlock(&inlet->lock);
	return ret;
}

/* Rule 6: no byte of device state before the lanes are fenced. */
static int pass(void *context, const void *bytes, size_t n_bytes, struct ramlift_error *error)
{
	struct reader *reader = context;

	if (reader->ram_ended) {
		int ret = await_release(reader->connection->inlet);

		if (ret)
			return error_set(error, ret, "stopped");
		reader->has_devices = true;
	}
	return inlet_pass(reader->connection, bytes, n_bytes, error);
}

static int take_blocks(void *context, struct stream_block *blocks, unsigned n_blocks,
		       struct ramlift_error *error)
{
	struct reader *reader = context;
	struct inlet *inlet = reader->connection->inlet;
	unsigned n_carried = 0;

	pthread_mutex_lock(&inlet->lock);
	for (unsigned i = 0; i < n_blocks; i++) {
		inlet->regions[i] = inlet->region_of(inlet->context, &blocks[i]);
		blocks[i].carried = inlet->regions[i] >= 0;
		n_carried += blocks[i].carried;
	}
	inlet->n_blocks = n_blocks;
	inlet->blocks = blocks;
	pthread_cond_broadcast(&inlet->changed);
	pthread_mutex_unlock(&inlet->lock);
	if (!n_carried)
		return error_set(error, -ENOENT,
				 "QEMU's stream names none of the guest's shared memory: was its "
				 "memory changed meanwhile?");
	return 0;
}

static int take_page(void *context, unsigned block, uint64_t offset_bytes, bool zeros,
		     struct ramlift_error *error)
{
	struct reader *reader = context;
	int region = reader->connection->inlet->regions[block];
	uint64_t page = offset_bytes / RAMLIFT_PAGE_BYTES;

	(void)error;
	if (reader->run_region != region || reader->run_zeros != zeros ||
	    reader->run_first + reader->run_pages != page) {
		name_run(reader);
		reader->run_region = region;
		reader->run_zeros = zeros;
		reader->run_first = page;
	}
	reader->run_pages++;
	return 0;
}

static int take_ram_end(void *context, struct ramlift_error *error)
{
	struct reader *reader = context;
	struct inlet *inlet = reader->connection->inlet;

	(void)error;
	name_run(reader);
	inlet_wake_lanes(reader->connection);
	reader->ram_ended = true;
	pthread_mutex_lock(&inlet->lock);
	inlet->expected_syncs = qemu_stream_syncs(reader->stream);
	inlet->ram_end_ns = clock_now_ns();
	inlet->ram_ended = true;
	pthread_mutex_unlock(&inlet->lock);
	source_hasten(inlet->source);
	return 0;
}

/* The end of the connection is an end only behind the devices' state. */
static int end(struct reader *reader, struct ramlift_error *error)
{
	struct inlet *inlet = reader->connection->inlet;
	int ret;

	if (!reader->ram_ended)
		return error_set(
			error, -ECONNRESET,
			"QEMU ended its migration before all memory was sent: see its log");
	if (!reader->has_devices)
		return error_set(
			error, -ECONNRESET,
			"QEMU ended its migration before its devices were sent: see its log");
	ret = source_send_piece(inlet->source, reader->connection->stream, NULL, 0, error);
	if (ret)
		return ret;
	pthread_mutex_lock(&inlet->lock);
	inlet->main_ended = true;
	pthread_mutex_unlock(&inlet->lock);
	source_hasten(inlet->source);
	return 0;
}

/* 0 once QEMU has ended its side. */
static int read_all(struct reader *reader, uint8_t *bytes, struct ramlift_error *error)
{
	struct inlet *inlet = reader->connection->inlet;

	for (;;) {
		ssize_t n = recv(reader->connection->fd, bytes, READ_BYTES, 0);
		int ret = 0;

		if (!n)
			return end(reader, error);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return error_set(error, -errno, "the connection to QEMU broke: %s",
					 strerror(errno));
		if (n < 0)
			ret = wait_for_fd(reader->connection->fd, POLLIN, UINT64_MAX,
					  inlet->stop_fd);
		else
			ret = qemu_stream_feed(reader->stream, bytes, (size_t)n, error);
		if (ret == -ETIMEDOUT)
			continue;
		if (ret)
			return ret;
		name_run(reader);
		ret = inlet_await_room(reader->connection);
		if (ret)
			return ret;
	}
}

void *inlet_main_run(void *argument)
{
	static const struct stream_sink sink = {
		.pass = pass,
		.blocks = take_blocks,
		.page = take_page,
		.ram_end = take_ram_end,
	};
	struct reader reader = { .connection = argument, .run_region = -1 };
	struct inlet *inlet = reader.connection->inlet;
	struct ramlift_error error = { 0 };
	uint8_t *bytes = malloc(READ_BYTES);
	int ret = bytes ? qemu_stream_new(&sink, &reader, &reader.stream, &error)
			: error_set(&error, -ENOMEM, "no memory to read QEMU's stream");

	if (!ret)
		ret = read_all(&reader, bytes, &error);
	if (ret) {
		if (!error.code)
			error_set(&error, ret, "QEMU's main connection: %s", strerror(-ret));
		inlet_fail(inlet, &error);
	}
	/* The table of blocks is the stream's: who looks at it does so until inlet_stop(). */
	pthread_mutex_lock(&inlet->lock);
	inlet->stream = reader.stream;
	pthread_mutex_unlock(&inlet->lock);
	free(bytes);
	return NULL;
}
