/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane: one RC queue pair with a completion queue and a completion channel of its own.
 *
 * Writes are numbered from 1; the number is the wr_id. RC completes in order, so a completion of
 * write n says that all writes up to n are done, and only the last one of a post needs a signal:
 *
 *     1 2 3 4 5 6 7 8 | 9 10 11 12
 *             ^completed        ^posted        posted - completed <= depth
 */
#ifndef RDMA_LANE_H
#define RDMA_LANE_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/ramlift.h"
#include "core/transport.h"

struct endpoint;
struct rail;

/* Work requests that a lane may have in flight: four posts. A device may allow less. */
#define LANE_SEND_DEPTH (4 * TRANSPORT_MAX_BATCH)

/* Twice that, so that the entry of what has completed outlives the one of what was posted. */
#define LANE_HISTORY (2 * LANE_SEND_DEPTH)

/* And bytes: enough to keep any link busy, little enough to drain at the switchover. */
#define LANE_WINDOW_BYTES (8u << 20)

/* A post is cut into parts of so many bytes, so that there is always another one in flight. The
 * last write of a part carries a signal. docs/decisions/posting.md has measurements of all these.
 */
#define LANE_PART_BYTES (4u << 20)

/*
 * How often an empty completion queue is looked at before the thread goes to sleep: more often
 * where that paid last time, less often where it did not. At the least nothing worth mentioning, at
 * the most some 50 us: what sleeping and waking costs.
 */
#define LANE_MIN_SPIN_POLLS 8u
#define LANE_MAX_SPIN_POLLS 2048u

/* Completions taken with one look. */
#define LANE_POLL_BATCH 16u

/* Destination: one receive for the token; the other stays, for the fence to see it flushed. */
#define LANE_RECEIVES 2u

#define LANE_TOKEN_BYTES 8u

enum lane_state {
	LANE_IDLE,	 /* nothing but an index */
	LANE_CONNECTING, /* has an id; the queue pair comes on the way */
	LANE_READY,
};

struct lane {
	struct endpoint *endpoint;
	struct rail *rail;
	unsigned index;
	enum lane_state state;
	struct rdma_cm_id *id;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp *qp;

	/* The lane's thread alone. */
	uint64_t posted;
	uint64_t completed;
	uint64_t bytes_posted;
	uint64_t bytes_up_to[LANE_HISTORY]; /* bytes_posted as of write n, at n % LANE_HISTORY */
	unsigned receives;		    /* posted and not completed */
	unsigned events;		    /* taken from the channel, not acknowledged */
	unsigned spin_polls;		    /* looks before the next sleep */
	bool armed;			    /* the next completion makes the channel readable */
	bool has_token;			    /* destination: it came, and this is it */
	uint64_t token;
	struct ramlift_error broken; /* code is not 0 once a completion had an error */

	/* What no completion tells, and the watching thread has heard: written once, before severed
	 * is set. Then the queue pair goes to the error state, so that who waits is woken. */
	struct ramlift_error severed_why;
	atomic_bool severed;

	_Atomic uint64_t in_flight_bytes; /* written by the lane's thread */

	/* The token is through, or the lane is dropped or fenced: what happens to the connection no
	 * longer matters. Read by the watching thread. */
	atomic_bool finished;
} __attribute__((aligned(64)));

/* Completion queue and queue pair on lane->id. On failure lane_close() takes back what was made. */
int lane_open(struct lane *lane, struct ramlift_error *error);

/* Everything of the lane, its id too; it is LANE_IDLE afterwards. */
void lane_close(struct lane *lane);

int lane_post(struct lane *lane, const struct transport_write *writes, unsigned n_writes,
	      struct ramlift_error *error);
int lane_drain(struct lane *lane, struct ramlift_error *error);
int lane_send_token(struct lane *lane, uint64_t token, struct ramlift_error *error);

/* 0, or as endpoint_check(), or why this lane is lost. */
int lane_check(struct lane *lane, struct ramlift_error *error);

/* Put its queue pair into the error state: nothing more leaves, or arrives soon. Any thread. */
int lane_stop(struct lane *lane, struct ramlift_error *error);

/* The lane is lost by what a completion does not tell. The watching thread. */
void lane_sever(struct lane *lane, const struct ramlift_error *why);

/* Publish in_flight_bytes. */
void lane_count_in_flight(struct lane *lane);

/* Take what the completion queue holds: how many, or -errno and the lane is broken. */
int lane_reap(struct lane *lane, struct ramlift_error *error);

/* Ask for an event at the next completion. Look into the queue again afterwards: one may have come
 * in between. */
int lane_arm(struct lane *lane, struct ramlift_error *error);

/* Take the event that made the channel readable, if one is there. */
void lane_take_event(struct lane *lane);

#endif
