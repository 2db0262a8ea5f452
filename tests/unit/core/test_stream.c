/* SPDX-License-Identifier: Apache-2.0 */
/* Who may talk to whom: every handshake that must succeed, and every one that must be refused, in
 * words that both sides hear. */
#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>

#include "tests/unit/core/stream_rig.h"

static void assert_talk(struct end ends[2])
{
	char word[6] = "";

	assert_int_equal(stream_send(ends[SOURCE].stream, "hello", 5, LONG_NS, NEVER), 0);
	assert_int_equal(stream_receive(ends[DESTINATION].stream, word, 5, LONG_NS, NEVER), 0);
	assert_string_equal(word, "hello");
	assert_int_equal(stream_send(ends[DESTINATION].stream, "olleh", 5, LONG_NS, NEVER), 0);
	assert_int_equal(stream_receive(ends[SOURCE].stream, word, 5, LONG_NS, NEVER), 0);
	assert_string_equal(word, "olleh");
}

static void assert_open(struct end ends[2], const char *protection, const char *destination,
			const char *source)
{
	rig_open(ends);
	assert_talk(ends);
	for (unsigned i = 0; i < 2; i++) {
		assert_string_equal(stream_protection(ends[i].stream), protection);
		assert_int_equal(stream_is_plain(ends[i].stream), !strcmp(protection, "plaintext"));
	}
	assert_string_equal(stream_peer_name(ends[SOURCE].stream), destination);
	assert_string_equal(stream_peer_name(ends[DESTINATION].stream), source);
	rig_free(ends);
}

/* Each side hears what is the matter. */
static void assert_refused(struct end ends[2], int source_code, const char *source_word,
			   int destination_code, const char *destination_word)
{
	rig_shake(ends);
	rig_assert_refused(&ends[SOURCE], source_code, source_word);
	rig_assert_refused(&ends[DESTINATION], destination_code, destination_word);
}

static void use_nothing(struct end *end)
{
	memset(&end->config, 0, sizeof(end->config));
}

static void use_key(struct end *end, const char *name)
{
	use_nothing(end);
	end->config.psk_file = rig_path(name);
}

/* ---- who is let in ---- */

static void test_certificates(void **unused)
{
	struct end ends[2];

	(void)unused;
	rig_ends(ends);
	assert_open(ends, "tls-certificate", HOST, SOURCE_HOST);
	rig_ends(ends);
	ends[SOURCE].host = "127.0.0.1"; /* which the certificate names, too */
	assert_open(ends, "tls-certificate", "127.0.0.1", SOURCE_HOST);
}

static void test_a_shared_key(void **unused)
{
	struct end ends[2];

	(void)unused;
	rig_ends(ends);
	use_key(&ends[SOURCE], "key");
	use_key(&ends[DESTINATION], "key");
	assert_open(ends, "tls-psk", "psk", "psk");
}

static void test_plaintext(void **unused)
{
	struct end ends[2];

	(void)unused;
	for (unsigned insecure = 0; insecure < 4; insecure++) {
		rig_ends(ends);
		use_nothing(&ends[SOURCE]);
		use_nothing(&ends[DESTINATION]);
		ends[SOURCE].config.insecure = insecure & 1;
		ends[DESTINATION].config.insecure = insecure & 2;
		assert_open(ends, "plaintext", "", "");
	}
}

