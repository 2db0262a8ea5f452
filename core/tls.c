/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tls.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>

#include "core/error.h"

/* ---- below ---- */

/* OpenSSL's own sockets write each record by itself, and without MSG_NOSIGNAL. */
struct socket {
	int fd;
	size_t capacity, begin, end; /* of what is still to be sent */
	char bytes[];
};

/* A blocking socket's time-out is EAGAIN, too. */
static bool not_now(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK;
}

/* All of it. 1, or -1: as long as the socket is full, to be called again. */
static int socket_flush(BIO *bio)
{
	struct socket *socket = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	while (socket->begin < socket->end) {
		ssize_t sent = send(socket->fd, socket->bytes + socket->begin,
				    socket->end - socket->begin, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && not_now())
			BIO_set_retry_write(bio);
		if (sent < 0)
			return -1;
		socket->begin += (size_t)sent;
	}
	socket->begin = 0;
	socket->end = 0;
	return 1;
}

static int socket_write(BIO *bio, const char *data, int n)
{
	struct socket *socket = BIO_get_data(bio);
	size_t taken = (size_t)n;

	if (taken > socket->capacity - socket->end && socket_flush(bio) < 0)
		return -1;
	if (taken > socket->capacity - socket->end)
		taken = socket->capacity - socket->end;
	memcpy(socket->bytes + socket->end, data, taken);
	socket->end += taken;
	BIO_clear_retry_flags(bio);
	return (int)taken;
}

static int socket_read(BIO *bio, char *data, int n)
{
	struct socket *socket = BIO_get_data(bio);
	ssize_t received;

	BIO_clear_retry_flags(bio);
	do {
		received = recv(socket->fd, data, (size_t)n, 0);
	} while (received < 0 && errno == EINTR);
	if (received < 0 && not_now())
		BIO_set_retry_read(bio);
	return (int)received;
}

static long socket_control(BIO *bio, int command, long number, void *pointer)
{
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? socket_flush(bio) : 0;
}

static int socket_destroy(BIO *bio)
{
	free(BIO_get_data(bio));
	return 1;
}

static BIO_METHOD *socket_method;

static void make_socket_method(void)
{
	BIO_METHOD *method =
		BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ramlift socket");

	if (!method)
		return;
	BIO_meth_set_write(method, socket_write);
	BIO_meth_set_read(method, socket_read);
	BIO_meth_set_ctrl(method, socket_control);
	BIO_meth_set_destroy(method, socket_destroy);
	socket_method = method;
}

int tls_attach(SSL *ssl, int fd, size_t send_bytes)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct socket *socket = malloc(sizeof(*socket) + send_bytes);
	BIO *bio;

	pthread_once(&once, make_socket_method);
	bio = socket && socket_method ? BIO_new(socket_method) : NULL;
	if (!bio) {
		free(socket);
		ERR_clear_error();
		return -ENOMEM;
	}
	*socket = (struct socket){ .fd = fd, .capacity = send_bytes };
	BIO_set_data(bio, socket);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	return 0;
}

int tls_flush(SSL *ssl)
{
	int ret = BIO_flush(SSL_get_wbio(ssl));

	if (ret > 0)
		return 0;
	return BIO_should_retry(SSL_get_wbio(ssl)) ? -EAGAIN : -errno;
}

int tls_result(const SSL *ssl, int ret, short *events, unsigned long *why)
{
	int code = errno;

	*why = ERR_peek_error();
	ret = SSL_get_error(ssl, ret);
	ERR_clear_error();
	switch (ret) {
	case SSL_ERROR_NONE:
		return 0;
	case SSL_ERROR_WANT_READ:
		*events = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		*events = POLLOUT;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return -ECONNRESET;
	case SSL_ERROR_SYSCALL:
		return code ? -code : -ECONNRESET;
	default:
		return -EPROTO;
	}
}

/* ---- in words ---- */

#define ALERT(name) (SSL_AD_REASON_OFFSET + SSL_AD_##name)
#define BY_CA	    1u
#define BY_KEY	    2u

