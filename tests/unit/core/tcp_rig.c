/* SPDX-License-Identifier: Apache-2.0 */
/* The pair of TCP endpoints; see the header. */
#include "tcp_rig.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define SESSION_WORD "0123456789abcdef"

const uint64_t slice_bytes[N_SLICES] = { 64 * PAGE, 80 * PAGE, PAGE };
const uint8_t some_secret[STREAM_SECRET_BYTES] = "of both sides";
const uint8_t *secret;

int lanes_plain(void **unused)
{
	(void)unused;
	secret = NULL;
	return 0;
}

int lanes_under_tls(void **unused)
{
	(void)unused;
	secret = some_secret;
	return 0;
}

/* Each slice between two pages that nobody may touch. */
static void side_init(struct side *side, unsigned n_lanes)
{
	for (unsigned i = 0; i < N_SLICES; i++) {
		char *memory = mmap(NULL, slice_bytes[i] + 2ull * PAGE, PROT_NONE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		assert_ptr_not_equal(memory, MAP_FAILED);
		assert_int_equal(mprotect(memory + PAGE, slice_bytes[i], PROT_READ | PROT_WRITE),
				 0);
		side->slices[i].hva = memory + PAGE;
		side->slices[i].size_bytes = slice_bytes[i];
	}
	side->interrupt_fd = eventfd(0, EFD_CLOEXEC);
	side->params = (struct transport_params){
		.lane_secret = secret,
		.n_rails = 1,
		.n_lanes = n_lanes,
		.slices = side->slices,
		.n_slices = N_SLICES,
		.interrupt_fd = side->interrupt_fd,
		.io_timeout_ns = 20 * NS_PER_S,
	};
	memcpy(side->params.session_id, SESSION_WORD, SESSION_ID_BYTES);
}

static void side_fini(struct side *side)
{
	tcp()->close(side->endpoint);
	for (unsigned i = 0; i < N_SLICES; i++)
		munmap((char *)side->slices[i].hva - PAGE, slice_bytes[i] + 2ull * PAGE);
	close(side->interrupt_fd);
}

void pair_listen(struct pair *pair, unsigned n_lanes)
{
	struct slice_key key = { 1, { 1 } };
	struct sockaddr_storage bound;
	uint16_t port;

	memset(pair, 0, sizeof(*pair));
	pair->n_lanes = n_lanes;
	side_init(&pair->source, n_lanes);
	side_init(&pair->destination, n_lanes);
	assert_int_equal(address_parse("127.0.0.1:1", 1, &pair->address, NULL), 0);
	assert_int_equal(tcp()->probe((struct sockaddr *)&pair->address.socket, NULL, NULL), 0);
	assert_int_equal(tcp()->listen(&pair->destination.params,
				       (struct sockaddr *)&pair->address.socket,
				       &pair->destination.endpoint, &bound, NULL),
			 0);
	port = ntohs(((struct sockaddr_in *)&bound)->sin_port);
	assert_true(port > 1); /* of its own choosing */
	address_set_port(&pair->address, port);
	for (unsigned i = 0; i < N_SLICES; i++) {
		assert_int_equal(
			tcp()->register_slice(pair->destination.endpoint, i, 1, &key, NULL), 0);
		assert_int_equal(key.address, 0);
		assert_int_equal(key.rkeys[0], 0);
	}
	pair->accept_deadline_ns = LONG_NS;
}

static void *accept_thread(void *argument)
{
	struct pair *pair = argument;

	pair->accept_ret = tcp()->accept(pair->destination.endpoint, pair->accept_deadline_ns,
					 &pair->accept_error);
	return NULL;
}

void accept_begin(struct pair *pair)
{
	assert_int_equal(pthread_create(&pair->thread, NULL, accept_thread, pair), 0);
}

int accept_end(struct pair *pair)
{
	pthread_join(pair->thread, NULL);
	return pair->accept_ret;
}

void connect_source(struct pair *pair)
{
	struct ramlift_error error = { 0 };

	if (tcp()->connect(&pair->source.params, &pair->address.socket, LONG_NS,
			   &pair->source.endpoint, &error))
		fail_msg("%s", error.text);
	for (unsigned i = 0; i < N_SLICES; i++)
		assert_int_equal(tcp()->register_slice(pair->source.endpoint, i, 1, NULL, NULL), 0);
}

void pair_init(struct pair *pair, unsigned n_lanes)
{
	pair_listen(pair, n_lanes);
	accept_begin(pair);
	connect_source(pair);
	assert_int_equal(accept_end(pair), 0);
}

void pair_fini(struct pair *pair)
{
	side_fini(&pair->source);
	side_fini(&pair->destination);
}

const uint64_t *on_all_lanes(uint64_t token)
{
	static uint64_t tokens[RAMLIFT_MAX_LANES];

	for (unsigned i = 0; i < RAMLIFT_MAX_LANES; i++)
		tokens[i] = token;
	return tokens;
}

int await_tokens(struct pair *pair, uint64_t token, struct ramlift_error *error)
{
	return tcp()->await_tokens(pair->destination.endpoint, on_all_lanes(token), LONG_NS, error);
}

void fill(struct side *side, unsigned seed)
{
	for (unsigned i = 0; i < N_SLICES; i++) {
		unsigned char *bytes = side->slices[i].hva;

		for (uint64_t b = 0; b < slice_bytes[i]; b++)
			bytes[b] = (unsigned char)(b * seed + (b >> 12) + i);
	}
}

void assert_same_memory(struct pair *pair)
{
	for (unsigned i = 0; i < N_SLICES; i++)
		assert_memory_equal(pair->source.slices[i].hva, pair->destination.slices[i].hva,
				    slice_bytes[i]);
}

void assert_memory_untouched(struct pair *pair)
{
	for (unsigned i = 0; i < N_SLICES; i++) {
		const unsigned char *bytes = pair->destination.slices[i].hva;

		for (uint64_t b = 0; b < slice_bytes[i]; b++) {
			if (bytes[b])
				fail_msg("byte %u of slice %u was written", (unsigned)b, i);
		}
	}
}

/* Everything, in writes of several pages, a batch of the largest size among them. */
void post_all(struct pair *pair)
{
	struct transport_write batch[TRANSPORT_MAX_BATCH];
	unsigned n = 0, lane = 0;

	for (unsigned i = 0; i < N_SLICES; i++) {
		for (uint64_t at = 0; at < slice_bytes[i];) {
			uint64_t left = slice_bytes[i] - at;
			uint64_t length = (1 + at / PAGE % 5) * PAGE;

			batch[n].slice = i;
			batch[n].offset_bytes = at;
			batch[n].length_bytes = (uint32_t)(length < left ? length : left);
			at += batch[n++].length_bytes;
			if (n < TRANSPORT_MAX_BATCH && (at < slice_bytes[i] || i + 1 < N_SLICES))
				continue;
			assert_int_equal(tcp()->post(pair->source.endpoint, lane, batch, n, NULL),
					 0);
			lane = (lane + 1) % pair->n_lanes;
			n = 0;
		}
	}
}

void send_tokens(struct pair *pair, uint64_t token)
{
	for (unsigned lane = 0; lane < pair->n_lanes; lane++) {
		assert_int_equal(tcp()->drain(pair->source.endpoint, lane, NULL), 0);
		assert_int_equal(tcp()->token(pair->source.endpoint, lane, token, NULL), 0);
	}
}

struct hello right_hello(const struct pair *pair, unsigned lane)
{
	struct hello hello = {
		.magic = htobe32(0x524c4c31u),
		.lane = htobe16((uint16_t)lane),
		.n_lanes = htobe16((uint16_t)pair->n_lanes),
	};

	memcpy(hello.session_id, SESSION_WORD, SESSION_ID_BYTES);
	return hello;
}

int connect_bare(struct pair *pair)
{
	int fd;

	assert_int_equal(address_connect(&pair->address, LONG_NS, -1, &fd, NULL), 0);
	return fd;
}

struct stream *connect_raw(struct pair *pair)
{
	struct stream *stream;
	int fd = connect_bare(pair);

	assert_int_equal(stream_connect_lane(fd, secret, LONG_NS, -1, &stream, NULL), 0);
	return stream;
}

void send_raw(struct stream *stream, const void *bytes, size_t n)
{
	assert_int_equal(stream_send(stream, bytes, n, LONG_NS, -1), 0);
}

struct stream *send_hello(struct pair *pair, const struct hello *hello)
{
	struct stream *stream = connect_raw(pair);

	send_raw(stream, hello, sizeof(*hello));
	return stream;
}

struct stream *join_raw(struct pair *pair, unsigned lane)
{
	struct hello hello = right_hello(pair, lane);
	struct stream *stream = send_hello(pair, &hello);
	char byte;

	assert_int_equal(stream_receive(stream, &byte, 1, LONG_NS, -1), 0);
	return stream;
}

struct header one_write(uint32_t slice, uint32_t length, uint64_t offset)
{
	struct header header = {
		.n_writes = htobe32(1),
		.writes = { { htobe32(slice), htobe32(length), htobe64(offset) } },
	};

	return header;
}

void send_header(struct stream *stream, uint32_t slice, uint32_t length, uint64_t offset)
{
	struct header header = one_write(slice, length, offset);

	send_raw(stream, &header, sizeof(header));
}

void *abort_soon(void *argument)
{
	usleep(100000);
	tcp()->abort(argument);
	return NULL;
}