/* A certificate for the destination, the name by which the source wants it, its patterns. */
static const struct naming {
	const char *common_name, *names, *host;
	const char *allow[2];
	const char *known_as; /* NULL: refused */
} namings[] = {
	{ "x", "DNS:a.example,DNS:b.example", "b.example", { 0 }, "b.example" },
	{ "x", "DNS:a.example", "A.Example", { 0 }, "A.Example" },
	{ "x", "DNS:*.c.example", "a.c.example", { 0 }, "a.c.example" },
	{ "x", "DNS:*.c.example", "b.a.c.example", { 0 }, NULL },
	{ "x", "DNS:a.example", "example", { 0 }, NULL },
	{ "x", "DNS:a.example", "a.example.org", { 0 }, NULL },
	{ "a.example", NULL, "a.example", { 0 }, "a.example" },
	{ "a.example", "DNS:b.example", "a.example", { 0 }, NULL },
	{ "10.1.2.3", NULL, "10.1.2.3", { 0 }, "10.1.2.3" },
	{ "10.1.2.3", "IP:10.1.2.4", "10.1.2.3", { 0 }, NULL },
	{ "x", "IP:10.1.2.3", "10.1.2.3", { 0 }, "10.1.2.3" },
	{ "x", "DNS:10.1.2.3.example", "10.1.2.3", { 0 }, NULL },
	{ "x", "IP:fd00::1", "fd00:0:0::0:1", { 0 }, "fd00:0:0::0:1" },
	{ "x", "IP:fe80::1", "fe80::1%eth0", { 0 }, "fe80::1%eth0" },
	{ "x", "IP:fd00::1", "fd00::2", { 0 }, NULL },
	{ NULL, NULL, "a.example", { 0 }, NULL },
	{ NULL, NULL, "", { 0 }, NULL },
	/* With patterns the name by which it is called does not matter. */
	{ "x", "DNS:a.example,DNS:b.example", "c", { "b.*" }, "b.example" },
	{ "x", "DNS:a.example", "a.example", { "b*" }, NULL },
	{ "x", "DNS:a.example", "c", { "b*", "*.EXAMPLE" }, "a.example" },
	{ "x", "DNS:a.example", "c", { "", "x" }, NULL },
	{ "x", NULL, "c", { "", "x" }, "x" },
	{ "x", "IP:10.1.2.3", "c", { "10.1.*" }, "10.1.2.3" },
	{ "x", "IP:10.1.2.3", "c", { "10.2.*" }, NULL },
	{ NULL, NULL, "c", { "*" }, NULL }, /* a name there must be */
};

static void try_naming(const struct naming *naming)
{
	const struct pki_words words = { .common_name = naming->common_name,
					 .names = naming->names };
	struct end ends[2];

	rig_ends(ends);
	ends[DESTINATION].config.tls_dir = rig_tls_dir("named", &words);
	ends[SOURCE].host = naming->host;
	ends[SOURCE].config.allow = naming->allow;
	while (ends[SOURCE].config.n_allow < 2 && naming->allow[ends[SOURCE].config.n_allow])
		ends[SOURCE].config.n_allow++;
	if (naming->known_as)
		assert_open(ends, "tls-certificate", naming->known_as, SOURCE_HOST);
	else
		assert_refused(ends, -EACCES, "made out to", -EACCES, "--allow there");
}

static void test_names_that_a_source_wants(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof(namings) / sizeof(namings[0]); i++)
		try_naming(&namings[i]);
}

static void test_names_that_a_destination_wants(void **unused)
{
	static const char *const good[] = { "other", "db?.example" }, *const bad[] = { "db2.*" };
	struct end ends[2];

	(void)unused;
	rig_ends(ends);
	ends[DESTINATION].config.allow = good;
	ends[DESTINATION].config.n_allow = 2;
	assert_open(ends, "tls-certificate", HOST, SOURCE_HOST);
	rig_ends(ends);
	ends[DESTINATION].config.allow = bad;
	ends[DESTINATION].config.n_allow = 1;
	assert_refused(ends, -EACCES, "--allow there", -EACCES, SOURCE_HOST ", which no --allow");
}

/* ---- certificates that are no good ---- */

