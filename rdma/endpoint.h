/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One side of one session over RDMA, as the files of rdma/ see it: which rails, which lanes, and
 * how waiting calls end.
 *
 * Threads: what changes after the lanes are connected is the lanes' own (each its thread's), the
 * atomics, and failure under its lock. Everything else is set before and only read then.
 */
#ifndef RDMA_ENDPOINT_H
#define RDMA_ENDPOINT_H

#include <infiniband/verbs.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/ramlift.h"
#include "core/transport.h"
#include "rdma/lane.h"
#include "rdma/rail.h"

struct cm_event;

struct endpoint {
	struct transport_params params;
	struct rdma_event_channel *cm; /* of all rails */
	struct rail rails[RAMLIFT_MAX_RAILS];
	struct slice_key *peer_keys; /* source: by slice */

	/* Destination: the receive buffers of all lanes, LANE_RECEIVES each. */
	uint64_t *tokens;

	/* How waits end: the eventfd becomes readable, and stays so, once one of both is set. */
	int wake_fd;
	atomic_bool aborted;
	atomic_bool failed; /* failure says how */
	pthread_mutex_t failure_lock;
	struct ramlift_error failure;

	pthread_t watch;
	bool watching;
	int watch_stop_fd;

	struct lane lanes[]; /* params.n_lanes */
};

int endpoint_new(const struct transport_params *params, struct endpoint **endpoint,
		 struct ramlift_error *error);
void endpoint_free(struct endpoint *endpoint);

/* 0, or -ECANCELED after abort(), or the recorded failure and its words. */
int endpoint_check(struct endpoint *endpoint, struct ramlift_error *error);

/* Record a failure that no call is there to report: every call that waits returns it. The first
 * one counts. Any thread. */
void endpoint_fail(struct endpoint *endpoint, const struct ramlift_error *failure);

/* -ECANCELED and its words. */
int endpoint_canceled(struct ramlift_error *error);

/*
 * poll(2) for fds, which has room for ENDPOINT_POLL_FDS more at the end, until deadline_ns. 1:
 * something is ready; 0: the deadline has passed; negative: as endpoint_check(). fds may be ready
 * as well then.
 */
#define ENDPOINT_POLL_FDS 2u
int endpoint_poll(struct endpoint *endpoint, struct pollfd *fds, unsigned n_fds,
		  uint64_t deadline_ns, struct ramlift_error *error);

/* The next connection event, waiting for it until the deadline: 0, -ETIMEDOUT (without words), or
 * as endpoint_check(). */
int endpoint_next_event(struct endpoint *endpoint, uint64_t deadline_ns, struct cm_event *event,
			struct ramlift_error *error);

/* connect.c */
int endpoint_connect(struct endpoint *endpoint, const struct sockaddr_storage *peers,
		     uint64_t deadline_ns, struct ramlift_error *error);
/* accept.c */
int endpoint_listen(struct endpoint *endpoint, const struct sockaddr *local,
		    struct sockaddr_storage *addresses, struct ramlift_error *error);
int endpoint_accept(struct endpoint *endpoint, uint64_t deadline_ns, struct ramlift_error *error);

/* slices.c */
int slices_check_limit(const struct transport_params *params, struct ramlift_error *error);
int slices_register(struct endpoint *endpoint, unsigned slice, unsigned rails,
		    struct slice_key *key, struct ramlift_error *error);
void slices_deregister(struct endpoint *endpoint, unsigned slice);

/* receive.c */
int receive_prepare(struct endpoint *endpoint, struct ramlift_error *error);
int receive_prepare_rail(struct rail *rail, struct ramlift_error *error);
int receive_post(struct lane *lane, struct ramlift_error *error);
int receive_tokens(struct endpoint *endpoint, const uint64_t *tokens, uint64_t deadline_ns,
		   struct ramlift_error *error);
int receive_fence(struct endpoint *endpoint, struct ramlift_error *error);
int receive_fence_lane(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error);

/* probe.c */
int probe_address(const struct sockaddr *local, const struct sockaddr *peer,
		  struct ramlift_error *error);

/* watch.c */
int watch_start(struct endpoint *endpoint, struct ramlift_error *error);
void watch_stop(struct endpoint *endpoint);

#endif
