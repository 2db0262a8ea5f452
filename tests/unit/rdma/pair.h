/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of a session over the fake device, with two slices of memory each. */
#ifndef TESTS_UNIT_RDMA_PAIR_H
#define TESTS_UNIT_RDMA_PAIR_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cmocka.h wants the headers above. */
#include <cmocka.h>

#include "core/ramlift.h"
#include "core/transport.h"

#define PAIR_SLICES	 2u
#define PAIR_SLICE_BYTES (256u * 1024)
#define PAIR_TOKEN	 0x1122334455667788ull

struct pair {
	unsigned n_lanes;
	uint64_t io_timeout_ns;
	int interrupt_fd; /* the source's */
	uint8_t session_id[SESSION_ID_BYTES];
	uint8_t *source_ram, *destination_ram;
	struct slice source_slices[PAIR_SLICES], destination_slices[PAIR_SLICES];
	struct slice_key keys[PAIR_SLICES];
	struct sockaddr_storage bound;
	struct endpoint *source, *destination;
	struct ramlift_error source_error, destination_error;
	int accept_ret;
	pthread_t acceptor;
};

extern const struct ramlift_transport *transport;

/* Memory with random bytes at the source, zeros at the destination. */
void pair_init(struct pair *pair, unsigned n_lanes);
void pair_fini(struct pair *pair); /* closes both sides, checks that the device is clean */

/* The address that the fake device has, with a port. */
struct sockaddr *pair_address(uint16_t port);

/* The steps, which assert that they succeed. pair_open() is all of them. */
void pair_listen(struct pair *pair);
void pair_start_accept(struct pair *pair);
void pair_finish_accept(struct pair *pair);
void pair_connect(struct pair *pair);
void pair_open(struct pair *pair);

struct transport_params pair_params(const struct pair *pair, const struct slice *slices);

/* Post all memory in writes of length_bytes, dealt out to the lanes in batches. */
int pair_send_all(struct pair *pair, uint32_t length_bytes);
int pair_send_tokens(struct pair *pair, uint64_t token);

/* A deadline from now. */
uint64_t pair_within_ms(uint64_t ms);

#endif
