/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes and one transport endpoint between them, without a session: the sender says what
 * memory it is going to send, both map and register it, the lanes connect. What is sent is the
 * caller's; at the end both digests are compared.
 */
#ifndef BENCH_ENDPOINT_PAIR_H
#define BENCH_ENDPOINT_PAIR_H

#include "bench/pair.h"
#include "core/ram.h"
#include "core/ramlift.h"
#include "core/transport.h"

#define ENDPOINT_PAIR_TOKEN 0x746f6b656e000000ull

/* It, for every lane. */
void endpoint_pair_tokens(uint64_t tokens[RAMLIFT_MAX_LANES]);

/* Where, and by what. */
struct endpoint_pair_way {
	struct sockaddr_in address;
	const struct ramlift_transport *transport;
	unsigned port; /* of the pair's own connection */
};

/* From the sender, at the beginning. session_id is the pair's own affair. */
struct endpoint_pair_setup {
	uint8_t session_id[SESSION_ID_BYTES];
	uint32_t mib, slice_mib, lanes;
	uint32_t tls; /* TCP lanes under TLS */
};

struct endpoint_pair {
	struct endpoint_pair_way way;
	struct endpoint_pair_setup setup;
	int fd; /* the pair's own connection */
	struct ramlift_region region;
	struct ram ram;
	struct slice_key *keys;
	struct transport_params params;
	struct endpoint *endpoint;
	struct cpu_time receiver_cpu; /* from the lanes' connection to their tokens; set by
					 endpoint_pair_compare() */
};

/* The receiver, from its beginning to its end. */
void endpoint_pair_receive(const struct endpoint_pair_way *way);

/* The sender: random memory, connected lanes, all slices registered on both sides. */
void endpoint_pair_open(struct endpoint_pair *pair, const struct endpoint_pair_way *way,
			const struct endpoint_pair_setup *setup);

/* Every lane has sent its token: end the program if other bytes arrived. Returns the
 * digest. */
uint64_t endpoint_pair_compare(struct endpoint_pair *pair);

void endpoint_pair_close(struct endpoint_pair *pair);

#endif
