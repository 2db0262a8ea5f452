/* SPDX-License-Identifier: Apache-2.0 */
/* How a stream begins: by TLS's handshake, or by saying that there is none; and in what words it
 * does not. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/stream_private.h"
#include "core/tls.h"

/*
 * Where there is no TLS each side says so first, in eight bytes, and so does who refuses: then it
 * is known at once what is the matter.
 */
#define HELLO_BYTES 8u
static const char hello_plain[] = "RLPLAIN\n"; /* plaintext it is */
static const char hello_tls[] = "RLTLS13\n";   /* TLS 1.3, or nothing */
static const char hello_local[] = "RLLOCAL\n"; /* plaintext, but only within one host */
#define TLS_HANDSHAKE_BYTE 0x16

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

/*
 * A byte behind the handshake: the destination has accepted the source's certificate. Without it
 * the source would hear of a refusal only when it first reads.
 */
static int confirm(struct stream *stream, const struct opening *opening)
{
	uint8_t byte = 1;

	return opening->party.host ? stream_receive(stream, &byte, sizeof(byte),
						    opening->deadline_ns, opening->interrupt_fd)
				   : stream_send(stream, &byte, sizeof(byte), opening->deadline_ns,
						 opening->interrupt_fd);
}

static int shake_hands(struct stream *stream, const struct opening *opening)
{
	size_t none;
	int ret = stream_tls(stream, TLS_HANDSHAKE, NULL, 0, &none, opening->deadline_ns,
			     opening->interrupt_fd);

	if (ret)
		return ret;
	if (opening->party.security->kind == SECURITY_CERTIFICATES)
		return confirm(stream, opening);
	/* Nobody may come here without the key, though a key's context has no certificates. */
	return SSL_session_reused(stream->ssl) ? 0 : -EPROTO;
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
