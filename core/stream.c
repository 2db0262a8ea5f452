/* SPDX-License-Identifier: Apache-2.0 */
#include "core/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/security.h"
#include "core/tls.h"

#define RECORD_BYTES SSL3_RT_MAX_PLAIN_LENGTH

/* A key is good for about 2^24 of the largest records (RFC 8446, 5.5): change it long before. */
#define KEY_BYTES (UINT64_C(256) << 20)

/*
 * Where there is no TLS each side says so first, in eight bytes, and so does who refuses: then it
 * is known at once what is the matter.
 */
#define HELLO_BYTES 8u
static const char hello_plain[] = "RLPLAIN\n"; /* plaintext it is */
static const char hello_tls[] = "RLTLS13\n";   /* TLS 1.3, or nothing */
static const char hello_local[] = "RLLOCAL\n"; /* plaintext, but only within one host */
#define TLS_HANDSHAKE_BYTE 0x16

struct stream {
	int fd;
	SSL *ssl; /* NULL: plain */
	const char *protection;
	char peer_name[sizeof(((struct party *)0)->name)];
	pthread_mutex_t lock;  /* an SSL is one thread's at a time */
	unsigned long why;     /* OpenSSL's last error */
	uint64_t bytes_of_key; /* sent with it; the sender's */
};

/* ---- bytes ---- */

enum act { SEND, RECEIVE, FLUSH };

/* One attempt. 0: *done bytes; -EAGAIN: wait for *events first; -ECONNRESET, -EPROTO, -errno. */
static int tls_try(struct stream *stream, enum act act, void *data, size_t n, size_t *done,
		   short *events)
{
	int ret;

	*done = 0;
	pthread_mutex_lock(&stream->lock);
	ERR_clear_error();
	errno = 0;
	if (act == FLUSH) {
		*events = POLLOUT;
		ret = tls_flush(stream->ssl);
	} else {
		ret = act == SEND ? SSL_write_ex(stream->ssl, data, n, done)
				  : SSL_read_ex(stream->ssl, data, n, done);
		ret = ret ? 0 : tls_result(stream->ssl, ret, events, &stream->why);
	}
	pthread_mutex_unlock(&stream->lock);
	return ret;
}

/* Waits outside of the lock: one thread may receive while another sends. */
static int tls_act(struct stream *stream, enum act act, void *data, size_t n, size_t *done,
		   uint64_t deadline_ns, int interrupt_fd)
{
	for (;;) {
		short events;
		int ret = tls_try(stream, act, data, n, done, &events);

		if (ret == -EAGAIN)
			ret = wait_for_fd(stream->fd, events, deadline_ns, interrupt_fd);
		else
			return ret;
		if (ret)
			return ret;
	}
}

