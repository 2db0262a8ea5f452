/* SPDX-License-Identifier: Apache-2.0 */
/* Inside a stream: what opening it and using it share. */
#ifndef CORE_STREAM_PRIVATE_H
#define CORE_STREAM_PRIVATE_H

#include <pthread.h>

#include "core/security.h"
#include "core/stream.h"

struct stream {
	int fd;
	SSL *ssl; /* NULL: plain */
	const char *protection;
	char peer_name[sizeof(((struct party *)0)->name)];
	pthread_mutex_t lock;  /* an SSL is one thread's at a time */
	unsigned long why;     /* OpenSSL's last error */
	uint64_t bytes_of_key; /* sent with it; the sender's */
};

enum tls_act { TLS_HANDSHAKE, TLS_SEND, TLS_RECEIVE, TLS_FLUSH };

/*
 * One step, as soon as it can be done: *done bytes were sent or received. Waits outside of the
 * lock, so that one thread may receive while another sends. -EPROTO: stream->why.
 */
int stream_tls(struct stream *stream, enum tls_act act, void *data, size_t n, size_t *done,
	       uint64_t deadline_ns, int interrupt_fd);

#endif
