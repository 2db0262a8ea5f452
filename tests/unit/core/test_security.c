/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations of security that are told to be wrong before anybody connects. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "tests/unit/core/stream_rig.h"

#define DIGITS "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"

static void assert_refused(const struct ramlift_security *config, int code, const char *word)
{
	struct security *security = (struct security *)&config; /* untouched */
	struct ramlift_error error = { 0 };
	int ret = security_new(config, &security, &error);

	if (ret != code || error.code != code || !strstr(error.text, word))
		fail_msg("%d with '%s' expected: %d, '%s'", code, word, ret, error.text);
	assert_ptr_equal(security, &config);
	assert_int_equal(ERR_peek_error(), 0);
}

static void assert_accepted(const struct ramlift_security *config)
{
	struct ramlift_error error = { 0 };
	struct security *security;

	if (security_new(config, &security, &error))
		fail_msg("%s", error.text);
	assert_int_equal(ERR_peek_error(), 0);
	security_free(security);
}

static void test_what_goes_together(void **unused)
{
	static const char *const names[] = { "a*" };
	const char *tls_dir = rig_path("source"), *psk_file = rig_path("key");
	const struct ramlift_security both = { .tls_dir = tls_dir, .psk_file = psk_file };
	const struct ramlift_security insecure_tls = { .tls_dir = tls_dir, .insecure = true };
	const struct ramlift_security insecure_key = { .psk_file = psk_file, .insecure = true };
	const struct ramlift_security allow_key = { .psk_file = psk_file,
						    .allow = names,
						    .n_allow = 1 };
	const struct ramlift_security allow_nothing = { .allow = names, .n_allow = 1 };

	(void)unused;
	assert_refused(&both, -EINVAL, "one of the two");
	assert_refused(&insecure_tls, -EINVAL, "insecure");
	assert_refused(&insecure_key, -EINVAL, "insecure");
	assert_refused(&allow_key, -EINVAL, "TLS directory");
	assert_refused(&allow_nothing, -EINVAL, "TLS directory");
	assert_accepted(&(struct ramlift_security){ .tls_dir = tls_dir });
	assert_accepted(&(struct ramlift_security){ .psk_file = psk_file });
	assert_accepted(&(struct ramlift_security){ .insecure = true });
	assert_accepted(&(struct ramlift_security){ 0 });
	security_free(NULL);
}

/* A directory in which everything is right. */
static const char *fresh_directory(void)
{
	static const struct pki_words words = { .common_name = "x" };

	return rig_tls_dir("fresh", &words);
}

static void test_directories(void **unused)
{
	static const char *const files[] = { "ca.pem", "cert.pem", "key.pem" };
	struct ramlift_security config = { .tls_dir = rig_path("nowhere") };
	char name[64];

	(void)unused;
	assert_refused(&config, -ENOENT, "nowhere/ca.pem");
	for (unsigned i = 0; i < 3; i++) {
		config.tls_dir = fresh_directory();
		snprintf(name, sizeof(name), "fresh/%s", files[i]);
		assert_accepted(&config);
		assert_int_equal(unlink(rig_path(name)), 0);
		assert_refused(&config, -ENOENT, name);
		pki_write_file(rig_path(name), "", 0600);
		assert_refused(&config, -EINVAL, name);
		pki_write_file(rig_path(name),
			       "-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n",
			       0600);
		assert_refused(&config, -EINVAL, name);
	}
}

static void test_private_keys(void **unused)
{
	struct ramlift_security config = { .tls_dir = fresh_directory() };
	static const unsigned modes[] = { 0640, 0604, 0620, 0601 };
	EVP_PKEY *other = EVP_EC_gen("P-256");
	FILE *file;

	(void)unused;
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(chmod(rig_path("fresh/key.pem"), modes[i]), 0);
		assert_refused(&config, -EACCES, "chmod 600");
	}
	assert_int_equal(chmod(rig_path("fresh/key.pem"), 0400), 0);
	assert_accepted(&config);
	assert_int_equal(unlink(rig_path("fresh/key.pem")), 0);
	pki_write_file(rig_path("fresh/key.pem"), "", 0600);
	file = fopen(rig_path("fresh/key.pem"), "w");
	assert_int_equal(PEM_write_PrivateKey(file, other, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
	assert_refused(&config, -EINVAL, "not the key of the certificate");
	file = fopen(rig_path("fresh/key.pem"), "w");
	assert_int_equal(PEM_write_PrivateKey(file, other, EVP_aes_128_cbc(),
					      (const unsigned char *)"word", 4, NULL, NULL),
			 1);
	fclose(file);
	assert_refused(&config, -EINVAL, "without a passphrase"); /* and nobody is asked for one */
	EVP_PKEY_free(other);
}

static void test_shared_keys(void **unused)
{
	struct ramlift_security config = { .psk_file = rig_path("some-key") };
	static const char *const wrong[] = { "",
					     "\n",
					     DIGITS,
					     DIGITS "\n",
					     DIGITS "g",
					     DIGITS "00",
					     " " DIGITS "0",
					     DIGITS "0 ",
					     DIGITS "0\n0",
					     DIGITS "0\n\n0",
					     DIGITS "0\n\n\n" };
	static const char *const right[] = { DIGITS "0", DIGITS "0\n", DIGITS "F\r\n" };
	static const unsigned modes[] = { 0640, 0604, 0644 };

	(void)unused;
	assert_refused(&config, -ENOENT, "some-key");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		pki_write_file(config.psk_file, wrong[i], 0600);
		assert_refused(&config, -EINVAL, "64 hexadecimal digits");
	}
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		pki_write_file(config.psk_file, right[i], 0600);
		assert_accepted(&config);
	}
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		assert_int_equal(chmod(config.psk_file, modes[i]), 0);
		assert_refused(&config, -EACCES, "chmod 600");
	}
	config.psk_file = rig_directory;
	assert_true(security_new(&config, &(struct security *){ NULL }, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_goes_together),
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_private_keys),
		cmocka_unit_test(test_shared_keys),
	};

	return cmocka_run_group_tests(tests, rig_make, rig_remove);
}
