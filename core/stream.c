/* SPDX-License-Identifier: Apache-2.0 */
#include "core/stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

#include "core/clock.h"
#include "core/stream_private.h"
#include "core/tls.h"

#define RECORD_BYTES SSL3_RT_MAX_PLAIN_LENGTH

/* A key is good for about 2^24 of the largest records (RFC 8446, 5.5): change it long before. */
#define KEY_BYTES (UINT64_C(256) << 20)

/* ---- bytes ---- */

/* One attempt. 0: *done bytes; -EAGAIN: wait for *events first; -ECONNRESET, -EPROTO, -errno. */
static int tls_try(struct stream *stream, enum tls_act act, void *data, size_t n, size_t *done,
		   short *events)
{
	SSL *ssl = stream->ssl;
	int ret;

	*done = 0;
	pthread_mutex_lock(&stream->lock);
	stream->why = 0;
	ERR_clear_error();
	errno = 0;
	if (act == TLS_FLUSH) {
		*events = POLLOUT;
		ret = tls_flush(ssl);
	} else {
		ret = act == TLS_HANDSHAKE ? SSL_do_handshake(ssl)
		      : act == TLS_SEND	   ? SSL_write_ex(ssl, data, n, done)
					   : SSL_read_ex(ssl, data, n, done);
		ret = ret == 1 ? 0 : tls_result(ssl, ret, events, &stream->why);
	}
	pthread_mutex_unlock(&stream->lock);
	return ret;
}

int stream_tls(struct stream *stream, enum tls_act act, void *data, size_t n, size_t *done,
	       uint64_t deadline_ns, int interrupt_fd)
{
	for (;;) {
		short events;
		int ret = tls_try(stream, act, data, n, done, &events);

		if (ret != -EAGAIN)
			return ret;
		ret = wait_for_fd(stream->fd, events, deadline_ns, interrupt_fd);
		if (ret)
			return ret;
	}
}

static int tls_send(struct stream *stream, const char *data, size_t n, uint64_t deadline_ns,
		    int interrupt_fd)
{
	while (n) {
		size_t done;
		int ret = stream_tls(stream, TLS_SEND, (char *)data, n, &done, deadline_ns,
				     interrupt_fd);

		if (ret)
			return ret;
		data += done;
		n -= done;
	}
	return 0;
}

static int tls_receive(struct stream *stream, char *data, size_t n, uint64_t deadline_ns,
		       int interrupt_fd)
{
	while (n) {
		size_t done;
		int ret =
			stream_tls(stream, TLS_RECEIVE, data, n, &done, deadline_ns, interrupt_fd);

		if (ret)
			return ret;
		data += done;
		n -= done;
	}
	return 0;
}

/* Before a first byte: nothing may be half sent. */
static void count_bytes(struct stream *stream, size_t n)
{
	stream->bytes_of_key += n;
	if (stream->bytes_of_key <= KEY_BYTES)
		return;
	pthread_mutex_lock(&stream->lock);
	if (SSL_key_update(stream->ssl, SSL_KEY_UPDATE_NOT_REQUESTED)) /* or the next time */
		stream->bytes_of_key = 0;
	ERR_clear_error();
	pthread_mutex_unlock(&stream->lock);
}

/* Take the next record's bytes off the vectors: straight, or gathered from several. */
static const char *next_record(struct iovec **vectors, unsigned *n_vectors, char *gather, size_t *n)
{
	const char *record = (*vectors)->iov_base;

	*n = 0;
	while (*n_vectors && *n < RECORD_BYTES) {
		struct iovec *vector = *vectors;
		size_t part = RECORD_BYTES - *n;

		if (part > vector->iov_len)
			part = vector->iov_len;
		if (part < RECORD_BYTES) {
			memcpy(gather + *n, vector->iov_base, part);
			record = gather;
		}
		*n += part;
		vector->iov_base = (char *)vector->iov_base + part;
		vector->iov_len -= part;
		if (!vector->iov_len) {
			++*vectors;
			--*n_vectors;
		}
	}
	return record;
}

