/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's data path: chains of writes, one doorbell a chain, and waiting for room in the send
 * queue. No copies and no locks: scatter entries point into guest RAM, and a lane has one thread.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "rdma/endpoint.h"

static int broken_error(const struct lane *lane, struct ramlift_error *error)
{
	return error_set(error, lane->broken.code, "%s", lane->broken.text);
}

/* Sleep until a completion comes: 0, or -errno. */
static int sleep_for_completion(struct lane *lane, uint64_t deadline_ns,
				struct ramlift_error *error)
{
	struct pollfd fds[1 + ENDPOINT_POLL_FDS] = { { .fd = lane->channel->fd,
						       .events = POLLIN } };
	int ret = endpoint_poll(lane->endpoint, fds, 1, deadline_ns, error);

	if (ret < 0)
		return ret;
	if (!ret)
		return error_set(
			error, -ETIMEDOUT,
			"lane %u: no completion for %.3g s: check the adapter, and whether "
			"the destination's host is alive",
			lane->index,
			(double)lane->endpoint->params.io_timeout_ns / (double)NS_PER_S);
	lane_take_event(lane);
	return 0;
}

/* A completion came after so many looks, or, with found false, did not: is looking worth it? */
static void adapt_spinning(struct lane *lane, bool found)
{
	unsigned polls = found ? lane->spin_polls * 2 : lane->spin_polls / 2;

	lane->spin_polls = polls < LANE_MIN_SPIN_POLLS	 ? LANE_MIN_SPIN_POLLS
			   : polls > LANE_MAX_SPIN_POLLS ? LANE_MAX_SPIN_POLLS
							 : polls;
}

/*
 * Return once no more than in_flight writes, and in_flight_bytes, are outstanding. The clock is
 * read only where the thread sleeps; time without progress counts from there. Completions have the
 * last word: a peer that has seen our token may close its side before this thread has looked.
 */
static int wait_for_room(struct lane *lane, uint64_t in_flight, uint64_t in_flight_bytes,
			 struct ramlift_error *error)
{
	struct endpoint *endpoint = lane->endpoint;
	uint64_t deadline_ns = 0;
	unsigned empty_polls = 0;
	int ret;

	if (lane->broken.code)
		return broken_error(lane, error);
	while (lane->posted - lane->completed > in_flight ||
	       atomic_load(&lane->in_flight_bytes) > in_flight_bytes) {
		ret = lane_reap(lane, error);
		if (ret < 0)
			return ret;
		if (ret > 0) {
			if (empty_polls && empty_polls < lane->spin_polls)
				adapt_spinning(lane, true);
			empty_polls = 0;
			deadline_ns = 0;
			continue;
		}
		/* The look after arming is the next turn's: empty_polls stays above the limit. */
		if (++empty_polls < lane->spin_polls)
			continue;
		if (!lane->armed) {
			adapt_spinning(lane, false);
			ret = lane_arm(lane, error);
			if (ret)
				return ret;
			continue;
		}
		if (!deadline_ns)
			deadline_ns = clock_now_ns() + endpoint->params.io_timeout_ns;
		ret = sleep_for_completion(lane, deadline_ns, error);
		if (ret) {
			if (lane_reap(lane, NULL) <= 0)
				return ret;
			deadline_ns = 0;
			empty_polls = 0;
		}
	}
	return 0;
}

/* Post a chain of n requests that fill the lane's numbers up from posted + 1. */
static int post_chain(struct lane *lane, struct ibv_send_wr *chain, unsigned n,
		      struct ramlift_error *error)
{
	struct ibv_send_wr *bad = NULL;
	int ret = ibv_post_send(lane->qp, chain, &bad);

	if (!ret) {
		lane->posted += n;
		lane_count_in_flight(lane);
		return 0;
	}
	/* What stands before bad was posted. Nothing signals it, so the lane is lost. */
	error_set(&lane->broken, -ret, "lane %u: cannot post writes: %s", lane->index,
		  strerror(ret));
	return broken_error(lane, error);
}

static void fill_write(const struct lane *lane, const struct transport_write *write,
		       struct ibv_sge *piece, struct ibv_send_wr *request)
{
	const struct endpoint *endpoint = lane->endpoint;
	const struct rail *rail = lane->rail;
	const struct slice *slice;
	const struct slice_key *key;
	const struct ibv_mr *mr;

