/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rail: one RDMA device of an endpoint, with what its lanes share: protection domain, limits,
 * listener, registrations.
 *
 * Threads: mrs belong to whoever registers or deregisters the slice; the rest is set while the
 * rail's lanes are being connected and only read then.
 */
#ifndef RDMA_RAIL_H
#define RDMA_RAIL_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/ramlift.h"

struct endpoint;
struct transport_params;

struct rail {
	struct endpoint *endpoint;
	unsigned index;
	struct sockaddr_storage local; /* a named rail's address, without port; else family 0 */
	struct rdma_cm_id *listener;   /* destination */

	struct ibv_context *device; /* librdmacm's: it keeps devices open; NULL: not known yet */
	int numa_node;		    /* the device's; -1: not known */
	struct ibv_pd *pd;
	unsigned send_depth; /* work requests of a lane's send queue */

	struct ibv_mr **mrs;	  /* by slice; NULL: not registered on this rail */
	struct ibv_mr *tokens_mr; /* destination: the receive buffers of the rail's lanes */
};

/* What does not need a device. On failure rail_fini() takes back what was made. */
int rail_init(struct rail *rail, struct endpoint *endpoint, unsigned index,
	      struct ramlift_error *error);

/* After the rail's lanes are closed. */
void rail_fini(struct rail *rail);

/* Where the rail's lanes come from or go to: a named device's address near another one, which is
 * the peer's (then of its family) or the one to listen at. Without a name: nothing to do. */
int rail_find_local(struct rail *rail, const struct sockaddr *near, bool same_family,
		    struct ramlift_error *error);

/* Take the device for the rail's lanes: protection domain, limits. Once. */
int rail_use_device(struct rail *rail, struct ibv_context *device, struct ramlift_error *error);

/* The rail's lanes are those from the first one on, as many for each rail. */
unsigned rail_n_lanes(const struct transport_params *params);
unsigned rail_first_lane(const struct rail *rail);

#endif
