/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP lanes: a pair on loopback, strangers that want to join, and a source that is hostile. The
 * destination's memory has guard pages around it, so that a byte outside ends the test.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/ramlift.h"
#include "core/stream.h"
#include "core/tcp_strangers.h"
#include "core/transport.h"
#include "tests/support/cmocka_all.h"

#define LONG_NS	     (clock_now_ns() + 30 * NS_PER_S) /* against hangs only */
#define N_SLICES     3u
#define PAGE	     4096u
#define WRITE_MAX    TRANSPORT_MAX_WRITE_BYTES
#define TOKEN	     0xfeedfacecafebeefull
#define SESSION_WORD "0123456789abcdef"

/* On the wire; written out here a second time, so that a change of it is noticed. */
struct hello {
	uint32_t magic;
	uint16_t lane, n_lanes;
	uint8_t session_id[SESSION_ID_BYTES];
};

struct header {
	uint32_t n_writes, reserved;
	uint64_t token;
	struct {
		uint32_t slice, length_bytes;
		uint64_t offset_bytes;
	} writes[64];
};

static const uint64_t slice_bytes[N_SLICES] = { 64 * PAGE, 80 * PAGE, PAGE };

struct side {
	struct slice slices[N_SLICES];
	struct transport_params params;
	struct endpoint *endpoint;
	int interrupt_fd;
};

struct pair {
	struct side source, destination;
	struct address address; /* where the destination listens for lanes */
	unsigned n_lanes;
	pthread_t thread;
	int accept_ret;
	uint64_t accept_deadline_ns;
	struct ramlift_error accept_error;
};

static const uint8_t some_secret[STREAM_SECRET_BYTES] = "of both sides";
static const uint8_t *secret; /* NULL: plain lanes */

static const struct ramlift_transport *tcp(void)
{
	return ramlift_transport_tcp();
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

static void pair_listen(struct pair *pair, unsigned n_lanes)
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

static void accept_begin(struct pair *pair)
{
	assert_int_equal(pthread_create(&pair->thread, NULL, accept_thread, pair), 0);
}

static int accept_end(struct pair *pair)
{
	pthread_join(pair->thread, NULL);
	return pair->accept_ret;
}

static void connect_source(struct pair *pair)
{
	struct ramlift_error error = { 0 };

	if (tcp()->connect(&pair->source.params, &pair->address.socket, LONG_NS,
			   &pair->source.endpoint, &error))
		fail_msg("%s", error.text);
	for (unsigned i = 0; i < N_SLICES; i++)
		assert_int_equal(tcp()->register_slice(pair->source.endpoint, i, 1, NULL, NULL), 0);
}

static void pair_init(struct pair *pair, unsigned n_lanes)
{
	pair_listen(pair, n_lanes);
	accept_begin(pair);
	connect_source(pair);
	assert_int_equal(accept_end(pair), 0);
}

static void pair_fini(struct pair *pair)
{
	side_fini(&pair->source);
	side_fini(&pair->destination);
}

static const uint64_t *all(uint64_t token)
{
	static uint64_t tokens[RAMLIFT_MAX_LANES];

	for (unsigned i = 0; i < RAMLIFT_MAX_LANES; i++)
		tokens[i] = token;
	return tokens;
}

static int await_tokens(struct pair *pair, uint64_t token, struct ramlift_error *error)
{
	return tcp()->await_tokens(pair->destination.endpoint, all(token), LONG_NS, error);
}

/* ---- a pair ---- */

static void fill(struct side *side, unsigned seed)
{
	for (unsigned i = 0; i < N_SLICES; i++) {
		unsigned char *bytes = side->slices[i].hva;

		for (uint64_t b = 0; b < slice_bytes[i]; b++)
			bytes[b] = (unsigned char)(b * seed + (b >> 12) + i);
	}
}

static void assert_same_memory(struct pair *pair)
{
	for (unsigned i = 0; i < N_SLICES; i++)
		assert_memory_equal(pair->source.slices[i].hva, pair->destination.slices[i].hva,
				    slice_bytes[i]);
}

static void assert_memory_untouched(struct pair *pair)
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
static void post_all(struct pair *pair)
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

static void send_tokens(struct pair *pair, uint64_t token)
{
	for (unsigned lane = 0; lane < pair->n_lanes; lane++) {
		assert_int_equal(tcp()->drain(pair->source.endpoint, lane, NULL), 0);
		assert_int_equal(tcp()->token(pair->source.endpoint, lane, token, NULL), 0);
	}
}

static void test_data_arrives(void **unused)
{
	static const unsigned lanes[] = { 1, 3, RAMLIFT_MAX_LANES };

	(void)unused;
	for (unsigned i = 0; i < 3; i++) {
		struct pair pair;

		pair_init(&pair, lanes[i]);
		fill(&pair.source, 7 + i);
		post_all(&pair);
		send_tokens(&pair, TOKEN);
		assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
		assert_same_memory(&pair); /* with the tokens it is all there */
		assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0); /* and stays so */
		assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
		assert_same_memory(&pair);
		pair_fini(&pair);
	}
}