	assert(write->slice < endpoint->params.n_slices);
	slice = &endpoint->params.slices[write->slice];
	key = &endpoint->peer_keys[write->slice];
	mr = rail->mrs[write->slice];
	assert(mr && write->length_bytes && write->length_bytes <= TRANSPORT_MAX_WRITE_BYTES);
	assert(write->offset_bytes < slice->size_bytes &&
	       write->length_bytes <= slice->size_bytes - write->offset_bytes);

	*piece = (struct ibv_sge){
		.addr = (uintptr_t)slice->hva + write->offset_bytes,
		.length = write->length_bytes,
		.lkey = mr->lkey,
	};
	request->sg_list = piece;
	request->num_sge = 1;
	request->opcode = IBV_WR_RDMA_WRITE;
	request->wr.rdma.remote_addr = key->address + write->offset_bytes;
	request->wr.rdma.rkey = key->rkeys[rail->index];
}

static int post_part(struct lane *lane, const struct transport_write *writes, unsigned n,
		     struct ramlift_error *error)
{
	struct ibv_send_wr chain[TRANSPORT_MAX_BATCH];
	struct ibv_sge pieces[TRANSPORT_MAX_BATCH];

	for (unsigned i = 0; i < n; i++) {
		bool last = i + 1 == n;

		chain[i] = (struct ibv_send_wr){
			.wr_id = lane->posted + i + 1,
			.next = last ? NULL : &chain[i + 1],
			.send_flags = last ? IBV_SEND_SIGNALED : 0,
		};
		fill_write(lane, &writes[i], &pieces[i], &chain[i]);
		lane->bytes_posted += writes[i].length_bytes;
		lane->bytes_up_to[(lane->posted + i + 1) % LANE_HISTORY] = lane->bytes_posted;
	}
	return post_chain(lane, chain, n, error);
}

/* How many of the writes go out together: what the queue holds, and not so much that the window
 * must be empty first. */
static unsigned fit_part(const struct lane *lane, const struct transport_write *writes, unsigned n,
			 uint64_t *bytes)
{
	unsigned fit = 1;

	*bytes = writes[0].length_bytes;
	while (fit < n && fit < lane->rail->send_depth &&
	       *bytes + writes[fit].length_bytes <= LANE_PART_BYTES)
		*bytes += writes[fit++].length_bytes;
	return fit;
}

int lane_post(struct lane *lane, const struct transport_write *writes, unsigned n_writes,
	      struct ramlift_error *error)
{
	unsigned depth = lane->rail->send_depth;
	int ret;

	/* Tests: lane 1, or the only one. */
	if (lane->index == (lane->endpoint->params.n_lanes > 1) &&
	    FAULT_ASKED("lane-post", "qp-error"))
		lane_stop(lane, NULL);
	ret = lane_check(lane, error);
	assert(n_writes <= TRANSPORT_MAX_BATCH);
	while (n_writes && !ret) {
		uint64_t bytes;
		unsigned n = fit_part(lane, writes, n_writes, &bytes);

		ret = wait_for_room(lane, depth - n, LANE_WINDOW_BYTES - bytes, error);
		if (!ret)
			ret = post_part(lane, writes, n, error);
		writes += n;
		n_writes -= n;
	}
	return ret;
}

int lane_drain(struct lane *lane, struct ramlift_error *error)
{
	int ret = lane_check(lane, error);

	return ret ? ret : wait_for_room(lane, 0, 0, error);
}

int lane_send_token(struct lane *lane, uint64_t token, struct ramlift_error *error)
{
	uint64_t wire = htobe64(token);
	struct ibv_sge piece = { .addr = (uintptr_t)&wire, .length = LANE_TOKEN_BYTES };
	struct ibv_send_wr request = {
		.sg_list = &piece,
		.num_sge = 1,
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE,
	};
	int ret;

	ret = lane_check(lane, error);
	if (!ret)
		ret = wait_for_room(lane, lane->rail->send_depth - 1, UINT64_MAX, error);
	if (ret)
		return ret;
	request.wr_id = lane->posted + 1;
	lane->bytes_up_to[request.wr_id % LANE_HISTORY] = lane->bytes_posted;
	ret = post_chain(lane, &request, 1, error);
	if (!ret)
		ret = wait_for_room(lane, 0, 0, error);
	if (!ret)
		atomic_store(&lane->finished, true);
	return ret;
}
