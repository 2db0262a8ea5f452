/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection as a stream of bytes that is nobody else's: TCP under TLS 1.3, or plain where the
 * configuration allows it. Both the control channel and the TCP transport's lanes run on it.
 */
#ifndef CORE_STREAM_H
#define CORE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/address.h"
#include "core/ramlift.h"

struct stream;
struct security; /* certificates or key, loaded and checked */

#define STREAM_SECRET_BYTES 32u

/* Load what the configuration names. -ENOENT, -EACCES, -EINVAL... with a sentence that names the
 * file. The security is freed by security_free(); NULL is fine there. */
int security_new(const struct ramlift_security *config, struct security **security,
		 struct ramlift_error *error);
void security_free(struct security *security);

/*
 * Take over a connected, non-blocking socket (also on failure) and shake hands: as the source's end
 * (host: the name or address that was connected to), or as the destination's. -EACCES: this peer is
 * not to be spoken to, in words that say why; -EPROTO: it speaks no TLS 1.3; -ETIMEDOUT,
 * -ECANCELED, -ECONNRESET.
 */
int stream_connect(int fd, const struct security *security, const char *host, uint64_t deadline_ns,
		   int interrupt_fd, struct stream **stream, struct ramlift_error *error);
int stream_accept(int fd, const struct security *security, uint64_t deadline_ns, int interrupt_fd,
		  struct stream **stream, struct ramlift_error *error);

/*
 * A further connection of a session that has one: the lanes of the TCP transport. Protected by
 * secret, which both sides derive from the control connection (stream_secret()); plain where secret
 * is NULL.
 */
int stream_connect_lane(int fd, const uint8_t *secret, uint64_t deadline_ns, int interrupt_fd,
			struct stream **stream, struct ramlift_error *error);
int stream_accept_lane(int fd, const uint8_t *secret, uint64_t deadline_ns, int interrupt_fd,
		       struct stream **stream, struct ramlift_error *error);

/* A secret that only the two ends of this connection have, for one purpose. False: it is plain, or
 * there is no memory. */
bool stream_secret(struct stream *stream, const char *purpose, uint8_t secret[STREAM_SECRET_BYTES]);

/*
 * All n bytes. One thread may send while another receives. 0, -ECONNRESET at the end of the stream,
 * -ETIMEDOUT, -ECANCELED, -errno.
 */
int stream_send(struct stream *stream, const void *data, size_t n, uint64_t deadline_ns,
		int interrupt_fd);
int stream_receive(struct stream *stream, void *data, size_t n, uint64_t deadline_ns,
		   int interrupt_fd);

/* As stream_send() of each of them, but in few and large records; the vectors are used up. */
int stream_send_vectors(struct stream *stream, struct iovec *vectors, unsigned n,
			uint64_t deadline_ns, int interrupt_fd);

/* The socket below, to wait for, shut down, and ask for addresses. */
int stream_fd(const struct stream *stream);

/* May stream_receive() have something although the socket is not readable? */
bool stream_has_pending(struct stream *stream);

/* "tls-certificate", "tls-psk" or "plaintext", static strings. */
const char *stream_protection(const struct stream *stream);
bool stream_is_plain(const struct stream *stream);

/* Whom the peer has proved to be: a name in its certificate, "psk", or "". */
const char *stream_peer_name(const struct stream *stream);

/* Nothing is sent any more; let what was sent arrive, and drop what still comes, until the peer has
 * closed its end too or the deadline is there. No other thread may use the stream. */
void stream_say_goodbye(struct stream *stream, uint64_t deadline_ns);

/* Close the socket, too. NULL is fine. */
void stream_free(struct stream *stream);

#endif