static void test_times(void **unused)
{
	static const struct pki_words expired = { "x", "DNS:" HOST, NULL, -7200, -60 };
	static const struct pki_words early = { "x", "DNS:" HOST, NULL, 3600, 7200 };
	struct end ends[2];

	(void)unused;
	rig_tls_dir("expired", &expired);
	rig_tls_dir("early", &early);
	rig_ends(ends);
	ends[SOURCE].config.tls_dir = rig_path("expired");
	assert_refused(ends, -EACCES, "this side's certificate has expired", -EACCES,
		       "expired at 20");
	rig_ends(ends);
	ends[DESTINATION].config.tls_dir = rig_path("expired");
	assert_refused(ends, -EACCES, "(" HOST ") expired at 20", -EACCES,
		       "this side's certificate has expired");
	rig_ends(ends);
	ends[SOURCE].config.tls_dir = rig_path("early");
	assert_refused(ends, -EACCES, "not valid yet", -EACCES, "valid from 20");
	rig_ends(ends);
	ends[DESTINATION].config.tls_dir = rig_path("early");
	assert_refused(ends, -EACCES, "valid from 20", -EACCES, "not valid yet");
}

static void test_another_ca(void **unused)
{
	struct end ends[2];

	(void)unused;
	rig_ends(ends);
	ends[SOURCE].config.tls_dir = rig_path("stranger");
	assert_refused(ends, -EACCES, "not from the CA in", -EACCES, "does not know the CA");
	/* The other way around: it trusts this CA, but its own certificate is from another. */
	pki_write(rig_path("half"), &rig_ca, &rig_ca);
	assert_int_equal(unlink(rig_path("half/cert.pem")), 0);
	assert_int_equal(unlink(rig_path("half/key.pem")), 0);
	assert_int_equal(link(rig_path("stranger/cert.pem"), rig_path("half/cert.pem")), 0);
	assert_int_equal(link(rig_path("stranger/key.pem"), rig_path("half/key.pem")), 0);
	rig_ends(ends);
	ends[SOURCE].config.tls_dir = rig_path("half");
	assert_refused(ends, -EACCES, "does not know the CA", -EACCES, "not from the CA in");
}

static void test_purposes(void **unused)
{
	static const struct pki_words server = { "x", "DNS:" HOST, "serverAuth", 0, 0 };
	static const struct pki_words client = { "x", "DNS:" HOST, "clientAuth", 0, 0 };
	struct end ends[2];

	(void)unused;
	rig_tls_dir("server", &server);
	rig_tls_dir("client", &client);
	rig_ends(ends);
	ends[SOURCE].config.tls_dir = rig_path("client");
	ends[DESTINATION].config.tls_dir = rig_path("server");
	assert_open(ends, "tls-certificate", HOST, HOST);
	rig_ends(ends);
	ends[SOURCE].config.tls_dir = rig_path("server");
	assert_refused(ends, -EACCES, "extended key usage", -EACCES, "not for a TLS client");
	rig_ends(ends);
	ends[DESTINATION].config.tls_dir = rig_path("client");
	assert_refused(ends, -EACCES, "not for a TLS server", -EACCES, "extended key usage");
}

/* ---- sides that do not fit together ---- */

static void test_another_key(void **unused)
{
	struct end ends[2];

	(void)unused;
	rig_ends(ends);
	use_key(&ends[SOURCE], "key");
	use_key(&ends[DESTINATION], "other-key");
	assert_refused(ends, -EACCES, "another pre-shared key", -EACCES, "another pre-shared key");
}

static void test_a_key_and_certificates(void **unused)
{
	struct end ends[2];

	(void)unused;
	rig_ends(ends);
	use_key(&ends[SOURCE], "key");
	assert_refused(ends, -EACCES, "has certificates", -EACCES, "pre-shared key");
	rig_ends(ends);
	use_key(&ends[DESTINATION], "key");
	assert_refused(ends, -EACCES, "pre-shared key", -EACCES, "offers no pre-shared key");
}

