/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's side of the lanes: receives for the tokens, and the fence.
 *
 * Each lane has two receives posted before it is connected. The token takes the first. The second
 * is there to be flushed: a queue pair in the error state flushes a receive only once its responder
 * has stopped, so that after the fence nothing is on its way into memory.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "rdma/endpoint.h"

/* How often the fence looks for a flush before it sleeps: usually it is there at once. */
#define FENCE_SPIN_POLLS 100u

/* How long the fence sleeps at most before it looks for an abort again. */
#define FENCE_NAP_MS 10

int receive_prepare(struct endpoint *endpoint, struct ramlift_error *error)
{
	endpoint->tokens = calloc(endpoint->params.n_lanes * LANE_RECEIVES, sizeof(uint64_t));
	if (!endpoint->tokens)
		return error_set(error, -ENOMEM, "not enough memory for a session");
	return 0;
}

/* Each rail's device knows its own lanes' buffers only. */
int receive_prepare_rail(struct rail *rail, struct ramlift_error *error)
{
	struct endpoint *endpoint = rail->endpoint;
	uint64_t *tokens = &endpoint->tokens[rail_first_lane(rail) * LANE_RECEIVES];
	size_t size = rail_n_lanes(&endpoint->params) * LANE_RECEIVES * sizeof(*tokens);
	int ret;

	rail->tokens_mr = ibv_reg_mr(rail->pd, tokens, size, IBV_ACCESS_LOCAL_WRITE);
	if (!rail->tokens_mr) {
		ret = errno ? -errno : -EIO;
		return error_set(error, ret, "cannot register memory with the RDMA device: %s",
				 strerror(-ret));
	}
	return 0;
}

int receive_post(struct lane *lane, struct ramlift_error *error)
{
	struct endpoint *endpoint = lane->endpoint;
	struct ibv_recv_wr *bad;
	int ret;

	for (unsigned i = 0; i < LANE_RECEIVES; i++) {
		struct ibv_sge piece = {
			.addr = (uintptr_t)&endpoint->tokens[lane->index * LANE_RECEIVES + i],
			.length = LANE_TOKEN_BYTES,
			.lkey = lane->rail->tokens_mr->lkey,
		};
		struct ibv_recv_wr request = { .wr_id = i, .sg_list = &piece, .num_sge = 1 };

		ret = ibv_post_recv(lane->qp, &request, &bad);
		if (ret)
			return error_set(error, -ret, "lane %u: cannot post a receive: %s",
					 lane->index, strerror(ret));
		lane->receives++;
	}
	return 0;
}

/* Look for the lane's token: 1 it is there, 0 not yet. */
static int check_lane(struct lane *lane, uint64_t token, struct ramlift_error *error)
{
	int ret = 0;

	if (!token)
		return 1; /* it was lost before */
	if (!lane->has_token)
		ret = lane_reap(lane, error);
	if (!lane->has_token)
		return ret < 0 ? ret : 0;
	if (lane->token != token)
		return error_set(error, -EPROTO,
				 "lane %u: its token is wrong: the source mixed up its sessions, "
				 "or is another version of Ramlift",
				 lane->index);
	atomic_store(&lane->finished, true);
	return 1;
}

/* Collect the lanes that still lack their token into fds: how many, or -errno. */
static int check_lanes(struct endpoint *endpoint, const uint64_t *tokens, struct pollfd *fds,
		       struct lane **waiting, struct ramlift_error *error)
{
	int n = 0, ret;

	for (unsigned i = 0; i < endpoint->params.n_lanes; i++) {
		struct lane *lane = &endpoint->lanes[i];

		ret = check_lane(lane, tokens[i], error);
		if (!ret && !lane->armed) {
			ret = lane_arm(lane, error);
			if (!ret)
				ret = check_lane(lane, tokens[i], error);
		}
		if (ret < 0)
			return ret;
		if (ret)
			continue;
		fds[n] = (struct pollfd){ .fd = lane->channel->fd, .events = POLLIN };
		waiting[n++] = lane;
	}
	return n;
}

int receive_tokens(struct endpoint *endpoint, const uint64_t *tokens, uint64_t deadline_ns,
		   struct ramlift_error *error)
{
	struct pollfd fds[RAMLIFT_MAX_LANES + ENDPOINT_POLL_FDS];
	struct lane *waiting[RAMLIFT_MAX_LANES];
	bool last_look = false;
	int n, ret = 0;

	for (;;) {
		n = check_lanes(endpoint, tokens, fds, waiting, error);
		if (n <= 0)
			return n;
		/* A source that has sent its tokens may go: they have the last word. */
		if (last_look)
			return ret; /* why there is no more waiting; error says it */
		ret = endpoint_poll(endpoint, fds, (unsigned)n, deadline_ns, error);
		if (ret == -ECANCELED)
			return ret;
		if (!ret)
			return error_set(error, -ETIMEDOUT,
					 "lane %u: the source did not finish it in time (%d of %u "
					 "lanes are missing)",
					 waiting[0]->index, n, endpoint->params.n_lanes);
		last_look = ret < 0;
		for (int i = 0; i < n; i++)
			if (fds[i].revents)
				lane_take_event(waiting[i]);
	}
}

/* Wait for the flush of all receives. Failures of the session do not matter here, an abort does. */
static int await_flush(struct lane *lane, uint64_t deadline_ns, struct ramlift_error *error)
{
	struct endpoint *endpoint = lane->endpoint;
	struct pollfd fds[] = {
		{ .fd = lane->channel->fd, .events = POLLIN },
		{ .fd = endpoint->params.interrupt_fd, .events = POLLIN },
	};
	unsigned empty_polls = 0;
	int ret;

	while (lane->receives) {
		unsigned before = lane->receives;

		lane_reap(lane, NULL);
		if (lane->receives < before || ++empty_polls < FENCE_SPIN_POLLS)
			continue;
		if (!lane->armed) {
			ret = lane_arm(lane, error);
			if (ret)
				return ret;
			continue;
		}
		if (atomic_load(&endpoint->aborted) || fds[1].revents)
			return endpoint_canceled(error);
		if (clock_now_ns() >= deadline_ns)
			return error_set(error, -ETIMEDOUT,
					 "lane %u: its queue pair does not stop: the adapter may "
					 "still write to guest memory, so the guest must not run",
					 lane->index);
		if (poll(fds, sizeof(fds) / sizeof(fds[0]), FENCE_NAP_MS) > 0)
			lane_take_event(lane);
	}
	return 0;
}

/* Their flushes come together. */
static int fence_lanes(struct endpoint *endpoint, unsigned first, unsigned n,
		       struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + endpoint->params.io_timeout_ns;
	int ret;

	for (unsigned i = first; i < first + n; i++) {
		struct lane *lane = &endpoint->lanes[i];

		assert(lane->qp);
		atomic_store(&lane->finished, true);
		ret = lane_stop(lane, error);
		if (ret)
			return ret;
	}
	for (unsigned i = first; i < first + n; i++) {
		ret = await_flush(&endpoint->lanes[i], deadline_ns, error);
		if (ret)
			return ret;
	}
	return 0;
}

int receive_fence(struct endpoint *endpoint, struct ramlift_error *error)
{
	return fence_lanes(endpoint, 0, endpoint->params.n_lanes, error);
}

int receive_fence_lane(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error)
{
	assert(lane < endpoint->params.n_lanes);
	return fence_lanes(endpoint, lane, 1, error);
}