static int tls_send_vectors(struct stream *stream, struct iovec *vectors, unsigned n,
			    uint64_t deadline_ns, int interrupt_fd)
{
	char gather[RECORD_BYTES];
	size_t none;

	while (n) {
		size_t n_bytes;
		const char *record = next_record(&vectors, &n, gather, &n_bytes);
		int ret;

		count_bytes(stream, n_bytes);
		ret = tls_send(stream, record, n_bytes, deadline_ns, interrupt_fd);
		if (ret)
			return ret;
	}
	return stream_tls(stream, TLS_FLUSH, NULL, 0, &none, deadline_ns, interrupt_fd);
}

int stream_send_vectors(struct stream *stream, struct iovec *vectors, unsigned n,
			uint64_t deadline_ns, int interrupt_fd)
{
	int ret = 0;

	if (stream->ssl)
		return tls_send_vectors(stream, vectors, n, deadline_ns, interrupt_fd);
	for (unsigned i = 0; i < n && !ret; i++)
		ret = send_all(stream->fd, vectors[i].iov_base, vectors[i].iov_len, deadline_ns,
			       interrupt_fd);
	return ret;
}

int stream_send(struct stream *stream, const void *data, size_t n, uint64_t deadline_ns,
		int interrupt_fd)
{
	struct iovec vector = { (void *)data, n };

	return stream_send_vectors(stream, &vector, 1, deadline_ns, interrupt_fd);
}

int stream_receive(struct stream *stream, void *data, size_t n, uint64_t deadline_ns,
		   int interrupt_fd)
{
	if (!stream->ssl)
		return receive_all(stream->fd, data, n, deadline_ns, interrupt_fd);
	return tls_receive(stream, data, n, deadline_ns, interrupt_fd);
}

bool stream_has_pending(struct stream *stream)
{
	bool pending;

	if (!stream->ssl)
		return false;
	pthread_mutex_lock(&stream->lock);
	pending = SSL_pending(stream->ssl) > 0; /* what belongs to half a record does not count */
	pthread_mutex_unlock(&stream->lock);
	return pending;
}

/* What was sent is not to be lost: closing with unread bytes would reset the connection. */
void stream_say_goodbye(struct stream *stream, uint64_t deadline_ns)
{
	char bytes[4096];

	if (stream->ssl) {
		pthread_mutex_lock(&stream->lock);
		ERR_clear_error();
		SSL_shutdown(stream->ssl); /* as far as there is room for it */
		ERR_clear_error();
		pthread_mutex_unlock(&stream->lock);
	}
	shutdown(stream->fd, SHUT_WR);
	while (clock_now_ns() < deadline_ns && !wait_for_fd(stream->fd, POLLIN, deadline_ns, -1) &&
	       recv(stream->fd, bytes, sizeof(bytes), 0) > 0)
		;
}

/* ---- asking ---- */

int stream_fd(const struct stream *stream)
{
	return stream->fd;
}

bool stream_is_plain(const struct stream *stream)
{
	return !stream->ssl;
}

const char *stream_protection(const struct stream *stream)
{
	return stream->protection;
}

const char *stream_peer_name(const struct stream *stream)
{
	return stream->peer_name;
}

bool stream_secret(struct stream *stream, const char *purpose, uint8_t secret[STREAM_SECRET_BYTES])
{
	char label[64];
	bool made;

	if (!stream->ssl)
		return false;
	snprintf(label, sizeof(label), "EXPORTER-ramlift %s", purpose);
	pthread_mutex_lock(&stream->lock);
	made = SSL_export_keying_material(stream->ssl, secret, STREAM_SECRET_BYTES, label,
					  strlen(label), NULL, 0, 0) == 1;
	ERR_clear_error();
	pthread_mutex_unlock(&stream->lock);
	return made;
}

void stream_free(struct stream *stream)
{
	if (!stream)
		return;
	SSL_free(stream->ssl);
	close(stream->fd);
	pthread_mutex_destroy(&stream->lock);
	free(stream);
}