static void test_tls_and_plaintext(void **unused)
{
	struct end ends[2];

	(void)unused;
	for (unsigned i = 0; i < 2; i++) {
		rig_ends(ends);
		use_nothing(&ends[SOURCE]);
		if (i)
			use_key(&ends[DESTINATION], "key");
		assert_refused(ends, -EACCES, "speaks TLS only", -EPROTO, "speaks no TLS");
		rig_ends(ends);
		use_nothing(&ends[DESTINATION]);
		if (i)
			use_key(&ends[SOURCE], "key");
		assert_refused(ends, -EPROTO, "speaks no TLS", -EPROTO, "wants TLS");
	}
}

/* An address of this host that is not on the loopback. */
static bool find_address(struct address *address)
{
	struct ifaddrs *all, *one;
	bool found = false;

	assert_int_equal(getifaddrs(&all), 0);
	for (one = all; one && !found; one = one->ifa_next) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)one->ifa_addr;

		if (!v4 || v4->sin_family != AF_INET ||
		    ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET)
			continue;
		memset(address, 0, sizeof(*address));
		memcpy(&address->socket, v4, sizeof(*v4));
		address->length = sizeof(*v4);
		address_set_port(address, 0);
		found = true;
	}
	freeifaddrs(all);
	return found;
}

static void rig_ends_at(struct end ends[2], struct address address)
{
	int listener;

	rig_ends(ends);
	close(ends[SOURCE].fd);
	close(ends[DESTINATION].fd);
	assert_int_equal(address_listen(&address, &listener, NULL), 0);
	assert_int_equal(address_of_socket(listener, &address), 0);
	assert_int_equal(address_connect(&address, LONG_NS, NEVER, &ends[SOURCE].fd, NULL), 0);
	assert_int_equal(wait_for_fd(listener, POLLIN, LONG_NS, NEVER), 0);
	ends[DESTINATION].fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(ends[DESTINATION].fd >= 0);
	close(listener);
	use_nothing(&ends[SOURCE]);
	use_nothing(&ends[DESTINATION]);
}

static void test_plaintext_stays_on_the_loopback(void **unused)
{
	struct address address;
	struct end ends[2];

	(void)unused;
	if (!find_address(&address)) {
		print_message("no address but the loopback's\n");
		skip();
	}
	rig_ends_at(ends, address);
	rig_shake(ends);
	rig_assert_refused(&ends[SOURCE], -EACCES, "--insecure");
	rig_ends_at(ends, address);
	ends[SOURCE].config.insecure = true;
	assert_refused(ends, -EACCES, "nobody but its own host", -EACCES, "--insecure");
	rig_ends_at(ends, address);
	ends[SOURCE].config.insecure = true;
	ends[DESTINATION].config.insecure = true;
	assert_open(ends, "plaintext", "", "");
	rig_ends_at(ends, address);
	use_key(&ends[SOURCE], "key");
	use_key(&ends[DESTINATION], "key");
	assert_open(ends, "tls-psk", "psk", "psk");
}

/* ---- peers that are something else ---- */

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
	use_key(&ends[DESTINATION], "key");
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
				use_key(&ends[which], "key");
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
		use_nothing(&ends[which]);
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

