/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the TCP transport: what its two sides share.
 *
 *   source, the lane's thread   header and pages straight out of guest RAM, one sendmsg() a batch
 *   destination, one each       pages straight into guest RAM and the next header, one recvmsg()
 *
 * A batch's header says where each of its writes goes, and is of one size, so that it can be read
 * together with the pages before it. All of it is checked against the slices before a byte of the
 * pages is read. The token is a batch without writes.
 *
 * With a secret the lanes run under TLS: the same bytes, through OpenSSL, which copies what it
 * encrypts once. A page that the guest writes meanwhile arrives torn, and again, as without TLS.
 *
 * The kernel copies pages into its buffers when they are posted, and what it has taken belongs to
 * nobody any more. Sending by reference (vmsplice(2), sendfile(2)) would be allowed: a page that
 * the guest writes after the post arrives newer than it was, and again, for it is dirty again;
 * both pass the lane in order; freed memory stays as it is while a buffer refers to it; and where
 * the network device makes no checksums, the kernel copies shared pages before it does. But it is
 * slower: the receiver then copies from memory that no cache has.
 */
#ifndef CORE_TCP_TRANSPORT_H
#define CORE_TCP_TRANSPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/stream.h"
#include "core/transport.h"

#define HELLO_MAGIC	 0x524c4c31u /* "RLL1" */
#define HELLO_TIMEOUT_NS (2 * NS_PER_S)
#define LANE_WELCOME	 1 /* the destination's answer */

/* A lane's socket blocks by itself, as long as it may; after that there is nothing to wait for. */
#define LANE_DEADLINE_NS 0

/* On the wire, big-endian. */
struct lane_hello {
	uint32_t magic;
	uint16_t lane, n_lanes;
	uint8_t session_id[SESSION_ID_BYTES];
};

struct write_header {
	uint32_t slice;
	uint32_t length_bytes;
	uint64_t offset_bytes;
};

/* Behind it the bytes of each write, in this order. */
struct batch_header {
	uint32_t n_writes; /* at most TRANSPORT_MAX_BATCH; 0: the token */
	uint32_t reserved; /* 0 */
	uint64_t token;	   /* with writes 0 */
	struct write_header writes[TRANSPORT_MAX_BATCH]; /* what is not used: 0 */
};

struct tcp_lane {
	struct endpoint *endpoint;
	unsigned index;
	struct stream *stream; /* NULL: it has not joined */
	int fd;		       /* the stream's, or -1 */
	/* destination */
	pthread_t thread;
	bool has_thread;
	bool has_token;
	uint64_t token;
	int status; /* why the thread ended: 0 after the token */
};

struct endpoint {
	struct transport_params params;
	int listen_fd;
	atomic_bool aborted;
	pthread_mutex_t lock; /* of the lanes' token and status */
	pthread_cond_t changed;
	struct tcp_lane lanes[];
};

/* Neither listening nor connected. NULL without memory. */
struct endpoint *tcp_endpoint_new(const struct transport_params *params,
				  struct ramlift_error *error);
void tcp_close(struct endpoint *endpoint);

/* The lane takes the stream over, also on failure. Lanes block: abort and close end their calls
 * with shutdown(2). -errno. */
int tcp_lane_attach(struct tcp_lane *lane, struct stream *stream);

/* tcp_destination.c */
int tcp_listen(const struct transport_params *params, const struct sockaddr *local,
	       struct endpoint **endpoint, struct sockaddr_storage *addresses,
	       struct ramlift_error *error);
int tcp_accept(struct endpoint *endpoint, uint64_t deadline_ns, struct ramlift_error *error);
int tcp_await_tokens(struct endpoint *endpoint, const uint64_t *tokens, uint64_t deadline_ns,
		     struct ramlift_error *error);
int tcp_fence(struct endpoint *endpoint, struct ramlift_error *error);
int tcp_fence_lane(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error);

/* A lane of this session that has not joined yet? What else says hello is a stranger. */
bool tcp_hello_is_ours(const struct endpoint *endpoint, const struct lane_hello *hello);

/* The work of a lane's thread: receive into the slices until the token is here. Blocks. -EPROTO: a
 * batch is malformed, or would not stay inside them; else why the connection ended. */
int tcp_receive(struct tcp_lane *lane, uint64_t *token);

/* tcp_source.c */
int tcp_connect(const struct transport_params *params, const struct sockaddr_storage *peers,
		uint64_t deadline_ns, struct endpoint **endpoint, struct ramlift_error *error);
int tcp_post(struct endpoint *endpoint, unsigned lane, const struct transport_write *writes,
	     unsigned n_writes, struct ramlift_error *error);
uint64_t tcp_in_flight_bytes(struct endpoint *endpoint, unsigned lane);
int tcp_drain(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error);
int tcp_token(struct endpoint *endpoint, unsigned lane, uint64_t token,
	      struct ramlift_error *error);
void tcp_drop_lane(struct endpoint *endpoint, unsigned lane);

#endif