static void test_the_largest_write(void **unused)
{
	struct transport_write write = { 1, WRITE_MAX, slice_bytes[1] - WRITE_MAX };
	struct pair pair;

	(void)unused;
	pair_init(&pair, 1);
	memset((char *)pair.source.slices[1].hva + write.offset_bytes, 0x42, WRITE_MAX);
	assert_int_equal(tcp()->post(pair.source.endpoint, 0, &write, 1, NULL), 0);
	send_tokens(&pair, TOKEN);
	assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
	assert_same_memory(&pair);
	pair_fini(&pair);
}

/* Of several writes to a page on one lane the last one stays. */
static void test_writes_of_a_lane_keep_their_order(void **unused)
{
	struct transport_write write = { 2, PAGE, 0 };
	struct pair pair;

	(void)unused;
	pair_init(&pair, 1);
	for (unsigned i = 1; i <= 500; i++) {
		memset(pair.source.slices[2].hva, (int)i, PAGE);
		assert_int_equal(tcp()->post(pair.source.endpoint, 0, &write, 1, NULL), 0);
	}
	send_tokens(&pair, TOKEN);
	assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
	assert_same_memory(&pair);
	pair_fini(&pair);
}

static void test_tokens(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;

	(void)unused;
	pair_init(&pair, 3);
	assert_int_equal(tcp()->token(pair.source.endpoint, 0, TOKEN, NULL), 0);
	assert_int_equal(tcp()->token(pair.source.endpoint, 2, TOKEN, NULL), 0);
	assert_int_equal(tcp()->await_tokens(pair.destination.endpoint, all(TOKEN),
					     clock_now_ns() + 50 * NS_PER_MS, &error),
			 -ETIMEDOUT);
	assert_non_null(strstr(error.text, "lane 1")); /* the one that is missing */
	assert_int_equal(tcp()->token(pair.source.endpoint, 1, TOKEN + 1, NULL), 0);
	assert_int_equal(await_tokens(&pair, TOKEN, &error), -EPROTO);
	assert_int_equal(error.code, -EPROTO);
	assert_non_null(strstr(error.text, "lane 1"));
	pair_fini(&pair);
}

/* ---- who may join ---- */

static struct hello right_hello(const struct pair *pair, unsigned lane)
{
	struct hello hello = {
		.magic = htobe32(0x524c4c31u),
		.lane = htobe16((uint16_t)lane),
		.n_lanes = htobe16((uint16_t)pair->n_lanes),
	};

	memcpy(hello.session_id, SESSION_WORD, SESSION_ID_BYTES);
	return hello;
}

static int connect_bare(struct pair *pair)
{
	int fd;

	assert_int_equal(address_connect(&pair->address, LONG_NS, -1, &fd, NULL), 0);
	return fd;
}

static struct stream *connect_raw(struct pair *pair)
{
	struct stream *stream;
	int fd = connect_bare(pair);

	assert_int_equal(stream_connect_lane(fd, secret, LONG_NS, -1, &stream, NULL), 0);
	return stream;
}

static void send_raw(struct stream *stream, const void *bytes, size_t n)
{
	assert_int_equal(stream_send(stream, bytes, n, LONG_NS, -1), 0);
}

static struct stream *send_hello(struct pair *pair, const struct hello *hello)
{
	struct stream *stream = connect_raw(pair);

	send_raw(stream, hello, sizeof(*hello));
	return stream;
}

/* Turned away: closed, without a welcome. */
static void assert_turned_away(struct pair *pair, const struct hello *hello)
{
	struct stream *stream = send_hello(pair, hello);
	char byte;

	assert_int_equal(stream_receive(stream, &byte, 1, LONG_NS, -1), -ECONNRESET);
	stream_free(stream);
}

static struct stream *join_raw(struct pair *pair, unsigned lane)
{
	struct hello hello = right_hello(pair, lane);
	struct stream *stream = send_hello(pair, &hello);
	char byte;

	assert_int_equal(stream_receive(stream, &byte, 1, LONG_NS, -1), 0);
	return stream;
}