static const struct saying {
	int reason;
	unsigned with; /* which kind of security */
	int code;
	const char *words; /* behind the peer's address */
} sayings[] = {
	/* The other side refuses. */
	{ ALERT(CERTIFICATE_REQUIRED), BY_CA, -EACCES,
	  "wants a certificate from this side: give it --tls-dir" },
	{ ALERT(CERTIFICATE_EXPIRED), BY_CA, -EACCES,
	  "says that this side's certificate has expired: renew cert.pem here, or set the clock "
	  "there" },
	{ ALERT(UNKNOWN_CA), BY_CA, -EACCES,
	  "does not know the CA of this side's certificate: both sides need certificates of one "
	  "CA" },
	{ ALERT(DECRYPT_ERROR), BY_CA, -EACCES,
	  "does not know the CA of this side's certificate: both sides need certificates of one "
	  "CA" },
	{ ALERT(BAD_CERTIFICATE), BY_CA, -EACCES,
	  "does not want the name in this side's certificate, or finds that it is not valid yet: "
	  "look at --allow there, and at the clocks" },
	{ ALERT(UNSUPPORTED_CERTIFICATE), BY_CA, -EACCES,
	  "refuses the purpose of this side's certificate: its extended key usage must have TLS "
	  "client and server, or be absent" },
	{ ALERT(HANDSHAKE_FAILURE), BY_CA, -EACCES,
	  "cannot agree with this side: does it have a pre-shared key, where this side has "
	  "certificates? Use the same on both" },
	{ ALERT(HANDSHAKE_FAILURE), BY_KEY, -EACCES,
	  "cannot agree with this side: does it have certificates, where this side has a "
	  "pre-shared key? Use the same on both" },
	{ ALERT(ILLEGAL_PARAMETER), BY_KEY, -EACCES,
	  "has another pre-shared key: give both sides the same one" },
	{ ALERT(DECRYPT_ERROR), BY_KEY, -EACCES,
	  "has another pre-shared key: give both sides the same one" },
	{ ALERT(PROTOCOL_VERSION), BY_CA | BY_KEY, -EPROTO, "speaks no TLS 1.3" },
	/* This side does. */
	{ SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, BY_CA, -EACCES,
	  "has shown no certificate: give it --tls-dir, with certificates of the same CA as here" },
	{ SSL_R_BINDER_DOES_NOT_VERIFY, BY_KEY, -EACCES,
	  "has another pre-shared key: give both sides the same one" },
	{ SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, BY_KEY, -EACCES,
	  "offers no pre-shared key, which this side wants: use the same on both" },
	{ SSL_R_NO_SHARED_CIPHER, BY_KEY, -EACCES,
	  "offers no pre-shared key, which this side wants: use the same on both" },
	{ SSL_R_UNSUPPORTED_PROTOCOL, BY_CA | BY_KEY, -EPROTO, "speaks no TLS 1.3" },
	{ SSL_R_VERSION_TOO_LOW, BY_CA | BY_KEY, -EPROTO, "speaks no TLS 1.3" },
	{ SSL_R_WRONG_VERSION_NUMBER, BY_CA | BY_KEY, -EPROTO,
	  "speaks no TLS: give it --tls-dir or --psk-file as here" },
};

int tls_explain(const struct party *party, unsigned long why, struct ramlift_error *error)
{
	unsigned with = party->security->kind == SECURITY_CERTIFICATES ? BY_CA : BY_KEY;
	const char *reason = ERR_reason_error_string(why);

	if (party->refused.code)
		return error_set(error, party->refused.code, "%s", party->refused.text);
	for (size_t i = 0; i < sizeof(sayings) / sizeof(sayings[0]); i++) {
		if (ERR_GET_LIB(why) == ERR_LIB_SSL && sayings[i].reason == ERR_GET_REASON(why) &&
		    sayings[i].with & with)
			return error_set(error, sayings[i].code, "%s %s", party->peer,
					 sayings[i].words);
	}
	return error_set(error, -EPROTO, "the TLS handshake with %s failed: %s", party->peer,
			 reason ? reason : "OpenSSL does not say why");
}
