/* SPDX-License-Identifier: Apache-2.0 */
/* Who may talk to whom: every handshake that must succeed, and every one that must be refused, in
 * words that both sides hear. */
#include <errno.h>
#include <ifaddrs.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
	rig_use_key(&ends[SOURCE], "key");
	rig_use_key(&ends[DESTINATION], "key");
	assert_open(ends, "tls-psk", "psk", "psk");
}

static void test_plaintext(void **unused)
{
	struct end ends[2];

	(void)unused;
	for (unsigned insecure = 0; insecure < 4; insecure++) {
		rig_ends(ends);
		rig_use_nothing(&ends[SOURCE]);
		rig_use_nothing(&ends[DESTINATION]);
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
	rig_use_key(&ends[SOURCE], "key");
	rig_use_key(&ends[DESTINATION], "other-key");
	assert_refused(ends, -EACCES, "another pre-shared key", -EACCES, "another pre-shared key");
}

static void test_a_key_and_certificates(void **unused)
{
	struct end ends[2];

	(void)unused;
	rig_ends(ends);
	rig_use_key(&ends[SOURCE], "key");
	assert_refused(ends, -EACCES, "has certificates", -EACCES, "pre-shared key");
	rig_ends(ends);
	rig_use_key(&ends[DESTINATION], "key");
	assert_refused(ends, -EACCES, "pre-shared key", -EACCES, "offers no pre-shared key");
}

static void test_tls_and_plaintext(void **unused)
{
	struct end ends[2];

	(void)unused;
	for (unsigned i = 0; i < 2; i++) {
		rig_ends(ends);
		rig_use_nothing(&ends[SOURCE]);
		if (i)
			rig_use_key(&ends[DESTINATION], "key");
		assert_refused(ends, -EACCES, "speaks TLS only", -EPROTO, "speaks no TLS");
		rig_ends(ends);
		rig_use_nothing(&ends[DESTINATION]);
		if (i)
			rig_use_key(&ends[SOURCE], "key");
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
	rig_use_nothing(&ends[SOURCE]);
	rig_use_nothing(&ends[DESTINATION]);
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
	rig_use_key(&ends[SOURCE], "key");
	rig_use_key(&ends[DESTINATION], "key");
	assert_open(ends, "tls-psk", "psk", "psk");
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
	};

	return cmocka_run_group_tests(tests, rig_make, rig_remove);
}