static void test_strangers_are_turned_away(void **unused)
{
	struct stream *stream;
	struct hello hello;
	struct pair pair;
	int fd;

	(void)unused;
	pair_listen(&pair, 2);
	accept_begin(&pair);
	for (unsigned i = 0; i < SESSION_ID_BYTES; i++) {
		hello = right_hello(&pair, 0);
		hello.session_id[i] ^= 1;
		assert_turned_away(&pair, &hello);
	}
	hello = right_hello(&pair, 0);
	hello.magic ^= htobe32(1);
	assert_turned_away(&pair, &hello);
	hello = right_hello(&pair, 2); /* of lanes 0 and 1 */
	assert_turned_away(&pair, &hello);
	hello = right_hello(&pair, 0xffff);
	assert_turned_away(&pair, &hello);
	hello = right_hello(&pair, 0);
	hello.n_lanes = htobe16(3);
	assert_turned_away(&pair, &hello);
	fd = connect_bare(&pair); /* comes and goes */
	close(fd);
	stream = connect_raw(&pair); /* says half of it */
	send_raw(stream, &hello, sizeof(hello) / 2);
	stream_free(stream);
	fd = connect_bare(&pair); /* says nothing, and stays */
	connect_source(&pair);	  /* and still the real ones get in */
	assert_int_equal(accept_end(&pair), 0);
	close(fd);
	fill(&pair.source, 3);
	post_all(&pair);
	send_tokens(&pair, TOKEN);
	assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
	assert_same_memory(&pair);
	pair_fini(&pair);
}

static void test_a_lane_joins_once(void **unused)
{
	struct pair pair;
	struct hello hello;
	struct stream *first, *second;

	(void)unused;
	pair_listen(&pair, 2);
	accept_begin(&pair);
	first = join_raw(&pair, 1);
	hello = right_hello(&pair, 1);
	assert_turned_away(&pair, &hello);
	second = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	stream_free(first);
	stream_free(second);
	pair_fini(&pair);
}

static void test_accept_ends(void **unused)
{
	uint64_t one = 1;
	struct pair pair;
	struct stream *stream;

	(void)unused;
	pair_listen(&pair, 2); /* at its deadline */
	pair.accept_deadline_ns = clock_now_ns() + 50 * NS_PER_MS;
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), -ETIMEDOUT);
	assert_true(pair.accept_error.text[0]);
	stream_free(stream);
	pair_fini(&pair);

	pair_listen(&pair, 2); /* interrupted */
	accept_begin(&pair);
	stream = join_raw(&pair, 1);
	assert_int_equal(write(pair.destination.interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(accept_end(&pair), -ECANCELED);
	stream_free(stream);
	pair_fini(&pair);
}

/* Not even a crowd of strangers keeps it beyond its deadline for long. */
static void test_accept_ends_among_strangers(void **unused)
{
	enum { STRANGERS = 10 };
	uint64_t begin_ns = clock_now_ns();
	int fds[STRANGERS];
	struct pair pair;

	(void)unused;
	pair_listen(&pair, 1);
	for (unsigned i = 0; i < STRANGERS; i++)
		fds[i] = connect_bare(&pair);
	pair.accept_deadline_ns = clock_now_ns() + 50 * NS_PER_MS;
	accept_begin(&pair);
	assert_int_equal(accept_end(&pair), -ETIMEDOUT);
	assert_true(clock_now_ns() - begin_ns < 10 * NS_PER_S);
	for (unsigned i = 0; i < STRANGERS; i++)
		close(fds[i]);
	pair_fini(&pair);
}

/* Some say nothing, some a part of it, and stay: the real ones do not wait for them. */
static void test_the_silent_cost_no_time(void **unused)
{
	enum { STRANGERS = 40 };
	uint64_t begin_ns;
	struct pair pair;
	int fds[STRANGERS];

	(void)unused;
	pair_listen(&pair, 2);
	for (unsigned i = 0; i < STRANGERS; i++) {
		fds[i] = connect_bare(&pair);
		assert_int_equal(send(fds[i], "RLL1", i % 5, MSG_NOSIGNAL), i % 5);
	}
	begin_ns = clock_now_ns();
	accept_begin(&pair);
	connect_source(&pair);
	assert_int_equal(accept_end(&pair), 0);
	assert_true(clock_now_ns() - begin_ns < 2 * NS_PER_S); /* one of them would take that */
	for (unsigned i = 0; i < STRANGERS; i++)
		close(fds[i]);
	pair_fini(&pair);
}

/* More than can wait: the first of them go, and the real ones get in. */
static void test_a_crowd_pushes_out_its_own(void **unused)
{
	enum { STRANGERS = STRANGERS_MAX + 20 };
	struct pair pair;
	int fds[STRANGERS];
	char byte;

	(void)unused;
	pair_listen(&pair, 1);
	accept_begin(&pair);
	for (unsigned i = 0; i < STRANGERS; i++)
		fds[i] = connect_bare(&pair);
	connect_source(&pair);
	assert_int_equal(accept_end(&pair), 0);
	for (unsigned i = 0; i < STRANGERS; i++) { /* nobody is left in there */
		assert_int_equal(wait_for_fd(fds[i], POLLIN, clock_now_ns() + LONG_NS, -1), 0);
		assert_int_equal(recv(fds[i], &byte, 1, 0), 0);
		close(fds[i]);
	}
	pair_fini(&pair);
}

static void *abort_soon(void *argument)
{
	usleep(100000);
	tcp()->abort(argument);
	return NULL;
}

static void *interrupt_soon(void *argument)
{
	struct side *side = argument;
	uint64_t one = 1;

	usleep(100000);
	if (write(side->interrupt_fd, &one, sizeof(one)) != sizeof(one))
		abort();
	return NULL;
}

static void test_waits_are_interrupted(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	pthread_t thread;

	(void)unused;
	pair_init(&pair, 2);
	assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, &pair.destination), 0);
	assert_int_equal(tcp()->await_tokens(pair.destination.endpoint, all(TOKEN),
					     clock_now_ns() + 5 * NS_PER_S, &error),
			 -ECANCELED);
	pthread_join(thread, NULL);
	pair_fini(&pair);

	pair_listen(&pair, 2);
	pair.accept_deadline_ns = clock_now_ns() + 5 * NS_PER_S;
	accept_begin(&pair);
	tcp()->abort(pair.destination.endpoint);
	assert_int_equal(accept_end(&pair), -ECANCELED);
	pair_fini(&pair);
}