static int tls_send(struct stream *stream, const char *data, size_t n, uint64_t deadline_ns,
		    int interrupt_fd)
{
	while (n) {
		size_t done;
		int ret = tls_act(stream, SEND, (char *)data, n, &done, deadline_ns, interrupt_fd);

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
		int ret = tls_act(stream, RECEIVE, data, n, &done, deadline_ns, interrupt_fd);

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
	return tls_act(stream, FLUSH, NULL, 0, &none, deadline_ns, interrupt_fd);
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

/* ---- the beginning and the end ---- */

struct opening {
	struct party party;
	struct address peer;
	uint64_t deadline_ns;
	int interrupt_fd;
	struct ramlift_error *error;
};

/* Takes the socket over, also on failure, which is NULL: -ENOMEM. */
static struct stream *stream_new(int fd, struct ramlift_error *error)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream) {
		close(fd);
		error_set(error, -ENOMEM, "no memory for a connection");
		return NULL;
	}
	stream->fd = fd;
	stream->protection = "plaintext";
	pthread_mutex_init(&stream->lock, NULL);
	return stream;
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

/* What is the same for every handshake that did not get to its end by itself. */
static int explain(const struct opening *opening, int ret)
{
	const char *peer = opening->party.peer;

	if (ret == -ETIMEDOUT)
		return error_set(opening->error, ret,
				 "%s has accepted the connection but did not finish the handshake "
				 "in time",
				 peer);
	if (ret == -ECANCELED)
		return error_set(opening->error, ret, "cancelled");
	if (ret == -ECONNRESET || ret == -EPIPE)
		return error_set(opening->error, -ECONNRESET,
				 "%s has closed the connection during the handshake: look there "
				 "for why",
				 peer);
	return error_set(opening->error, ret, "the connection to %s failed: %s", peer,
			 strerror(-ret));
}

/* A byte behind the handshake: the destination has accepted the source's certificate. Without it
 * the source would hear of a refusal only when it first reads. */
static int confirm(struct stream *stream, const struct opening *opening)
{
	uint8_t byte = 1;

	/* No side may have come here without the key: a key's context has no certificates. */
	if (opening->party.security->kind != SECURITY_CERTIFICATES &&
	    !SSL_session_reused(stream->ssl))
		return -EPROTO;
	return opening->party.host ? stream_receive(stream, &byte, sizeof(byte),
						    opening->deadline_ns, opening->interrupt_fd)
				   : stream_send(stream, &byte, sizeof(byte), opening->deadline_ns,
						 opening->interrupt_fd);
}

static int shake_hands(struct stream *stream, struct opening *opening)
{
	for (;;) {
		short events;
		int ret;

		pthread_mutex_lock(&stream->lock);
		ERR_clear_error();
		errno = 0;
		ret = SSL_do_handshake(stream->ssl);
		ret = ret == 1 ? 0 : tls_result(stream->ssl, ret, &events, &stream->why);
		pthread_mutex_unlock(&stream->lock);
		if (ret == -EAGAIN)
			ret = wait_for_fd(stream->fd, events, opening->deadline_ns,
					  opening->interrupt_fd);
		else if (!ret)
			return confirm(stream, opening);
		if (ret)
			return ret;
	}
}

static const char *protection_of(const struct security *security)
{
	return security->kind == SECURITY_CERTIFICATES ? "tls-certificate" : "tls-psk";
}

static int start_tls(struct stream *stream, struct opening *opening)
{
	const struct security *security = opening->party.security;
	int ret;

	ret = security_ssl_new(security, &opening->party, &stream->ssl);
	if (!ret)
		ret = tls_attach(stream->ssl, stream->fd, security->buffer_bytes);
	if (ret)
		return explain(opening, ret);
	ret = shake_hands(stream, opening);
	SSL_set_app_data(stream->ssl, NULL);
	if (ret)
		return ret == -EPROTO ? tls_explain(&opening->party, stream->why, opening->error)
				      : explain(opening, ret);
	stream->protection = protection_of(security);
	strcpy(stream->peer_name,
	       security->kind == SECURITY_CERTIFICATES ? opening->party.name : "psk");
	return 0;
}

/* ---- without TLS ---- */

static bool is_loopback(const struct address *address)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->socket;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->socket;

	if (address->socket.ss_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return address->socket.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static bool plain_is_allowed(const struct opening *opening)
{
	return opening->party.security->insecure || is_loopback(&opening->peer);
}

static int refuse_plain(const struct opening *opening)
{
	return error_set(opening->error, -EACCES,
			 "%s is another host, and nothing would protect the connection: give both "
			 "sides --tls-dir or --psk-file, or --insecure if the network is trusted",
			 opening->party.peer);
}

static int connect_plain(struct stream *stream, struct opening *opening)
{
	const char *peer = opening->party.peer;
	char answer[HELLO_BYTES];
	int ret;

	if (!plain_is_allowed(opening))
		return refuse_plain(opening);
	ret = stream_send(stream, hello_plain, HELLO_BYTES, opening->deadline_ns,
			  opening->interrupt_fd);
	if (!ret)
		ret = stream_receive(stream, answer, HELLO_BYTES, opening->deadline_ns,
				     opening->interrupt_fd);
	if (ret)
		return explain(opening, ret);
	if (!memcmp(answer, hello_tls, HELLO_BYTES))
		return error_set(opening->error, -EACCES,
				 "%s speaks TLS only: give this side --tls-dir or --psk-file as "
				 "there",
				 peer);
	if (!memcmp(answer, hello_local, HELLO_BYTES))
		return error_set(opening->error, -EACCES,
				 "%s speaks plaintext with nobody but its own host: give both "
				 "sides --tls-dir or --psk-file",
				 peer);
	if (memcmp(answer, hello_plain, HELLO_BYTES))
		return error_set(opening->error, -EPROTO, "%s does not speak Ramlift's protocol",
				 peer);
	return 0;
}

/* The first byte, which stays where it is. */
static int peek(const struct stream *stream, const struct opening *opening, uint8_t *byte)
{
	int ret = wait_for_fd(stream->fd, POLLIN, opening->deadline_ns, opening->interrupt_fd);
	ssize_t n;

	if (ret)
		return ret;
	n = recv(stream->fd, byte, 1, MSG_PEEK);
	return n < 0 ? -errno : n ? 0 : -ECONNRESET;
}

static void say(struct stream *stream, const struct opening *opening, const char *hello)
{
	send_all(stream->fd, hello, HELLO_BYTES, opening->deadline_ns, opening->interrupt_fd);
}

static int accept_plain(struct stream *stream, struct opening *opening)
{
	char hello[HELLO_BYTES];
	uint8_t byte;
	int ret;

	ret = peek(stream, opening, &byte);
	if (!ret && byte == TLS_HANDSHAKE_BYTE) {
		say(stream, opening, hello_plain);
		return error_set(opening->error, -EPROTO,
				 "%s wants TLS, which this side is not set up for: give it "
				 "--tls-dir or --psk-file",
				 opening->party.peer);
	}
	if (!ret && !plain_is_allowed(opening)) {
		say(stream, opening, hello_local);
		return refuse_plain(opening);
	}
	if (!ret)
		ret = stream_receive(stream, hello, HELLO_BYTES, opening->deadline_ns,
				     opening->interrupt_fd);
	if (ret)
		return explain(opening, ret);
	if (memcmp(hello, hello_plain, HELLO_BYTES))
		return error_set(opening->error, -EPROTO, "%s does not speak Ramlift's protocol",
				 opening->party.peer);
	ret = stream_send(stream, hello_plain, HELLO_BYTES, opening->deadline_ns,
			  opening->interrupt_fd);
	return ret ? explain(opening, ret) : 0;
}

static int accept_tls(struct stream *stream, struct opening *opening)
{
	uint8_t byte;
	int ret = peek(stream, opening, &byte);

	if (ret)
		return explain(opening, ret);
	if (byte == TLS_HANDSHAKE_BYTE)
		return start_tls(stream, opening);
	say(stream, opening, hello_tls);
	return error_set(opening->error, -EPROTO,
			 "%s speaks no TLS: give it --tls-dir or --psk-file as here",
			 opening->party.peer);
}

/* ---- opening ---- */

#define REFUSAL_NS (200 * NS_PER_MS) /* for the peer to read why */

static int open_stream(int fd, const struct security *security, const char *host,
		       struct opening *opening, struct stream **result)
{
	struct stream *stream;
	int ret;

	opening->party.security = security;
	opening->party.host = host;
	opening->party.peer = address_of_peer(fd, &opening->peer) ? "the peer" : opening->peer.text;
	stream = stream_new(fd, opening->error);
	if (!stream)
		return -ENOMEM;
	if (security->kind == SECURITY_NONE)
		ret = host ? connect_plain(stream, opening) : accept_plain(stream, opening);
	else
		ret = host ? start_tls(stream, opening) : accept_tls(stream, opening);
	if (ret) {
		if (ret != -ETIMEDOUT && ret != -ECANCELED)
			stream_say_goodbye(stream, clock_now_ns() + REFUSAL_NS);
		stream_free(stream);
		return ret;
	}
	*result = stream;
	return 0;
}

static int open_lane(int fd, const uint8_t *secret, const char *host, uint64_t deadline_ns,
		     int interrupt_fd, struct stream **stream, struct ramlift_error *error)
{
	struct security *security;
	int ret;

	if (!secret) {
		*stream = stream_new(fd, error);
		return *stream ? 0 : -ENOMEM;
	}
	ret = security_for_lanes(secret, &security, error);
	if (ret) {
		close(fd);
		return ret;
	}
	ret = stream_connect(fd, security, host, deadline_ns, interrupt_fd, stream, error);
	security_free(security);
	return ret;
}

int stream_connect(int fd, const struct security *security, const char *host, uint64_t deadline_ns,
		   int interrupt_fd, struct stream **stream, struct ramlift_error *error)
{
	struct opening opening = {
		.deadline_ns = deadline_ns,
		.interrupt_fd = interrupt_fd,
		.error = error,
	};

	return open_stream(fd, security, host, &opening, stream);
}

int stream_accept(int fd, const struct security *security, uint64_t deadline_ns, int interrupt_fd,
		  struct stream **stream, struct ramlift_error *error)
{
	return stream_connect(fd, security, NULL, deadline_ns, interrupt_fd, stream, error);
}

/* A lane's two ends know each other by the secret: names and addresses do not matter. */
int stream_connect_lane(int fd, const uint8_t *secret, uint64_t deadline_ns, int interrupt_fd,
			struct stream **stream, struct ramlift_error *error)
{
	return open_lane(fd, secret, "", deadline_ns, interrupt_fd, stream, error);
}

int stream_accept_lane(int fd, const uint8_t *secret, uint64_t deadline_ns, int interrupt_fd,
		       struct stream **stream, struct ramlift_error *error)
{
	return open_lane(fd, secret, NULL, deadline_ns, interrupt_fd, stream, error);
}
