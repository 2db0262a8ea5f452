/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pair of TCP endpoints on loopback, and the source's side of a lane played by hand. The
 * destination's memory has guard pages around it, so that a byte outside ends the test. Lanes are
 * plain or under TLS, as the group of tests says.
 */
#ifndef TESTS_UNIT_CORE_TCP_RIG_H
#define TESTS_UNIT_CORE_TCP_RIG_H

#include <pthread.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/ramlift.h"
#include "core/stream.h"
#include "core/transport.h"
#include "tests/support/cmocka_all.h"

#define LONG_NS	  (clock_now_ns() + 30 * NS_PER_S) /* against hangs only */
#define N_SLICES  3u
#define PAGE	  4096u
#define WRITE_MAX TRANSPORT_MAX_WRITE_BYTES
#define TOKEN	  0xfeedfacecafebeefull

/* On the wire; written out here a second time, so that a change of it is noticed. */
struct hello {
	uint32_t magic;
	uint16_t lane, n_lanes;
	uint8_t session_id[SESSION_ID_BYTES];
};

struct header {
	uint32_t n_writes, reserved;
	uint64_t token;
	struct {
		uint32_t slice, length_bytes;
		uint64_t offset_bytes;
	} writes[64];
};

extern const uint64_t slice_bytes[N_SLICES];

struct side {
	struct slice slices[N_SLICES];
	struct transport_params params;
	struct endpoint *endpoint;
	int interrupt_fd;
};

struct pair {
	struct side source, destination;
	struct address address; /* where the destination listens for lanes */
	unsigned n_lanes;
	pthread_t thread;
	int accept_ret;
	uint64_t accept_deadline_ns;
	struct ramlift_error accept_error;
};

/* The secret of both sides' lanes; NULL: they are plain. */
extern const uint8_t *secret;
extern const uint8_t some_secret[STREAM_SECRET_BYTES]; /* what it is under TLS */

/* For a group of tests. */
int lanes_plain(void **unused);
int lanes_under_tls(void **unused);

static inline const struct ramlift_transport *tcp(void)
{
	return ramlift_transport_tcp();
}

/* The destination listens; its other half may come. pair_init(): both sides are connected. */
void pair_listen(struct pair *pair, unsigned n_lanes);
void pair_init(struct pair *pair, unsigned n_lanes);
void pair_fini(struct pair *pair);
void accept_begin(struct pair *pair);
int accept_end(struct pair *pair);
void connect_source(struct pair *pair);

/* The same token for every lane; until the next call. */
const uint64_t *on_all_lanes(uint64_t token);
int await_tokens(struct pair *pair, uint64_t token, struct ramlift_error *error);

void fill(struct side *side, unsigned seed);
void assert_same_memory(struct pair *pair);
void assert_memory_untouched(struct pair *pair);
/* Everything, in writes of several pages, a batch of the largest size among them. */
void post_all(struct pair *pair);
void send_tokens(struct pair *pair, uint64_t token);

/* A lane by hand: connected, with its hello, let in; and the head of a batch of one write. */
struct hello right_hello(const struct pair *pair, unsigned lane);
int connect_bare(struct pair *pair);
struct stream *connect_raw(struct pair *pair);
void send_raw(struct stream *stream, const void *bytes, size_t n);
struct stream *send_hello(struct pair *pair, const struct hello *hello);
struct stream *join_raw(struct pair *pair, unsigned lane);
struct header one_write(uint32_t slice, uint32_t length, uint64_t offset);
void send_header(struct stream *stream, uint32_t slice, uint32_t length, uint64_t offset);

/* A thread that waits for a moment, then aborts an endpoint. */
void *abort_soon(void *argument);

#endif
