/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane's life: its queue pair, and what its completion queue tells. Posting is in post.c, the
 * destination's side in receive.c; how a connection comes about is not known here.
 */
#include "rdma/lane.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/error.h"
#include "rdma/device_node.h"
#include "rdma/endpoint.h"
#include "rdma/verbs_error.h"

/* Events are acknowledged in lots, since each acknowledgement takes a lock. */
#define ACK_EVENTS 64u

static int open_queue_pair(struct lane *lane, struct ramlift_error *error)
{
	const struct rail *rail = lane->rail;
	struct ibv_qp_init_attr init = {
		.qp_context = lane,
		.send_cq = lane->cq,
		.recv_cq = lane->cq,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = rail->send_depth,
			.max_recv_wr = LANE_RECEIVES,
			.max_send_sge = 1,
			.max_recv_sge = 1,
			.max_inline_data = LANE_TOKEN_BYTES,
		},
	};
	int ret;

	if (rdma_create_qp(lane->id, rail->pd, &init)) {
		ret = errno ? -errno : -EIO;
		return error_set(error, ret,
				 "lane %u: cannot create a queue pair: %s; fewer lanes may help",
				 lane->index, strerror(-ret));
	}
	lane->qp = lane->id->qp;
	return 0;
}

static int open_queues(struct lane *lane, struct ramlift_error *error)
{
	const struct rail *rail = lane->rail;
	int flags, ret;

	lane->channel = ibv_create_comp_channel(rail->device);
	if (!lane->channel) {
		ret = errno ? -errno : -EIO;
		return error_set(error, ret, "lane %u: cannot create a completion channel: %s",
				 lane->index, strerror(-ret));
	}
	flags = fcntl(lane->channel->fd, F_GETFL);
	if (flags < 0 || fcntl(lane->channel->fd, F_SETFL, flags | O_NONBLOCK)) {
		ret = -errno;
		return error_set(error, ret, "lane %u: cannot set up its completion channel: %s",
				 lane->index, strerror(-ret));
	}
	/* Room for every work request: in the error state each completes, signalled or not. */
	lane->cq = ibv_create_cq(rail->device, (int)(rail->send_depth + LANE_RECEIVES), lane,
				 lane->channel, 0);
	if (!lane->cq) {
		ret = errno ? -errno : -EIO;
		return error_set(error, ret, "lane %u: cannot create a completion queue: %s",
				 lane->index, strerror(-ret));
	}
	return open_queue_pair(lane, error);
}

/* The provider's and the kernel's queues lie in this thread's memory:
 * have it where the device is. */
int lane_open(struct lane *lane, struct ramlift_error *error)
{
	struct memory_policy before;
	int ret;

	lane->spin_polls = LANE_MAX_SPIN_POLLS;
	memory_policy_prefer(lane->rail->numa_node, &before);
	ret = open_queues(lane, error);
	memory_policy_restore(&before);
	return ret;
}

void lane_close(struct lane *lane)
{
	if (lane->qp) {
		/* The peer is told, if it is still there; nothing waits for its answer. */
		if (lane->state == LANE_READY)
			rdma_disconnect(lane->id);
		rdma_destroy_qp(lane->id);
	}
	if (lane->cq) {
		if (lane->events)
			ibv_ack_cq_events(lane->cq, lane->events);
		ibv_destroy_cq(lane->cq);
	}
	if (lane->channel)
		ibv_destroy_comp_channel(lane->channel);
	if (lane->id)
		rdma_destroy_id(lane->id);
	*lane = (struct lane){ .endpoint = lane->endpoint,
			       .rail = lane->rail,
			       .index = lane->index };
}

static void complete_receive(struct lane *lane, const struct ibv_wc *wc)
{
	const struct endpoint *endpoint = lane->endpoint;
	uint64_t wire;

	assert(lane->receives > 0);
	lane->receives--;
	if (wc->status != IBV_WC_SUCCESS)
		return;
	if (wc->byte_len != LANE_TOKEN_BYTES || lane->has_token) {
		/* The receive that is left must be there for the fence to see it flushed. */
		error_set(&lane->broken, -EPROTO, "lane %u: the source sent what is no token",
			  lane->index);
		return;
	}
	wire = endpoint->tokens[lane->index * LANE_RECEIVES + wc->wr_id];
	lane->token = be64toh(wire);
	lane->has_token = true;
}

