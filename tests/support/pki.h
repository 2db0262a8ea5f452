/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys for tests, made when they are wanted, and TLS directories of them. */
#ifndef TESTS_SUPPORT_PKI_H
#define TESTS_SUPPORT_PKI_H

#include <openssl/ssl.h>

struct pki {
	EVP_PKEY *key;
	X509 *certificate;
};

/* What a certificate says. */
struct pki_words {
	const char *common_name;
	const char *names; /* "DNS:a,IP:10.0.0.1", as OpenSSL's configuration has it; NULL: none */
	const char *purpose;  /* "clientAuth"; NULL: any */
	long from_s, until_s; /* from now; 0 and 0: an hour ago, an hour from now */
};

/* Fail the test where OpenSSL does. issuer NULL: a CA. */
void pki_make(struct pki *pki, const struct pki *issuer, const struct pki_words *words);
void pki_free(struct pki *pki);

/* ca.pem, cert.pem and key.pem in directory, which is made. */
void pki_write(const char *directory, const struct pki *ca, const struct pki *own);

/* A file with that content and mode, and nothing of what was there before. */
void pki_write_file(const char *path, const char *text, unsigned mode);

#endif
