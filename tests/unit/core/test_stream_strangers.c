/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that are something else, that are slow, or that go away in the middle of a handshake. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <openssl/err.h>

#include "tests/unit/core/stream_rig.h"

/* A TLS of the test's own; blocking. */
static SSL *raw_ssl(int fd, const struct pki *own)
{
	SSL_CTX *context = SSL_CTX_new(TLS_method());
	int off = 0;
	SSL *ssl;

	assert_non_null(context);
	if (own) {
		assert_int_equal(SSL_CTX_use_certificate(context, own->certificate), 1);
		assert_int_equal(SSL_CTX_use_PrivateKey(context, own->key), 1);
	}
	ssl = SSL_new(context);
	assert_non_null(ssl);
	SSL_CTX_free(context);
	assert_int_equal(ioctl(fd, FIONBIO, &off), 0);
	assert_int_equal(SSL_set_fd(ssl, fd), 1);
	return ssl;
}

static void *raw_thread(void *argument)
{
	char byte;

	if (SSL_do_handshake(argument) == 1)
		SSL_read(argument, &byte, 1); /* the alert */
	ERR_clear_error();
	return NULL;
}

/* The other end of ends[which] is the raw one. */
static void shake_raw(struct end ends[2], unsigned which, SSL *ssl)
{
	pthread_t thread;

	if (which == SOURCE)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	assert_int_equal(pthread_create(&thread, NULL, raw_thread, ssl), 0);
	rig_start(&ends[which], which == SOURCE);
	rig_join(&ends[which]);
	pthread_join(thread, NULL);
	SSL_free(ssl);
	close(ends[!which].fd);
}

static void test_no_certificate(void **unused)
{
	struct end ends[2];

	(void)unused;
	rig_ends(ends);
	shake_raw(ends, DESTINATION, raw_ssl(ends[SOURCE].fd, NULL));
	rig_assert_refused(&ends[DESTINATION], -EACCES, "has shown no certificate");
	rig_ends(ends); /* and with a key, where nobody has one */
	rig_use_key(&ends[DESTINATION], "key");
	shake_raw(ends, DESTINATION, raw_ssl(ends[SOURCE].fd, NULL));
	rig_assert_refused(&ends[DESTINATION], -EACCES, "offers no pre-shared key");
}

static void test_an_old_tls(void **unused)
{
	static const struct pki_words words = { .names = "DNS:" HOST };
	struct end ends[2];
	struct pki own;
	SSL *ssl;

	(void)unused;
	pki_make(&own, &rig_ca, &words);
	for (unsigned key = 0; key < 2; key++) {
		for (unsigned which = 0; which < 2; which++) {
			rig_ends(ends);
			if (key)
				rig_use_key(&ends[which], "key");
			ssl = raw_ssl(ends[!which].fd, &own);
			assert_int_equal(SSL_set_max_proto_version(ssl, TLS1_2_VERSION), 1);
			shake_raw(ends, which, ssl);
			rig_assert_refused(&ends[which], -EPROTO, "speaks no TLS 1.3");
		}
	}
	pki_free(&own);
}

static const struct noise {
	const char *bytes;
	size_t n;
	const char *source_word, *destination_word, *plain_word; /* as a TLS end hears it... */
} noises[] = {
	{ "GET / HTTP/1.1\r\n\r\n", 18, "", "speaks no TLS", "does not speak Ramlift" },
	{ "RLL1............", 16, "speaks no TLS", "speaks no TLS", "does not speak Ramlift" },
	{ "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage", 18, NULL, NULL, NULL },
	{ "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00zzzzzzzzzzz", 20, "", "", "wants TLS" },
	{ "\x15\x03\x03\x00\x02\x02\x28", 7, "", "speaks no TLS", NULL },
	{ "\0\0\0\0\0\0\0\0\0\0", 10, "speaks no TLS", "speaks no TLS", "does not speak Ramlift" },
};

static void hear_noise(const struct noise *noise, unsigned which, bool tls, const char *word)
{
	struct end ends[2];

	if (!word)
		return;
	rig_ends(ends);
	if (!tls)
		rig_use_nothing(&ends[which]);
	assert_int_equal(send_all(ends[!which].fd, noise->bytes, noise->n, LONG_NS, NEVER), 0);
	shutdown(ends[!which].fd, SHUT_WR);
	rig_start(&ends[which], which == SOURCE);
	rig_join(&ends[which]);
	assert_true(ends[which].ret == -EPROTO || ends[which].ret == -EACCES ||
		    ends[which].ret == -ECONNRESET);
	rig_assert_refused(&ends[which], ends[which].ret, word);
	close(ends[!which].fd);
}

