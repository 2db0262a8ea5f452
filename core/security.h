/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a side shows and what it wants to see, loaded and checked: certificates, or a key that both
 * sides share, or nothing. stream.c shakes hands with it; nobody else looks inside.
 */
#ifndef CORE_SECURITY_H
#define CORE_SECURITY_H

#include <openssl/ssl.h>

#include "core/stream.h"

enum security_kind {
	SECURITY_NONE, /* plaintext, with this host's own processes or, insecure, with everybody */
	SECURITY_CERTIFICATES,
	SECURITY_KEY, /* from a file, or a lane's */
};

struct security {
	enum security_kind kind;
	bool insecure;
	char *tls_dir; /* for sentences */
	const char *const *allow;
	unsigned n_allow;
	SSL_CTX *context; /* either end's; NULL with SECURITY_NONE */
	uint8_t key[STREAM_SECRET_BYTES];
	size_t buffer_bytes; /* of records, sent by one call */
};

/* For the duration of a handshake, found by ssl_party(). */
struct party {
	const struct security *security;
	const char *host;	      /* whom the source's end wants; NULL at the destination's */
	const char *peer;	      /* the address, for sentences */
	char name[256];		      /* out: whom the peer has proved to be */
	struct ramlift_error refused; /* out: why its certificate was */
};

/* A security whose key is the secret of one session. -ENOMEM. */
int security_for_lanes(const uint8_t *secret, struct security **security,
		       struct ramlift_error *error);

/* -ENOMEM. The party belongs to the caller, and may go once the handshake is over. */
int security_ssl_new(const struct security *security, struct party *party, SSL **ssl);

/* OpenSSL's verification of a peer's certificate: accept it only if it is made out to somebody who
 * is wanted. Sets the party's name, or refused. */
int certificate_verify(int ok, X509_STORE_CTX *store);

#endif
