/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes by a TCP lane at the destination. By the first byte the rest is the hello of a lane,
 * or batches, which a second, simple reader takes as well: the same bytes are in guest memory after
 * it, and the lane ends the same way.
 */
#include <endian.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/tcp_transport.h"
#include "tests/fuzz/fuzz.h"

#define N_LANES	 3u
#define JOINED	 1u /* of the lanes */
#define N_SLICES 3u

/* The last is larger than a write may be. */
static const uint64_t slice_bytes[N_SLICES] = { 4096, 12288, TRANSPORT_MAX_WRITE_BYTES + 4096 };
static struct slice slices[N_SLICES];
static uint8_t *expected[N_SLICES];
static struct endpoint *endpoint;

static void set_up(void)
{
	struct transport_params params = {
		.session_id = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
		.n_lanes = N_LANES,
		.n_rails = 1,
		.slices = slices,
		.n_slices = N_SLICES,
		.interrupt_fd = -1,
	};

	for (unsigned i = 0; i < N_SLICES; i++) {
		slices[i] = (struct slice){ malloc(slice_bytes[i]), slice_bytes[i] };
		expected[i] = malloc(slice_bytes[i]);
		CHECK(slices[i].hva && expected[i]);
	}
	endpoint = tcp_endpoint_new(&params, NULL);
	CHECK(endpoint);
}

/* There are two lanes that may say hello, each in one way. */
static void fuzz_hello(const uint8_t *data, size_t size)
{
	uint8_t expected_hello[] = { 'R', 'L', 'L', '1', 0, 0, 0,  N_LANES, 0,	1,  2,	3,
				     4,	  5,   6,   7,	 8, 9, 10, 11,	    12, 13, 14, 15 };
	struct lane_hello hello;

	if (size != sizeof(hello))
		return;
	memcpy(&hello, data, sizeof(hello));
	expected_hello[5] = data[5];
	endpoint->lanes[JOINED].fd = 0;
	CHECK(tcp_hello_is_ours(endpoint, &hello) ==
	      (!memcmp(data, expected_hello, size) && data[5] < N_LANES && data[5] != JOINED));
	endpoint->lanes[JOINED].fd = -1;
}

struct reader {
	const uint8_t *data;
	size_t left;
};

/* Up to n bytes: as many as are left. */
static size_t take(struct reader *reader, void *to, size_t n)
{
	n = n < reader->left ? n : reader->left;
	if (n)
		memcpy(to, reader->data, n);
	reader->data += n;
	reader->left -= n;
	return n;
}

static uint64_t take_number(struct reader *reader, size_t n_bytes)
{
	uint8_t byte = 0;
	uint64_t number = 0;

	while (n_bytes--) {
		take(reader, &byte, 1);
		number = number << 8 | byte;
	}
	return number;
}

struct place {
	uint64_t slice, length_bytes, offset_bytes;
};

/* A header as docs/protocol.md says; -EPROTO. */
static int read_header(struct reader *reader, struct place *places, uint64_t *n_writes,
		       uint64_t *token)
{
	bool clean, fits = true;

	*n_writes = take_number(reader, 4);
	clean = !take_number(reader, 4) && *n_writes <= TRANSPORT_MAX_BATCH;
	*token = take_number(reader, 8);
	for (unsigned i = 0; i < TRANSPORT_MAX_BATCH; i++) {
		struct place place;

		place.slice = take_number(reader, 4);
		place.length_bytes = take_number(reader, 4);
		place.offset_bytes = take_number(reader, 8);
		places[i] = place;
		if (i >= *n_writes)
			clean = clean && !place.slice && !place.length_bytes && !place.offset_bytes;
		else
			fits = fits && place.slice < N_SLICES && place.length_bytes &&
			       place.length_bytes <= TRANSPORT_MAX_WRITE_BYTES &&
			       place.offset_bytes <= slice_bytes[place.slice] &&
			       place.offset_bytes + place.length_bytes <= slice_bytes[place.slice];
	}
	return clean && fits && (!*n_writes || !*token) ? 0 : -EPROTO;
}

/* What tcp_receive() must return, and leave in memory. */
static int read_batches(const uint8_t *data, size_t size, uint64_t *token)
{
	struct reader reader = { data, size };
	struct place places[TRANSPORT_MAX_BATCH];
	uint64_t n_writes;
	int ret;

	for (;;) {
		if (reader.left < sizeof(struct batch_header))
			return -ECONNRESET;
		ret = read_header(&reader, places, &n_writes, token);
		if (ret || !n_writes)
			return ret;
		for (unsigned i = 0; i < n_writes; i++)
			take(&reader, expected[places[i].slice] + places[i].offset_bytes,
			     places[i].length_bytes);
	}
}

static void fuzz_batches(const uint8_t *data, size_t size)
{
	struct tcp_lane *lane = &endpoint->lanes[0];
	uint64_t token = 0, expected_token = 0;
	int fds[2], ret;

	for (unsigned i = 0; i < N_SLICES; i++) {
		memset(slices[i].hva, 0xee, slice_bytes[i]);
		memset(expected[i], 0xee, slice_bytes[i]);
	}
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	CHECK(!stream_accept_lane(fds[0], NULL, 0, -1, &lane->stream, NULL));
	CHECK(!tcp_lane_attach(lane, lane->stream));
	CHECK(send(fds[1], data, size, MSG_DONTWAIT) == (ssize_t)size);
	close(fds[1]);
	ret = tcp_receive(lane, &token);
	stream_free(lane->stream);
	lane->stream = NULL;
	lane->fd = -1;

	CHECK(ret == read_batches(data, size, &expected_token));
	CHECK(ret || token == expected_token);
	for (unsigned i = 0; i < N_SLICES; i++)
		CHECK(!memcmp(slices[i].hva, expected[i], slice_bytes[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 65536)
		return 0;
	if (!endpoint)
		set_up();
	if (data[0] % 2)
		fuzz_batches(data + 1, size - 1);
	else
		fuzz_hello(data + 1, size - 1);
	return 0;
}