static void wait_for_nobody(unsigned which, unsigned kind, bool half)
{
	struct end ends[2];

	rig_ends(ends);
	if (kind == 1)
		use_key(&ends[which], "key");
	if (kind == 2)
		use_nothing(&ends[which]);
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

	rig_ends(ends);
	if (kind == 1)
		use_key(&ends[which], "key");
	if (kind == 2)
		use_nothing(&ends[which]);
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

/* ---- lanes ---- */

struct lane {
	int fd;
	const uint8_t *secret;
	struct stream *stream;
	int ret;
	struct ramlift_error error;
};

static void *lane_thread(void *argument)
{
	struct lane *lane = argument;

	lane->ret = stream_accept_lane(lane->fd, lane->secret, LONG_NS, NEVER, &lane->stream,
				       &lane->error);
	return NULL;
}

static void open_lanes(struct lane lanes[2], const uint8_t *a, const uint8_t *b)
{
	pthread_t thread;
	int fds[2];

	rig_sockets(fds);
	memset(lanes, 0, 2 * sizeof(lanes[0]));
	lanes[0].fd = fds[0];
	lanes[1].fd = fds[1];
	lanes[1].secret = b;
	assert_int_equal(pthread_create(&thread, NULL, lane_thread, &lanes[1]), 0);
	lanes[0].ret = stream_connect_lane(lanes[0].fd, a, LONG_NS, NEVER, &lanes[0].stream,
					   &lanes[0].error);
	pthread_join(thread, NULL);
}

static void test_lanes(void **unused)
{
	uint8_t secret[STREAM_SECRET_BYTES] = "one", other[STREAM_SECRET_BYTES] = "another";
	struct lane lanes[2];

	(void)unused;
	for (unsigned plain = 0; plain < 2; plain++) {
		open_lanes(lanes, plain ? NULL : secret, plain ? NULL : secret);
		assert_int_equal(lanes[0].ret, 0);
		assert_int_equal(lanes[1].ret, 0);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(stream_is_plain(lanes[i].stream), plain);
			stream_free(lanes[i].stream);
		}
	}
	open_lanes(lanes, secret, other);
	assert_int_equal(lanes[0].ret, -EACCES);
	assert_int_equal(lanes[1].ret, -EACCES);
	assert_null(lanes[0].stream);
	assert_null(lanes[1].stream);
}

/* ---- secrets ---- */

static void get_secrets(struct end ends[2], uint8_t secrets[2][STREAM_SECRET_BYTES])
{
	uint8_t again[STREAM_SECRET_BYTES];

	rig_open(ends);
	for (unsigned i = 0; i < 2; i++)
		assert_true(stream_secret(ends[i].stream, "tcp lanes", secrets[i]));
	assert_memory_equal(secrets[0], secrets[1], STREAM_SECRET_BYTES);
	assert_true(stream_secret(ends[0].stream, "tcp lanes", again));
	assert_memory_equal(secrets[0], again, STREAM_SECRET_BYTES);
	assert_true(stream_secret(ends[0].stream, "something else", again));
	assert_memory_not_equal(secrets[0], again, STREAM_SECRET_BYTES);
	rig_free(ends);
}

static void test_secrets(void **unused)
{
	uint8_t first[2][STREAM_SECRET_BYTES], second[2][STREAM_SECRET_BYTES];
	struct end ends[2];

	(void)unused;
	for (unsigned key = 0; key < 2; key++) {
		for (unsigned session = 0; session < 2; session++) {
			rig_ends(ends);
			if (key) {
				use_key(&ends[0], "key");
				use_key(&ends[1], "key");
			}
			get_secrets(ends, session ? second : first);
		}
		assert_memory_not_equal(first, second, STREAM_SECRET_BYTES);
	}
	rig_ends(ends);
	use_nothing(&ends[0]);
	use_nothing(&ends[1]);
	rig_open(ends);
	assert_false(stream_secret(ends[0].stream, "tcp lanes", first[0]));
	rig_free(ends);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_a_shared_key),
		cmocka_unit_test(test_plaintext),
		cmocka_unit_test(test_names_that_a_source_wants),
		cmocka_unit_test(test_names_that_a_destination_wants),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_another_ca),
		cmocka_unit_test(test_purposes),
		cmocka_unit_test(test_another_key),
		cmocka_unit_test(test_a_key_and_certificates),
		cmocka_unit_test(test_tls_and_plaintext),
		cmocka_unit_test(test_plaintext_stays_on_the_loopback),
		cmocka_unit_test(test_no_certificate),
		cmocka_unit_test(test_an_old_tls),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_a_refusal_arrives),
		cmocka_unit_test(test_peers_that_stall_or_leave),
		cmocka_unit_test(test_interruption),
		cmocka_unit_test(test_lanes),
		cmocka_unit_test(test_secrets),
	};

	return cmocka_run_group_tests(tests, rig_make, rig_remove);
}
