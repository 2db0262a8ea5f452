/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of a session over the fake devices, with two slices of memory each. */
#ifndef TESTS_UNIT_RDMA_PAIR_H
#define TESTS_UNIT_RDMA_PAIR_H

#include <pthread.h>
#include <rdma/rdma_cma.h>
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
	unsigned n_rails, n_lanes;
	const char *const *source_rails; /* NULL: not named */
	const char *const *destination_rails;
	unsigned carriers[PAIR_SLICES]; /* the rails that carry a slice */
	bool on_demand_paging;		/* both sides */
	uint64_t io_timeout_ns;
	int interrupt_fd; /* the source's */
	uint8_t session_id[SESSION_ID_BYTES];
	uint8_t *source_ram, *destination_ram;
	struct slice source_slices[PAIR_SLICES], destination_slices[PAIR_SLICES];
	struct slice_key keys[PAIR_SLICES];
	struct sockaddr_storage bound[RAMLIFT_MAX_RAILS];
	struct endpoint *source, *destination;
	struct ramlift_error source_error, destination_error;
	int accept_ret;
	pthread_t acceptor;
};

extern const struct ramlift_transport *transport;

/* Memory with random bytes at the source, zeros at the destination; one rail without a name. */
void pair_init(struct pair *pair, unsigned n_lanes);

/* As many devices as rails, named in the other order at the source. All
 * of them carry everything. */
void pair_name_rails(struct pair *pair, unsigned n_rails);

/* Both sides' RAM has to be the same by now. */
void pair_assert_same_memory(const struct pair *pair);
void pair_fini(struct pair *pair); /* closes both sides, checks that the device is clean */

/* The address that the first device has, with a port. */
struct sockaddr *pair_address(uint16_t port);

/* The steps, which assert that they succeed. pair_open() is all of them. */
void pair_listen(struct pair *pair);
void pair_start_accept(struct pair *pair);
void pair_finish_accept(struct pair *pair);
void pair_connect(struct pair *pair);
void pair_open(struct pair *pair);

struct transport_params pair_params(const struct pair *pair, const struct slice *slices);

/* Post all memory in writes of length_bytes, dealt out in batches to the
 * lanes that may carry it. */
int pair_send_all(struct pair *pair, uint32_t length_bytes);
int pair_send_tokens(struct pair *pair, uint64_t token);

/* It, from every lane. Good until the thread's next call. */
const uint64_t *pair_tokens(uint64_t token);

/* A connect request at a rail's listener, as the session would make it, or not; how it ended. */
enum rdma_cm_event_type pair_knock(const struct pair *pair, unsigned rail, unsigned lane,
				   unsigned n_lanes, int session_change);
enum rdma_cm_event_type pair_knock_with(const struct pair *pair, unsigned rail, const void *data,
					unsigned n_bytes);

/* A deadline from now. */
uint64_t pair_within_ms(uint64_t ms);

#endif
