/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rogue and its victim, on two hosts. The victim is a destination's data path as it ships
 * (core/transport.h over rdma/), without a session above it, so that the rogue can do what no
 * source does. A bystander on the victim's host accepts the rogue's queue pairs in a protection
 * domain of its own.
 */
#ifndef ROGUE_H
#define ROGUE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/transport.h"

/* The victim's memory: slices side by side, with something of its own before and behind them. */
#define ROGUE_SLICES	  2u
#define ROGUE_SLICE_BYTES (1u << 20)
#define ROGUE_EDGE_BYTES  (256u << 10)

/* Where the lanes connect, and the keys, as SLICE_KEY tells them to a source. */
struct rogue_keys {
	struct sockaddr_storage lanes;
	struct slice_key slices[ROGUE_SLICES];
};

/* What the rogue asks of its victim, a byte each, and is answered with one. */
enum rogue_request {
	ROGUE_FENCE = 'f',	/* as after FINAL; the memory stays registered: 0 */
	ROGUE_DEREGISTER = 'd', /* 0 */
	ROGUE_COMPARE = 'c',	/* is every byte as it was before the lanes connected? 1 or 0 */
	ROGUE_END = 'e',	/* and wait for the next session */
};

/* Until it is killed, or nobody has come for a minute. */
void rogue_victim(const struct sockaddr_in *address);

/* A queue pair of the rogue's own, whose other end is the bystander's. */
struct rdma_cm_id;

/* Memory of the bystander, which it may write. */
struct rogue_gift {
	uint64_t address;
	uint32_t rkey;
};

void rogue_bystander(const struct sockaddr_in *address);
struct rdma_cm_id *rogue_connect(const struct sockaddr_in *address, struct rogue_gift *gift);

/* Write some bytes to address with rkey, and wait for the status of the completion
 * (enum ibv_wc_status). The queue pair is gone afterwards. */
int rogue_write(struct rdma_cm_id *id, uint64_t address, uint32_t rkey);

#endif