static void test_nobody_admits_the_source(void **unused)
{
	struct ramlift_error error = { 0 };
	uint64_t one = 1;
	struct pair pair;

	(void)unused;
	pair_listen(&pair, 1); /* listens, but does not accept */
	assert_int_equal(tcp()->connect(&pair.source.params, &pair.address.socket,
					clock_now_ns() + 50 * NS_PER_MS, &pair.source.endpoint,
					&error),
			 -ETIMEDOUT);
	assert_null(pair.source.endpoint);
	assert_non_null(strstr(error.text, "lane 0"));
	assert_int_equal(write(pair.source.interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(tcp()->connect(&pair.source.params, &pair.address.socket, LONG_NS,
					&pair.source.endpoint, &error),
			 -ECANCELED);
	tcp()->close(pair.destination.endpoint);
	pair.destination.endpoint = NULL;
	assert_int_equal(read(pair.source.interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(tcp()->connect(&pair.source.params, &pair.address.socket, LONG_NS,
					&pair.source.endpoint, &error),
			 -ECONNREFUSED);
	assert_null(pair.source.endpoint);
	pair_fini(&pair);
}

/* ---- a hostile source ---- */

struct hostile {
	const char *what;
	uint32_t slice, length_bytes;
	uint64_t offset_bytes;
};

static const struct hostile hostiles[] = {
	{ "slice out of range", N_SLICES, PAGE, 0 },
	{ "slice far out of range", UINT32_MAX - 1, PAGE, 0 },
	{ "nothing", 0, 0, 0 },
	{ "nothing, at the end", 0, 0, 64 * PAGE },
	{ "too long by a byte", 1, WRITE_MAX + 1, 0 },
	{ "as long as can be", 1, UINT32_MAX, 0 },
	{ "a byte over the end", 0, PAGE, 63 * PAGE + 1 },
	{ "at the end", 0, PAGE, 64 * PAGE },
	{ "a byte at the end", 0, 1, 64 * PAGE },
	{ "longer than a slice", 2, 2 * PAGE, 0 },
	{ "behind the end", 0, PAGE, 1ull << 40 },
	{ "the sum overflows to 0", 0, PAGE, UINT64_MAX - PAGE + 1 },
	{ "the sum overflows to the middle", 0, 2 * PAGE, UINT64_MAX - PAGE + 1 },
	{ "the last offset", 0, 1, UINT64_MAX },
	{ "negative as a signed number", 0, PAGE, (uint64_t)-PAGE },
};

static struct header one_write(uint32_t slice, uint32_t length, uint64_t offset)
{
	struct header header = {
		.n_writes = htobe32(1),
		.writes = { { htobe32(slice), htobe32(length), htobe64(offset) } },
	};

	return header;
}

static void send_header(struct stream *stream, uint32_t slice, uint32_t length, uint64_t offset)
{
	struct header header = one_write(slice, length, offset);

	send_raw(stream, &header, sizeof(header));
}

static void attack(const struct hostile *hostile, bool after_a_write)
{
	struct ramlift_error error = { 0 };
	char junk[2 * PAGE];
	struct pair pair;
	struct stream *stream;

	memset(junk, 0x66, sizeof(junk));
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	if (after_a_write) {
		send_header(stream, 2, PAGE, 0);
		send_raw(stream, junk, PAGE);
	}
	send_header(stream, hostile->slice, hostile->length_bytes, hostile->offset_bytes);
	stream_send(stream, junk, sizeof(junk), LONG_NS, -1);
	if (await_tokens(&pair, TOKEN, &error) != -EPROTO)
		fail_msg("%s: %d %s", hostile->what, error.code, error.text);
	assert_non_null(strstr(error.text, "outside"));
	if (after_a_write) {
		assert_memory_equal(pair.destination.slices[2].hva, junk, PAGE);
		memset(pair.destination.slices[2].hva, 0, PAGE);
	}
	assert_memory_untouched(&pair);
	stream_free(stream);
	pair_fini(&pair);
}

static void test_no_write_leaves_its_slice(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof(hostiles) / sizeof(hostiles[0]); i++) {
		attack(&hostiles[i], false);
		attack(&hostiles[i], true);
	}
}

/* Of a batch of which one write is wrong, none is carried out; nor of one that is too long. */
static void attack_with_batch(uint32_t n_writes, unsigned wrong)
{
	struct ramlift_error error = { 0 };
	struct header header = { .n_writes = htobe32(n_writes) };
	char junk[2 * PAGE];
	struct pair pair;
	struct stream *stream;

	memset(junk, 0x66, sizeof(junk));
	for (unsigned i = 0; i < 64; i++) {
		header.writes[i].length_bytes = htobe32(1);
		header.writes[i].slice = htobe32(i == wrong ? N_SLICES : 0);
	}
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_raw(stream, &header, sizeof(header));
	stream_send(stream, junk, sizeof(junk), LONG_NS, -1);
	assert_int_equal(await_tokens(&pair, TOKEN, &error), -EPROTO);
	assert_non_null(strstr(error.text, "too long"));
	assert_memory_untouched(&pair);
	stream_free(stream);
	pair_fini(&pair);
}

static void test_no_batch_is_too_long(void **unused)
{
	(void)unused;
	attack_with_batch(64, 63);
	attack_with_batch(2, 1);
	attack_with_batch(65, UINT32_MAX);
	attack_with_batch(1u << 31, UINT32_MAX);
	attack_with_batch(UINT32_MAX, UINT32_MAX);
}

/* What a batch does not need is 0, in a token too. */
static void attack_with_header(const struct header *header)
{
	struct ramlift_error error = { 0 };
	char junk[2 * PAGE];
	struct stream *stream;
	struct pair pair;

	memset(junk, 0x66, sizeof(junk));
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_raw(stream, header, sizeof(*header));
	stream_send(stream, junk, sizeof(junk), LONG_NS, -1);
	assert_int_equal(await_tokens(&pair, TOKEN, &error), -EPROTO);
	assert_non_null(strstr(error.text, "malformed"));
	assert_memory_untouched(&pair);
	stream_free(stream);
	pair_fini(&pair);
}

static void test_what_is_not_used_is_zero(void **unused)
{
	const struct header token = { .token = htobe64(TOKEN) }, write = one_write(0, PAGE, 0);
	struct header header;

	(void)unused;
	header = write;
	header.reserved = htobe32(1);
	attack_with_header(&header);
	header = write;
	header.token = htobe64(TOKEN);
	attack_with_header(&header);
	header = write;
	header.writes[1].offset_bytes = htobe64(1);
	attack_with_header(&header);
	header = write;
	header.writes[63].slice = htobe32(1);
	attack_with_header(&header);
	header = token;
	header.reserved = htobe32(1);
	attack_with_header(&header);
	header = token;
	header.writes[0].length_bytes = htobe32(1);
	attack_with_header(&header);
}

/* Lanes of a session that is encrypted are nobody's else, and none of them is plain. */
static void test_no_lane_without_the_secret(void **unused)
{
	static const uint8_t other[STREAM_SECRET_BYTES] = "of somebody else";
	const uint8_t *const wrong[] = { NULL, other, some_secret };
	struct ramlift_error error;
	struct pair pair;

	(void)unused;
	for (unsigned i = 0; i < 3; i++) {
		if (wrong[i] == secret)
			continue;
		pair_listen(&pair, 1);
		accept_begin(&pair);
		pair.source.params.lane_secret = wrong[i];
		error.code = 0;
		assert_true(tcp()->connect(&pair.source.params, &pair.address.socket,
					   clock_now_ns() + NS_PER_S, &pair.source.endpoint,
					   &error) < 0);
		assert_non_null(strstr(error.text, "lane 0 was not admitted"));
		pair.source.params.lane_secret = secret;
		connect_source(&pair);
		assert_int_equal(accept_end(&pair), 0);
		pair_fini(&pair);
	}
}

/* The borders themselves are allowed. */
static void test_writes_up_to_the_border(void **unused)
{
	struct header header;
	char junk[PAGE];
	struct pair pair;
	struct stream *stream;

	(void)unused;
	memset(junk, 0x66, sizeof(junk));
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_header(stream, 2, PAGE, 0);
	send_raw(stream, junk, PAGE);
	send_header(stream, 0, 1, 64 * PAGE - 1);
	send_raw(stream, junk, 1);
	header = (struct header){ .token = htobe64(TOKEN) };
	send_raw(stream, &header, sizeof(header));
	assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
	assert_memory_equal(pair.destination.slices[2].hva, junk, PAGE);
	assert_int_equal(((char *)pair.destination.slices[0].hva)[64 * PAGE - 1], 0x66);
	stream_free(stream);
	pair_fini(&pair);
}

/* ---- ends ---- */

struct writer {
	struct pair *pair;
	struct stream *stream;
	_Atomic int stop;
};

/* Writes 1, 2, 3... over the last page until the connection breaks. */
static void *writer_thread(void *argument)
{
	struct writer *writer = argument;
	char frame[sizeof(struct header) + PAGE];
	struct header header = one_write(2, PAGE, 0);

	memcpy(frame, &header, sizeof(header));
	for (unsigned i = 1; !writer->stop; i++) {
		memset(frame + sizeof(header), (int)(i % 255 + 1), PAGE);
		if (stream_send(writer->stream, frame, sizeof(frame), LONG_NS, -1))
			break;
	}
	return NULL;
}

/* Rule 6: whatever the source still sends, after the fence memory stays as it is. */
static void test_nothing_is_written_after_the_fence(void **unused)
{
	(void)unused;
	for (unsigned round = 0; round < 20; round++) {
		unsigned char before[PAGE];
		struct writer writer = { 0 };
		struct pair pair;
		pthread_t thread;

		pair_listen(&pair, 1);
		accept_begin(&pair);
		writer.stream = join_raw(&pair, 0);
		assert_int_equal(accept_end(&pair), 0);
		assert_int_equal(pthread_create(&thread, NULL, writer_thread, &writer), 0);
		usleep(round * 500);
		assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
		memcpy(before, pair.destination.slices[2].hva, PAGE);
		usleep(5000);
		assert_memory_equal(pair.destination.slices[2].hva, before, PAGE);
		memset(pair.destination.slices[2].hva, 0, PAGE);
		usleep(5000);
		assert_memory_untouched(&pair);
		writer.stop = 1;
		pthread_join(thread, NULL);
		stream_free(writer.stream);
		pair_fini(&pair);
	}
}

/* One lane of two ends, at the source or at the destination or in a write; the other goes on. */
static void lose_lane(void (*lose)(struct pair *pair))
{
	uint64_t tokens[] = { 0, TOKEN };
	struct transport_write write = { 2, PAGE, 0 };
	struct ramlift_error error = { 0 };
	struct pair pair;

	pair_init(&pair, 2);
	fill(&pair.source, 3);
	assert_int_equal(tcp()->post(pair.source.endpoint, 0, &write, 1, NULL), 0);
	lose(&pair);
	for (uint64_t end_ns = LONG_NS; !error.code;) {
		tcp()->post(pair.source.endpoint, 0, &write, 1, &error);
		assert_true(clock_now_ns() < end_ns);
	}
	assert_non_null(strstr(error.text, "lane 0 broke"));
	tcp()->drop_lane(pair.source.endpoint, 0);
	assert_int_equal(tcp()->fence_lane(pair.destination.endpoint, 0, NULL), 0);
	pair.n_lanes = 1; /* what is left, by another number */
	for (unsigned i = 0; i < N_SLICES; i++) {
		for (uint64_t at = 0; at < slice_bytes[i]; at += write.length_bytes) {
			uint64_t left = slice_bytes[i] - at;

			write = (struct transport_write){
				i, left < WRITE_MAX ? (uint32_t)left : WRITE_MAX, at
			};
			assert_int_equal(tcp()->post(pair.source.endpoint, 1, &write, 1, NULL), 0);
		}
	}
	assert_int_equal(tcp()->token(pair.source.endpoint, 1, TOKEN, NULL), 0);
	assert_int_equal(tcp()->await_tokens(pair.destination.endpoint, tokens, LONG_NS, NULL), 0);
	/* With a token for it, the lost one is missed. */
	tokens[0] = TOKEN;
	assert_true(tcp()->await_tokens(pair.destination.endpoint, tokens, LONG_NS, &error) < 0);
	assert_non_null(strstr(error.text, "lane 0"));
	assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
	assert_same_memory(&pair);
	pair_fini(&pair);
}

static void lose_at_source(struct pair *pair)
{
	tcp()->drop_lane(pair->source.endpoint, 0);
}

/* As a receiver ends that cannot go on: the source is to notice. */
static void lose_at_destination(struct pair *pair)
{
	tcp()->fence_lane(pair->destination.endpoint, 0, NULL);
}

static void test_a_lane_is_lost(void **unused)
{
	(void)unused;
	lose_lane(lose_at_source);
	lose_lane(lose_at_destination);
}

/* A lane whose receiver cannot go on is of no use: its source is to notice. */
static void test_a_receiver_that_ends_closes(void **unused)
{
	struct pair pair;
	char byte;
	struct stream *stream;

	(void)unused;
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_header(stream, N_SLICES, PAGE, 0); /* there is no such slice */
	assert_int_equal(stream_receive(stream, &byte, 1, LONG_NS, -1), -ECONNRESET);
	stream_free(stream);
	pair_fini(&pair);
}

static void test_the_source_dies(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	struct stream *stream;

	(void)unused;
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_header(stream, 2, PAGE, 0); /* in the middle of a write */
	send_raw(stream, "abc", 3);
	stream_free(stream);
	assert_int_equal(await_tokens(&pair, TOKEN, &error), -ECONNRESET);
	assert_non_null(strstr(error.text, "lane 0"));
	pair_fini(&pair);
}

static int post_until_it_fails(struct pair *pair, struct ramlift_error *error)
{
	struct transport_write write = { 1, WRITE_MAX, 0 };
	uint64_t end_ns = LONG_NS;
	int ret = 0;

	while (!ret && clock_now_ns() < end_ns)
		ret = tcp()->post(pair->source.endpoint, 0, &write, 1, error);
	return ret;
}

static void test_the_destination_dies(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	int ret;

	(void)unused;
	pair_init(&pair, 1);
	tcp()->close(pair.destination.endpoint);
	pair.destination.endpoint = NULL;
	ret = post_until_it_fails(&pair, &error);
	assert_true(ret == -EPIPE || ret == -ECONNRESET);
	assert_int_equal(error.code, ret);
	assert_true(tcp()->token(pair.source.endpoint, 0, TOKEN, &error) < 0);
	pair_fini(&pair);
}

/* A destination that has joined the lane and then reads nothing. */
static void listen_deaf(struct pair *pair, int *listener)
{
	pair_listen(pair, 1);
	tcp()->close(pair->destination.endpoint);
	pair->destination.endpoint = NULL;
	address_set_port(&pair->address, 0);
	assert_int_equal(address_listen(&pair->address, listener, NULL), 0);
	assert_int_equal(address_of_socket(*listener, &pair->address), 0);
}

struct deaf {
	int listener;
	struct stream *stream;
};

static void *welcome_thread(void *argument)
{
	struct deaf *deaf = argument;
	struct hello hello;
	int fd;

	deaf->stream = NULL;
	if (wait_for_fd(deaf->listener, POLLIN, LONG_NS, -1))
		return NULL;
	fd = accept4(deaf->listener, NULL, NULL, SOCK_NONBLOCK);
	if (!stream_accept_lane(fd, secret, LONG_NS, -1, &deaf->stream, NULL) &&
	    !stream_receive(deaf->stream, &hello, sizeof(hello), LONG_NS, -1))
		stream_send(deaf->stream, "\1", 1, LONG_NS, -1);
	return NULL;
}

static void connect_deaf(struct pair *pair, struct deaf *deaf)
{
	pthread_t thread;

	listen_deaf(pair, &deaf->listener);
	assert_int_equal(pthread_create(&thread, NULL, welcome_thread, deaf), 0);
	connect_source(pair);
	pthread_join(thread, NULL);
}

static void test_a_peer_that_does_not_read(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	pthread_t thread;
	struct deaf deaf;

	(void)unused;
	listen_deaf(&pair, &deaf.listener);
	pair.source.params.io_timeout_ns = 200 * NS_PER_MS;
	assert_int_equal(pthread_create(&thread, NULL, welcome_thread, &deaf), 0);
	connect_source(&pair);
	pthread_join(thread, NULL);
	assert_int_equal(post_until_it_fails(&pair, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.text, "200 ms"));
	/* On a path as short as this one the kernel may not pile up megabytes. */
	assert_in_range(tcp()->in_flight_bytes(pair.source.endpoint, 0), 1, 1 << 20);
	close(deaf.listener);
	stream_free(deaf.stream);
	pair_fini(&pair);
}

static void test_abort_ends_a_post_that_blocks(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	pthread_t thread;
	struct deaf deaf;

	(void)unused;
	connect_deaf(&pair, &deaf);
	assert_int_equal(pthread_create(&thread, NULL, abort_soon, pair.source.endpoint), 0);
	assert_int_equal(post_until_it_fails(&pair, &error), -ECANCELED);
	pthread_join(thread, NULL);
	/* And later ones. */
	assert_int_equal(tcp()->token(pair.source.endpoint, 0, TOKEN, &error), -ECANCELED);
	close(deaf.listener);
	stream_free(deaf.stream);
	pair_fini(&pair);
}

static void test_abort_ends_waiting_for_tokens(void **unused)
{
	struct pair pair;
	pthread_t thread;
	int ret;

	(void)unused;
	pair_init(&pair, 2);
	assert_int_equal(pthread_create(&thread, NULL, abort_soon, pair.destination.endpoint), 0);
	/* The lanes break by it, and which of the two is seen first is open. */
	ret = await_tokens(&pair, TOKEN, NULL);
	assert_true(ret == -ECANCELED || ret == -ECONNRESET);
	pthread_join(thread, NULL);
	assert_true(await_tokens(&pair, TOKEN, NULL) < 0);
	pair_fini(&pair);
}

static void test_close_in_any_state(void **unused)
{
	struct pair pair;

	(void)unused;
	tcp()->close(NULL);
	pair_listen(&pair, 3);
	pair_fini(&pair);
	pair_init(&pair, 3);
	pair_fini(&pair);
	pair_init(&pair, 3);
	assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
	assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
	tcp()->abort(pair.destination.endpoint);
	pair_fini(&pair);
	pair_init(&pair, 3);
	tcp()->abort(pair.source.endpoint);
	tcp()->abort(pair.source.endpoint);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data_arrives),
		cmocka_unit_test(test_the_largest_write),
		cmocka_unit_test(test_writes_of_a_lane_keep_their_order),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_strangers_are_turned_away),
		cmocka_unit_test(test_a_lane_joins_once),
		cmocka_unit_test(test_accept_ends),
		cmocka_unit_test(test_accept_ends_among_strangers),
		cmocka_unit_test(test_the_silent_cost_no_time),
		cmocka_unit_test(test_a_crowd_pushes_out_its_own),
		cmocka_unit_test(test_waits_are_interrupted),
		cmocka_unit_test(test_nobody_admits_the_source),
		cmocka_unit_test(test_no_write_leaves_its_slice),
		cmocka_unit_test(test_no_batch_is_too_long),
		cmocka_unit_test(test_no_lane_without_the_secret),
		cmocka_unit_test(test_what_is_not_used_is_zero),
		cmocka_unit_test(test_writes_up_to_the_border),
		cmocka_unit_test(test_nothing_is_written_after_the_fence),
		cmocka_unit_test(test_a_lane_is_lost),
		cmocka_unit_test(test_a_receiver_that_ends_closes),
		cmocka_unit_test(test_the_source_dies),
		cmocka_unit_test(test_the_destination_dies),
		cmocka_unit_test(test_a_peer_that_does_not_read),
		cmocka_unit_test(test_abort_ends_a_post_that_blocks),
		cmocka_unit_test(test_abort_ends_waiting_for_tokens),
		cmocka_unit_test(test_close_in_any_state),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, NULL, NULL);

	secret = some_secret;
	return failed + cmocka_run_group_tests_name("TLS", tests, NULL, NULL);
}