static void test_noise(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof(noises) / sizeof(noises[0]); i++) {
		const struct noise *noise = &noises[i];

		hear_noise(noise, SOURCE, true, noise->source_word);
		hear_noise(noise, DESTINATION, true, noise->destination_word);
		hear_noise(noise, DESTINATION, false, noise->plain_word);
		if (noise->plain_word && noise->bytes[0] != 0x16)
			hear_noise(noise, SOURCE, false, noise->plain_word);
	}
}

/* Closing with bytes unread would reset the connection, and the answer could be lost. */
static void test_a_refusal_arrives(void **unused)
{
	char bytes[1000] = "RLPLAIN\n";
	struct end ends[2];
	int fd;

	(void)unused;
	rig_ends(ends);
	fd = ends[SOURCE].fd;
	assert_int_equal(send_all(fd, bytes, sizeof(bytes), LONG_NS, NEVER), 0);
	rig_start(&ends[DESTINATION], false);
	assert_int_equal(receive_all(fd, bytes, 8, LONG_NS, NEVER), 0);
	assert_memory_equal(bytes, "RLTLS13\n", 8);
	assert_int_equal(wait_for_fd(fd, POLLIN, LONG_NS, NEVER), 0);
	assert_int_equal(recv(fd, bytes, sizeof(bytes), 0), 0); /* and no ECONNRESET */
	rig_join(&ends[DESTINATION]);
	assert_int_equal(recv(fd, bytes, sizeof(bytes), 0), 0);
	rig_assert_refused(&ends[DESTINATION], -EPROTO, "speaks no TLS");
	close(fd);
}

/* ---- peers that are slow, or go away ---- */

/* One of them has certificates (0), a key (1) or nothing (2). */
static void ends_of_kind(struct end ends[2], unsigned which, unsigned kind)
{
	rig_ends(ends);
	if (kind == 1)
		rig_use_key(&ends[which], "key");
	if (kind == 2)
		rig_use_nothing(&ends[which]);
}

static void wait_for_nobody(unsigned which, unsigned kind, bool half)
{
	struct end ends[2];

	ends_of_kind(ends, which, kind);
	if (half)
		assert_int_equal(send_all(ends[!which].fd, kind == 2 ? "RLP" : "\x16\x03\x03", 3,
					  LONG_NS, NEVER),
				 0);
	ends[which].deadline_ns = A_MOMENT_NS;
	rig_start(&ends[which], which == SOURCE);
	rig_join(&ends[which]);
	rig_assert_refused(&ends[which], -ETIMEDOUT, "handshake");
	close(ends[!which].fd);
}

static void hear_an_end(unsigned which, unsigned kind)
{
	struct end ends[2];

	ends_of_kind(ends, which, kind);
	shutdown(ends[!which].fd, SHUT_WR);
	rig_start(&ends[which], which == SOURCE);
	rig_join(&ends[which]);
	rig_assert_refused(&ends[which], -ECONNRESET, "closed the connection");
	close(ends[!which].fd);
}

static void test_peers_that_stall_or_leave(void **unused)
{
	(void)unused;
	for (unsigned which = 0; which < 2; which++) {
		for (unsigned kind = 0; kind < 3; kind++) {
			wait_for_nobody(which, kind, false);
			wait_for_nobody(which, kind, true);
			hear_an_end(which, kind);
		}
	}
}

static void test_interruption(void **unused)
{
	int interrupt_fd = eventfd(1, EFD_CLOEXEC);
	const struct ramlift_security config = { .psk_file = rig_path("key") };
	struct security *security;
	struct stream *stream;
	int fds[2];

	(void)unused;
	assert_int_equal(security_new(&config, &security, NULL), 0);
	rig_sockets(fds);
	assert_int_equal(
		stream_connect(fds[0], security, HOST, LONG_NS, interrupt_fd, &stream, NULL),
		-ECANCELED);
	rig_sockets(fds + 0);
	assert_int_equal(stream_accept(fds[1], security, LONG_NS, interrupt_fd, &stream, NULL),
			 -ECANCELED);
	security_free(security);
	close(interrupt_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_certificate),
		cmocka_unit_test(test_an_old_tls),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_a_refusal_arrives),
		cmocka_unit_test(test_peers_that_stall_or_leave),
		cmocka_unit_test(test_interruption),
	};

	return cmocka_run_group_tests(tests, rig_make, rig_remove);
}
