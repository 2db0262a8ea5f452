/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "tests/support/cmocka_all.h"

#define HOUR_S 3600

static void add_extension(struct pki *pki, const struct pki *issuer, int nid, const char *value)
{
	X509_EXTENSION *extension;
	X509V3_CTX context;

	X509V3_set_ctx(&context, issuer->certificate, pki->certificate, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(pki->certificate, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

void pki_make(struct pki *pki, const struct pki *issuer, const struct pki_words *words)
{
	bool limited = words->from_s || words->until_s;
	uint32_t serial;
	X509_NAME *name;

	pki->key = EVP_EC_gen("P-256");
	pki->certificate = X509_new();
	assert_non_null(pki->key);
	assert_non_null(pki->certificate);
	issuer = issuer ? issuer : pki;
	assert_int_equal(RAND_bytes((unsigned char *)&serial, sizeof(serial)), 1);
	X509_set_version(pki->certificate, X509_VERSION_3);
	ASN1_INTEGER_set_uint64(X509_get_serialNumber(pki->certificate), serial);
	X509_gmtime_adj(X509_getm_notBefore(pki->certificate), limited ? words->from_s : -HOUR_S);
	X509_gmtime_adj(X509_getm_notAfter(pki->certificate), limited ? words->until_s : HOUR_S);
	name = X509_get_subject_name(pki->certificate);
	if (words->common_name)
		X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
					   (const unsigned char *)words->common_name, -1, -1, 0);
	X509_set_issuer_name(pki->certificate, X509_get_subject_name(issuer->certificate));
	X509_set_pubkey(pki->certificate, pki->key);
	add_extension(pki, issuer, NID_basic_constraints, issuer == pki ? "CA:TRUE" : "CA:FALSE");
	if (words->names)
		add_extension(pki, issuer, NID_subject_alt_name, words->names);
	if (words->purpose)
		add_extension(pki, issuer, NID_ext_key_usage, words->purpose);
	assert_true(X509_sign(pki->certificate, issuer->key, EVP_sha256()) > 0);
}

void pki_free(struct pki *pki)
{
	EVP_PKEY_free(pki->key);
	X509_free(pki->certificate);
}

static FILE *create(const char *directory, const char *name, unsigned mode)
{
	char path[PATH_MAX];
	FILE *file;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, mode), 0);
	file = fdopen(fd, "w");
	assert_non_null(file);
	return file;
}

void pki_write(const char *directory, const struct pki *ca, const struct pki *own)
{
	FILE *file;

	assert_true(!mkdir(directory, 0700) || errno == EEXIST);
	file = create(directory, "ca.pem", 0644);
	assert_int_equal(PEM_write_X509(file, ca->certificate), 1);
	fclose(file);
	file = create(directory, "cert.pem", 0644);
	assert_int_equal(PEM_write_X509(file, own->certificate), 1);
	fclose(file);
	file = create(directory, "key.pem", 0600);
	assert_int_equal(PEM_write_PrivateKey(file, own->key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
}

void pki_write_file(const char *path, const char *text, unsigned mode)
{
	FILE *file = create("/", path, mode); /* "//tmp/..." */

	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}
