/* SPDX-License-Identifier: Apache-2.0 */
/*
 * librdmacm made regular: non-blocking event channels, events copied and acknowledged at once, and
 * the private data of a connect request as a struct.
 */
#ifndef RDMA_CM_H
#define RDMA_CM_H

#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/transport.h"

struct ramlift_error;

/* What a lane says in its connect request. Big-endian on the wire, see cm_hello_pack(). */
struct cm_hello {
	uint8_t session_id[SESSION_ID_BYTES];
	unsigned lane;
	unsigned n_lanes;
};

#define CM_HELLO_BYTES 28u

/* A copy of an rdma_cm_event, so that it can be acknowledged before anybody acts on it: destroying
 * an id waits for its events' acknowledgement. */
struct cm_event {
	enum rdma_cm_event_type type;
	int status;
	struct rdma_cm_id *id;
	uint8_t private_data[CM_HELLO_BYTES];
	unsigned private_data_bytes; /* what arrived, at most CM_HELLO_BYTES */
};

/* -ENODEV: this kernel has no RDMA. */
int cm_channel_open(struct rdma_event_channel **channel, struct ramlift_error *error);

/* The next event, -EAGAIN while there is none. Never blocks. */
int cm_channel_next(struct rdma_event_channel *channel, struct cm_event *event);

void cm_hello_pack(const struct cm_hello *hello, uint8_t bytes[CM_HELLO_BYTES]);

/* False: too short, not ours, or another version. */
bool cm_hello_unpack(const uint8_t *bytes, unsigned n_bytes, struct cm_hello *hello);

#endif
