/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is sent, put together to frames of the protocol. The scenario sees each, and decides what
 * becomes of it: that is more than a network can do to one connection, and the engine must bear it
 * all the same.
 */
#include <stdlib.h>
#include <string.h>

#include "network.h"
#include "real.h"

#define GREETING_BYTES	8u
#define MAX_FRAME_BYTES (64u << 10)

void (*frame_sent)(const struct frame *frame, struct frame_fate *fate);

void send_bytes(struct socket *socket, const uint8_t *bytes, size_t n, uint64_t extra_ns)
{
	if (socket->lost || network_open_ns(socket->host, socket->peer->host) == NEVER_NS)
		return; /* what never arrives takes room all the same, but nobody counts on it */
	socket->in_flight += n;
	transmit(socket, socket->peer, SEGMENT_DATA, bytes, n, extra_ns);
}

/* The scenario may end the process here: then the frame has not left it. */
static void send_frame(struct socket *socket, size_t n)
{
	struct frame_fate fate = { .copies = 1 };
	struct frame frame = {
		.from = socket,
		.connection = socket->connection,
		.sender = socket->process,
		.type = socket->part[2],
		.n_bytes = (uint32_t)n,
		.length_bytes = (uint32_t)n - WIRE_HEADER_BYTES,
	};

	socket->frame = __real_realloc(socket->frame, n);
	if (!socket->frame)
		abort();
	memcpy(socket->frame, socket->part, n);
	memmove(socket->part, socket->part + n, socket->n_part - n);
	socket->n_part -= n;
	frame.bytes = socket->frame;
	frame.payload = socket->frame + WIRE_HEADER_BYTES;
	if (frame_sent)
		frame_sent(&frame, &fate);
	for (unsigned i = 0; i < fate.copies; i++)
		send_bytes(socket, socket->frame, n, fate.delay_ns);
	if (fate.followed_by)
		send_bytes(socket, fate.followed_by, fate.followed_by_bytes, 0);
}

/* What a stream begins with, where it is plaintext. */
static bool is_a_greeting(const struct socket *socket)
{
	return socket->n_part >= 2 && socket->part[0] == 'R' && socket->part[1] == 'L';
}

static bool is_a_frame(const struct socket *socket)
{
	return socket->part[0] == WIRE_MAGIC &&
	       (socket->n_part < 2 || socket->part[1] == WIRE_VERSION);
}

/* As many frames as are complete. */
void frames_send(struct socket *socket)
{
	while (socket->n_part && !socket->raw) {
		const uint8_t *part = socket->part;
		size_t n;

		if (is_a_greeting(socket)) {
			if (socket->n_part < GREETING_BYTES)
				break;
			send_bytes(socket, part, GREETING_BYTES, 0);
			socket->n_part -= GREETING_BYTES;
			memmove(socket->part, part + GREETING_BYTES, socket->n_part);
			continue;
		}
		if (!is_a_frame(socket))
			socket->raw = true;
		if (socket->raw || socket->n_part < WIRE_HEADER_BYTES)
			break;
		n = WIRE_HEADER_BYTES + ((size_t)part[4] << 24 | (size_t)part[5] << 16 |
					 (size_t)part[6] << 8 | part[7]);
		if (n > MAX_FRAME_BYTES)
			socket->raw = true;
		if (socket->raw || socket->n_part < n)
			break;
		send_frame(socket, n);
	}
	if (socket->raw && socket->n_part) {
		send_bytes(socket, socket->part, socket->n_part, 0);
		socket->n_part = 0;
	}
}
