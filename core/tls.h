/* SPDX-License-Identifier: Apache-2.0 */
/* OpenSSL over one of our sockets: the bytes below it, and its errors in words. */
#ifndef CORE_TLS_H
#define CORE_TLS_H

#include "core/security.h"

/*
 * Let ssl use the socket, which stays the caller's, and collect up to send_bytes of records before
 * they are sent at once. A connection that is gone raises no SIGPIPE. -ENOMEM.
 */
int tls_attach(SSL *ssl, int fd, size_t send_bytes);

/* Send what was collected. -EAGAIN: wait for room, and call again; -errno. */
int tls_flush(SSL *ssl);

/*
 * What a call of OpenSSL ended with. -EAGAIN: wait for *events, and call again; -ECONNRESET, -errno
 * of the socket; -EPROTO: *why, OpenSSL's own code. Leaves no error behind in the thread.
 */
int tls_result(const SSL *ssl, int ret, short *events, unsigned long *why);

/* Why a handshake failed with -EPROTO: always sets error. -EACCES, -EPROTO, -ECONNRESET. */
int tls_explain(const struct party *party, unsigned long why, struct ramlift_error *error);

#endif