static bool is_severed(struct lane *lane, struct ramlift_error *error)
{
	if (!atomic_load_explicit(&lane->severed, memory_order_acquire))
		return false;
	error_set(error, lane->severed_why.code, "%s", lane->severed_why.text);
	return true;
}

int lane_check(struct lane *lane, struct ramlift_error *error)
{
	int ret = endpoint_check(lane->endpoint, error);

	if (!ret && is_severed(lane, error))
		ret = lane->severed_why.code;
	return ret;
}

int lane_stop(struct lane *lane, struct ramlift_error *error)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };
	int ret = ibv_modify_qp(lane->qp, &attr, IBV_QP_STATE);

	if (ret)
		return error_set(error, -ret, "lane %u: cannot stop its queue pair: %s",
				 lane->index, strerror(ret));
	return 0;
}

void lane_sever(struct lane *lane, const struct ramlift_error *why)
{
	if (atomic_load(&lane->severed))
		return;
	lane->severed_why = *why;
	atomic_store_explicit(&lane->severed, true, memory_order_release);
	/* Where that fails, the waits' deadlines are left. */
	lane_stop(lane, NULL);
}

/* A flush only says that somebody stopped the queue pair. */
static int break_lane(struct lane *lane, const struct ibv_wc *wc, struct ramlift_error *error)
{
	if (!lane->broken.code && !is_severed(lane, &lane->broken))
		verbs_completion_error(&lane->broken, lane->index, wc->status);
	return error_set(error, lane->broken.code, "%s", lane->broken.text);
}

void lane_count_in_flight(struct lane *lane)
{
	uint64_t completed = lane->bytes_up_to[lane->completed % LANE_HISTORY];

	atomic_store(&lane->in_flight_bytes, lane->bytes_posted - completed);
}

/*
 * Completions of the lane's own writes, or of the receives. The numbers of receives have no room
 * for a mistake with those of writes: a destination posts no write, a source no receive.
 */
int lane_reap(struct lane *lane, struct ramlift_error *error)
{
	struct ibv_wc wcs[LANE_POLL_BATCH];
	bool receiving = lane->endpoint->tokens != NULL;
	int n = ibv_poll_cq(lane->cq, LANE_POLL_BATCH, wcs);
	int ret = 0;

	if (n < 0) {
		error_set(&lane->broken, -EIO,
			  "lane %u: its completion queue cannot be read; see the kernel's log",
			  lane->index);
		return error_set(error, -EIO, "%s", lane->broken.text);
	}
	for (int i = 0; i < n; i++) {
		if (receiving)
			complete_receive(lane, &wcs[i]);
		if (wcs[i].status != IBV_WC_SUCCESS)
			ret = break_lane(lane, &wcs[i], error);
		else if (!receiving && wcs[i].wr_id > lane->completed)
			lane->completed = wcs[i].wr_id;
	}
	assert(receiving || lane->completed <= lane->posted);
	if (!receiving && n > 0)
		lane_count_in_flight(lane);
	return ret ? ret : n;
}

int lane_arm(struct lane *lane, struct ramlift_error *error)
{
	int ret;

	if (lane->armed)
		return 0;
	ret = ibv_req_notify_cq(lane->cq, 0);
	if (ret)
		return error_set(error, -ret, "lane %u: cannot wait for completions: %s",
				 lane->index, strerror(ret));
	lane->armed = true;
	return 0;
}

void lane_take_event(struct lane *lane)
{
	struct ibv_cq *cq;
	void *context;

	if (ibv_get_cq_event(lane->channel, &cq, &context))
		return;
	lane->armed = false;
	if (++lane->events >= ACK_EVENTS) {
		ibv_ack_cq_events(lane->cq, lane->events);
		lane->events = 0;
	}
}
