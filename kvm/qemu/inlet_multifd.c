/* SPDX-License-Identifier: Apache-2.0 */
/* One of QEMU's multifd connections: packets that name pages. Of shared blocks only the
 * synchronisation goes on; the pages' bytes are discarded without being copied. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/address.h"
#include "core/error.h"
#include "kvm/qemu/inlet_private.h"
#include "kvm/qemu/multifd.h"

#define PASS_BYTES (64u << 10)

struct reader {
	struct inlet_connection *connection;
	struct multifd_packet packet;
	/* The packet as it came: header, then offsets. */
	uint8_t bytes[MULTIFD_HEADER_BYTES + MULTIFD_OFFSETS_BYTES];
	uint8_t data[PASS_BYTES]; /* pages that pass through */
};

/* QEMU may be silent for any time; only the inlet's end ends this. */
static int receive(struct reader *reader, void *bytes, size_t n)
{
	int ret;

	do {
		ret = receive_all(reader->connection->fd, bytes, n, UINT64_MAX,
				  reader->connection->inlet->stop_fd);
	} while (ret == -ETIMEDOUT);
	return ret;
}

/* tcp(7): with MSG_TRUNC the bytes are dropped in the kernel. */
static int discard(struct reader *reader, size_t n)
{
	while (n) {
		ssize_t dropped = recv(reader->connection->fd, NULL, n, MSG_TRUNC);
		int ret;

		if (!dropped)
			return -ECONNRESET;
		if (dropped > 0) {
			n -= (size_t)dropped;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		ret = wait_for_fd(reader->connection->fd, POLLIN, UINT64_MAX,
				  reader->connection->inlet->stop_fd);
		if (ret && ret != -ETIMEDOUT)
			return ret;
	}
	return 0;
}

/* The packet's block, once the main stream has told its table. -ENOENT: it is not in there. */
static int find_block(struct reader *reader, uint64_t *size_bytes, int *region,
		      struct ramlift_error *error)
{
	struct inlet *inlet = reader->connection->inlet;
	int ret;

	pthread_mutex_lock(&inlet->lock);
	while (!inlet->blocks && !inlet->stopping && !inlet->error.code)
		pthread_cond_wait(&inlet->changed, &inlet->lock);
	ret = inlet->blocks ? -ENOENT : -ECANCELED;
	for (unsigned i = 0; ret == -ENOENT && i < inlet->n_blocks; i++) {
		if (strcmp(inlet->blocks[i].name, reader->packet.block))
			continue;
		*size_bytes = inlet->blocks[i].size_bytes;
		*region = inlet->regions[i];
		ret = 0;
	}
	pthread_mutex_unlock(&inlet->lock);
	if (ret == -ENOENT)
		error_set(error, -EPROTO,
			  "QEMU sends pages of block %.64s, which it has not announced",
			  reader->packet.block);
	return ret == -ENOENT ? -EPROTO : ret;
}

typedef void name_call(struct ramlift_source *source, unsigned region, uint64_t first_page,
		       uint64_t n_pages);

/* Neighbouring pages are named together. */
static void name_run(const struct reader *reader, unsigned region, unsigned begin, unsigned end,
		     name_call *name)
{
	struct ramlift_source *source = reader->connection->inlet->source;
	const uint8_t *offsets = &reader->bytes[MULTIFD_HEADER_BYTES];
	uint64_t first = 0, n = 0;

	for (unsigned i = begin; i < end; i++) {
		uint64_t page = multifd_offset(offsets, i) / RAMLIFT_PAGE_BYTES;

		if (n && page == first + n) {
			n++;
			continue;
		}
		name(source, region, first, n);
		first = page;
		n = 1;
	}
	name(source, region, first, n);
}

/* The offsets of pages with bytes come first, then those of zeros. */
static void name_pages(const struct reader *reader, unsigned region)
{
	unsigned n_normal = reader->packet.n_normal;
	unsigned n_pages = n_normal + reader->packet.n_zero;

	name_run(reader, region, 0, n_normal, source_queue_pages);
	name_run(reader, region, n_normal, n_pages, source_queue_zeros);
	inlet_named(reader->connection, n_pages);
}

/* Pages of a block that is not shared: the packet goes on as it is. */
static int pass_whole(struct reader *reader, size_t packet_bytes, struct ramlift_error *error)
{
	size_t left = reader->packet.data_bytes;
	int ret = inlet_pass(reader->connection, reader->bytes, packet_bytes, error);

	while (!ret && left) {
		size_t n = left < PASS_BYTES ? left : PASS_BYTES;

		ret = receive(reader, reader->data, n);
		if (!ret)
			ret = inlet_pass(reader->connection, reader->data, n, error);
		left -= n;
	}
	return ret;
}

/* Header and offsets have been read. */
static int take_packet(struct reader *reader, size_t packet_bytes, struct ramlift_error *error)
{
	const struct multifd_packet *packet = &reader->packet;
	uint64_t block_bytes;
	int region = -1;
	int ret;

	if (packet->n_normal + packet->n_zero) {
		ret = find_block(reader, &block_bytes, &region, error);
		if (!ret)
			ret = multifd_offsets_check(&reader->bytes[MULTIFD_HEADER_BYTES], packet,
						    block_bytes, error);
		if (ret)
			return ret;
	}
	if (region < 0)
		return pass_whole(reader, packet_bytes, error);
	name_pages(reader, (unsigned)region);
	ret = discard(reader, packet->data_bytes);
	if (ret || !multifd_is_sync(packet))
		return ret;
	multifd_strip(reader->bytes, packet);
	return inlet_pass(reader->connection, reader->bytes, packet_bytes, error);
}

/* *end: QEMU has closed the connection where a packet would begin. */
static int read_packet(struct reader *reader, bool *end, struct ramlift_error *error)
{
	struct inlet_connection *connection = reader->connection;
	size_t packet_bytes;
	int ret;

	ret = receive(reader, reader->bytes, 1);
	*end = ret == -ECONNRESET;
	if (!ret)
		ret = receive(reader, &reader->bytes[1], MULTIFD_HEADER_BYTES - 1);
	if (ret)
		return ret;
	ret = multifd_header_decode(reader->bytes, &reader->packet, error);
	if (ret)
		return ret;
	packet_bytes = MULTIFD_HEADER_BYTES + reader->packet.n_offsets * 8ull;
	ret = receive(reader, &reader->bytes[MULTIFD_HEADER_BYTES],
		      packet_bytes - MULTIFD_HEADER_BYTES);
	if (!ret)
		ret = take_packet(reader, packet_bytes, error);
	if (ret)
		return ret;
	if (multifd_is_sync(&reader->packet)) {
		inlet_wake_lanes(connection);
		atomic_fetch_add(&connection->syncs, 1);
		source_hasten(connection->inlet->source); /* perhaps the last one */
	}
	return inlet_await_room(connection);
}

static int read_all(struct reader *reader, struct ramlift_error *error)
{
	bool end = false;
	uint8_t channel;
	int ret;

	ret = receive(reader, reader->bytes, MULTIFD_HELLO_BYTES);
	if (!ret)
		ret = multifd_hello_decode(reader->bytes, &channel, error);
	if (!ret)
		ret = inlet_pass(reader->connection, reader->bytes, MULTIFD_HELLO_BYTES, error);
	while (!ret)
		ret = read_packet(reader, &end, error);
	if (!end)
		return ret;
	atomic_store(&reader->connection->ended, true);
	return source_send_piece(reader->connection->inlet->source, reader->connection->stream,
				 NULL, 0, error);
}

void *inlet_multifd_run(void *argument)
{
	struct inlet_connection *connection = argument;
	struct reader *reader = calloc(1, sizeof(*reader));
	struct ramlift_error error = { 0 };
	int ret;

	if (!reader) {
		error_set(&error, -ENOMEM, "no memory to read QEMU's stream");
		inlet_fail(connection->inlet, &error);
		return NULL;
	}
	reader->connection = connection;
	ret = read_all(reader, &error);
	if (ret) {
		if (!error.code)
			error_set(&error, ret, "QEMU's multifd connection %u: %s",
				  connection->stream, strerror(-ret));
		inlet_fail(connection->inlet, &error);
	}
	free(reader);
	return NULL;
}
