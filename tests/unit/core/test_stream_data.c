/* SPDX-License-Identifier: Apache-2.0 */
/* What goes through a stream once it is open: whole, in order, both ways at once, or not at all. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <openssl/err.h>

#include "tests/unit/core/stream_rig.h"

enum kind { CERTIFICATES, KEY, PLAIN, N_KINDS };

static void open_kind(struct end ends[2], enum kind kind)
{
	rig_ends(ends);
	for (unsigned i = 0; i < 2; i++) {
		if (kind != CERTIFICATES)
			memset(&ends[i].config, 0, sizeof(ends[i].config));
		if (kind == KEY)
			ends[i].config.psk_file = rig_path("key");
	}
	rig_open(ends);
}

/* ---- both ways at once ---- */

#define FLOW_BYTES (24u << 20)
#define PIECE_MAX  300000u

struct flow {
	struct stream *stream;
	unsigned seed;
	int ret;
	bool same;
	pthread_t thread;
};

static uint32_t next_number(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static uint32_t piece_bytes(uint32_t *state, uint32_t left)
{
	uint32_t kind = next_number(state) % 4;
	uint32_t n = next_number(state) % (kind ? 5000 : PIECE_MAX) + 1;

	return n < left ? n : left;
}

static void fill_piece(unsigned char *piece, uint32_t n, uint32_t offset, unsigned seed)
{
	for (uint32_t i = 0; i < n; i++)
		piece[i] = (unsigned char)((offset + i) * 2654435761u >> 13) ^ (unsigned char)seed;
}

static void *send_thread(void *argument)
{
	unsigned char *piece = malloc(PIECE_MAX);
	struct flow *flow = argument;
	uint32_t state = flow->seed;

	for (uint32_t at = 0; at < FLOW_BYTES && !flow->ret;) {
		uint32_t n = piece_bytes(&state, FLOW_BYTES - at);

		fill_piece(piece, n, at, flow->seed);
		flow->ret = stream_send(flow->stream, piece, n, LONG_NS, NEVER);
		at += n;
	}
	free(piece);
	return NULL;
}

static void *receive_thread(void *argument)
{
	unsigned char *piece = malloc(PIECE_MAX), *expected = malloc(PIECE_MAX);
	struct flow *flow = argument;
	uint32_t state = flow->seed + 99; /* other pieces than they were sent in */

	flow->same = true;
	for (uint32_t at = 0; at < FLOW_BYTES && !flow->ret;) {
		uint32_t n = piece_bytes(&state, FLOW_BYTES - at);

		flow->ret = stream_receive(flow->stream, piece, n, LONG_NS, NEVER);
		fill_piece(expected, n, at, flow->seed);
		flow->same = flow->same && !memcmp(piece, expected, n);
		at += n;
	}
	free(piece);
	free(expected);
	return NULL;
}

static void test_both_ways_at_once(void **unused)
{
	(void)unused;
	for (enum kind kind = 0; kind < N_KINDS; kind++) {
		struct flow flows[4] = { 0 };
		struct end ends[2];

		open_kind(ends, kind);
		for (unsigned i = 0; i < 4; i++) {
			flows[i].stream = ends[i % 2].stream;
			flows[i].seed = i == 0 || i == 3 ? 1 : 2;
			assert_int_equal(pthread_create(&flows[i].thread, NULL,
							i < 2 ? send_thread : receive_thread,
							&flows[i]),
					 0);
		}
		for (unsigned i = 0; i < 4; i++) {
			pthread_join(flows[i].thread, NULL);
			assert_int_equal(flows[i].ret, 0);
			assert_true(i < 2 || flows[i].same);
		}
		rig_free(ends);
	}
}

/* ---- vectors ---- */

static void send_as_vectors(struct stream *stream, unsigned char *bytes, size_t n, uint32_t state)
{
	while (n) {
		struct iovec vectors[65];
		unsigned count = 0;

		for (; n && count < 65; count++) {
			uint32_t part =
				piece_bytes(&state, n > PIECE_MAX ? PIECE_MAX : (uint32_t)n);

			part = count % 7 == 3 ? 0 : count % 5 == 4 && n > 16384 ? 16384 : part;
			vectors[count] = (struct iovec){ bytes, part };
			bytes += part;
			n -= part;
		}
		assert_int_equal(stream_send_vectors(stream, vectors, count, LONG_NS, NEVER), 0);
	}
}

static void test_vectors(void **unused)
{
	unsigned char *bytes = malloc(FLOW_BYTES);
	struct flow flow = { .seed = 5 };
	struct end ends[2];

	(void)unused;
	assert_non_null(bytes);
	fill_piece(bytes, FLOW_BYTES, 0, flow.seed);
	open_kind(ends, CERTIFICATES);
	flow.stream = ends[DESTINATION].stream;
	assert_int_equal(pthread_create(&flow.thread, NULL, receive_thread, &flow), 0);
	send_as_vectors(ends[SOURCE].stream, bytes, FLOW_BYTES, 3);
	pthread_join(flow.thread, NULL);
	assert_int_equal(flow.ret, 0);
	assert_true(flow.same);
	rig_free(ends);
	free(bytes);
}

/* ---- what poll() does not see ---- */

static void test_pending(void **unused)
{
	char bytes[100] = "";

	(void)unused;
	for (enum kind kind = 0; kind < N_KINDS; kind++) {
		struct end ends[2];

		open_kind(ends, kind);
		assert_false(stream_has_pending(ends[DESTINATION].stream));
		assert_int_equal(stream_send(ends[SOURCE].stream, bytes, 100, LONG_NS, NEVER), 0);
		assert_int_equal(
			stream_receive(ends[DESTINATION].stream, bytes, 40, LONG_NS, NEVER), 0);
		assert_int_equal(stream_has_pending(ends[DESTINATION].stream), kind != PLAIN);
		assert_int_equal(
			stream_receive(ends[DESTINATION].stream, bytes, 60, LONG_NS, NEVER), 0);
		assert_false(stream_has_pending(ends[DESTINATION].stream));
		rig_free(ends);
	}
}

/* ---- waits end ---- */

static void test_deadlines_and_interruptions(void **unused)
{
	const size_t much = 64u << 20;
	char *bytes = calloc(1, much);

	(void)unused;
	assert_non_null(bytes);
	for (enum kind kind = 0; kind < N_KINDS; kind++) {
		int interrupt_fd = eventfd(0, EFD_CLOEXEC);
		uint64_t one = 1;
		struct end ends[2];

		open_kind(ends, kind);
		assert_int_equal(
			stream_receive(ends[SOURCE].stream, bytes, 1, A_MOMENT_NS, interrupt_fd),
			-ETIMEDOUT);
		assert_int_equal(
			stream_send(ends[SOURCE].stream, bytes, much, A_MOMENT_NS, interrupt_fd),
			-ETIMEDOUT);
		assert_int_equal(write(interrupt_fd, &one, sizeof(one)), sizeof(one));
		assert_int_equal(
			stream_receive(ends[SOURCE].stream, bytes, 1, LONG_NS, interrupt_fd),
			-ECANCELED);
		assert_int_equal(
			stream_send(ends[DESTINATION].stream, bytes, much, LONG_NS, interrupt_fd),
			-ECANCELED);
		rig_free(ends);
		close(interrupt_fd);
	}
	free(bytes);
}

/* And no SIGPIPE, which would end this program. */
static void test_the_peer_goes_away(void **unused)
{
	char bytes[1000] = "last words";

	(void)unused;
	for (enum kind kind = 0; kind < N_KINDS; kind++) {
		struct end ends[2];
		int ret = 0;

		open_kind(ends, kind);
		assert_int_equal(stream_send(ends[SOURCE].stream, bytes, 1000, LONG_NS, NEVER), 0);
		stream_free(ends[SOURCE].stream);
		ends[SOURCE].stream = NULL;
		memset(bytes, 0, sizeof(bytes));
		assert_int_equal(
			stream_receive(ends[DESTINATION].stream, bytes, 1000, LONG_NS, NEVER), 0);
		assert_string_equal(bytes, "last words");
		assert_int_equal(stream_receive(ends[DESTINATION].stream, bytes, 1, LONG_NS, NEVER),
				 -ECONNRESET);
		for (uint64_t end_ns = LONG_NS; !ret && clock_now_ns() < end_ns;)
			ret = stream_send(ends[DESTINATION].stream, bytes, 1000, LONG_NS, NEVER);
		assert_true(ret == -EPIPE || ret == -ECONNRESET);
		rig_free(ends);
	}
}

static void test_goodbye(void **unused)
{
	(void)unused;
	for (enum kind kind = 0; kind < N_KINDS; kind++) {
		struct end ends[2];
		char byte;

		open_kind(ends, kind);
		assert_int_equal(stream_send(ends[DESTINATION].stream, "x", 1, LONG_NS, NEVER), 0);
		stream_say_goodbye(ends[SOURCE].stream, A_MOMENT_NS); /* the other does not close */
		assert_int_equal(stream_receive(ends[DESTINATION].stream, &byte, 1, LONG_NS, NEVER),
				 -ECONNRESET);
		rig_free(ends);
	}
}

/* ---- in between ---- */

/* Bytes that the other end has not written, in the middle of what it has. */
static void test_tampering(void **unused)
{
	static const char record[] = "\x17\x03\x03\0\x20"
				     "01234567890123456789012345678901";

	(void)unused;
	for (enum kind kind = 0; kind < PLAIN; kind++) {
		struct end ends[2];
		char bytes[10];
		int fd;

		open_kind(ends, kind);
		fd = stream_fd(ends[SOURCE].stream);
		assert_int_equal(stream_send(ends[SOURCE].stream, "good bytes", 10, LONG_NS, NEVER),
				 0);
		assert_int_equal(send_all(fd, record, 5 + 32, LONG_NS, NEVER), 0);
		assert_int_equal(
			stream_receive(ends[DESTINATION].stream, bytes, 10, LONG_NS, NEVER), 0);
		assert_memory_equal(bytes, "good bytes", 10);
		assert_int_equal(stream_receive(ends[DESTINATION].stream, bytes, 1, LONG_NS, NEVER),
				 -EPROTO);
		/* And nothing more is believed. */
		assert_true(stream_receive(ends[DESTINATION].stream, bytes, 1, LONG_NS, NEVER) < 0);
		assert_int_equal(ERR_peek_error(), 0); /* nor left behind in the program */
		rig_free(ends);
	}
}

/* ---- keys do not last for ever ---- */

#define MANY_BYTES (UINT64_C(800) << 20)

static void count_updates(int writing, int version, int type, const void *bytes, size_t n, SSL *ssl,
			  void *context)
{
	unsigned *updates = context;

	(void)version;
	(void)ssl;
	if (!writing && type == SSL3_RT_HANDSHAKE && n &&
	    *(const uint8_t *)bytes == SSL3_MT_KEY_UPDATE)
		++*updates;
}

static void *read_many_thread(void *argument)
{
	static char bytes[65536];
	SSL *ssl = argument;
	uint64_t left = MANY_BYTES;
	int n;

	if (SSL_accept(ssl) != 1 || SSL_write(ssl, "\1", 1) != 1)
		return NULL;
	for (; left && (n = SSL_read(ssl, bytes, sizeof(bytes))) > 0; left -= (uint64_t)n)
		;
	ERR_clear_error();
	return left ? NULL : ssl;
}

static SSL *raw_destination(int fd, unsigned *updates)
{
	static const struct pki_words words = { .names = "DNS:" HOST };
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	struct pki own;
	int off = 0;
	SSL *ssl;

	pki_make(&own, &rig_ca, &words);
	assert_int_equal(SSL_CTX_use_certificate(context, own.certificate), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(context, own.key), 1);
	SSL_CTX_set_msg_callback(context, count_updates);
	SSL_CTX_set_msg_callback_arg(context, updates);
	ssl = SSL_new(context);
	assert_non_null(ssl);
	SSL_CTX_free(context);
	pki_free(&own);
	assert_int_equal(ioctl(fd, FIONBIO, &off), 0);
	assert_int_equal(SSL_set_fd(ssl, fd), 1);
	return ssl;
}

static void test_keys_change(void **unused)
{
	const size_t piece = 4u << 20;
	char *bytes = calloc(1, piece);
	unsigned updates = 0;
	struct end ends[2];
	pthread_t thread;
	void *complete;
	SSL *ssl;

	(void)unused;
	assert_non_null(bytes);
	rig_ends(ends);
	ssl = raw_destination(ends[DESTINATION].fd, &updates);
	assert_int_equal(pthread_create(&thread, NULL, read_many_thread, ssl), 0);
	rig_start(&ends[SOURCE], true);
	rig_join(&ends[SOURCE]);
	assert_int_equal(ends[SOURCE].ret, 0);
	for (uint64_t at = 0; at < MANY_BYTES; at += piece)
		assert_int_equal(stream_send(ends[SOURCE].stream, bytes, piece, LONG_NS, NEVER), 0);
	pthread_join(thread, &complete);
	assert_non_null(complete);
	assert_in_range(updates, 2, 8);
	SSL_free(ssl);
	close(ends[DESTINATION].fd);
	rig_free(ends);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways_at_once),
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_deadlines_and_interruptions),
		cmocka_unit_test(test_the_peer_goes_away),
		cmocka_unit_test(test_goodbye),
		cmocka_unit_test(test_tampering),
		cmocka_unit_test(test_keys_change),
	};

	return cmocka_run_group_tests(tests, rig_make, rig_remove);
}
