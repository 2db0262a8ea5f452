/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's connections: all lanes at once, each through address, route and connect request,
 * driven by the events of one channel. Nothing here blocks but the wait for the next event.
 */
#include <errno.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "rdma/address.h"
#include "rdma/cm.h"
#include "rdma/endpoint.h"
#include "rdma/verbs_error.h"

/*
 * A dead peer is found after 6 retries of 4.096 us * 2^17 = 0.54 s: about 4 s. 7 retries would mean
 * for ever with soft-RoCE; a shorter timeout resends to peers that are only busy.
 */
#define RETRY_COUNT	6
#define RNR_RETRY_COUNT 6
#define ACK_TIMEOUT	17

static int step_error(const struct lane *lane, const char *step, struct ramlift_error *error)
{
	int ret = errno ? -errno : -EIO;

	return error_set(error, ret, "lane %u: cannot %s: %s", lane->index, step, strerror(-ret));
}

static int resolve_address(struct lane *lane, const struct sockaddr_storage *peer,
			   uint64_t deadline_ns, struct ramlift_error *error)
{
	struct endpoint *endpoint = lane->endpoint;
	/* librdmacm copies the addresses; its parameters have no const. */
	struct sockaddr_storage from = lane->rail->local, to = *peer;
	uint8_t ack_timeout = ACK_TIMEOUT;

	if (rdma_create_id(endpoint->cm, &lane->id, lane, RDMA_PS_TCP)) {
		lane->id = NULL;
		return step_error(lane, "create a connection", error);
	}
	lane->state = LANE_CONNECTING;
	/* Older kernels do not know the option: then io_timeout_ns alone finds a dead peer. */
	rdma_set_option(lane->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &ack_timeout,
			sizeof(ack_timeout));
	if (rdma_resolve_addr(lane->id, from.ss_family ? (struct sockaddr *)&from : NULL,
			      (struct sockaddr *)&to, clock_left_ms(deadline_ns))) {
		if (errno == ENODEV)
			return verbs_no_device_error(error, (struct sockaddr *)&to);
		return step_error(lane, "look up the destination's address", error);
	}
	return 0;
}

static int address_resolved(struct lane *lane, uint64_t deadline_ns, struct ramlift_error *error)
{
	struct rail *rail = lane->rail;
	int ret = 0;

	if (!lane->id->verbs)
		return verbs_no_device_error(error, rdma_get_peer_addr(lane->id));
	if (!rail->device)
		ret = rail_use_device(rail, lane->id->verbs, error);
	else if (lane->id->verbs != rail->device)
		ret = error_set(error, -EXDEV,
				"lane %u: it leaves by another RDMA device than lane %u: give the "
				"destination an address that one device reaches",
				lane->index, rail_first_lane(rail));
	if (!ret)
		ret = lane_open(lane, error);
	if (!ret && rdma_resolve_route(lane->id, clock_left_ms(deadline_ns)))
		ret = step_error(lane, "look up the route to the destination", error);
	return ret;
}

static int route_resolved(struct lane *lane, struct ramlift_error *error)
{
	const struct transport_params *params = &lane->endpoint->params;
	struct cm_hello hello = { .lane = lane->index, .n_lanes = params->n_lanes };
	uint8_t private_data[CM_HELLO_BYTES];
	/* No reads and no atomics from the other side: both depths are 0. */
	struct rdma_conn_param param = {
		.private_data = private_data,
		.private_data_len = sizeof(private_data),
		.retry_count = RETRY_COUNT,
		.rnr_retry_count = RNR_RETRY_COUNT,
	};

	memcpy(hello.session_id, params->session_id, SESSION_ID_BYTES);
	cm_hello_pack(&hello, private_data);
	if (rdma_connect(lane->id, &param))
		return step_error(lane, "send its connect request", error);
	return 0;
}

static int handle_event(struct lane *lane, const struct cm_event *event, uint64_t deadline_ns,
			struct ramlift_error *error)
{
	switch (event->type) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		return address_resolved(lane, deadline_ns, error);
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		return route_resolved(lane, error);
	case RDMA_CM_EVENT_ESTABLISHED:
		lane->state = LANE_READY;
		return 0;
	case RDMA_CM_EVENT_ADDR_ERROR:
		if (event->status == -ENODEV)
			return verbs_no_device_error(error, rdma_get_peer_addr(lane->id));
		return verbs_connect_error(error, lane->index, event->type, event->status);
	default:
		return verbs_connect_error(error, lane->index, event->type, event->status);
	}
}

/* The first lane that is not connected yet. */
static const struct lane *unready_lane(const struct endpoint *endpoint)
{
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		if (endpoint->lanes[i].state != LANE_READY)
			return &endpoint->lanes[i];
	return NULL;
}

static int start_lanes(struct endpoint *endpoint, const struct sockaddr_storage *peers,
		       uint64_t deadline_ns, struct ramlift_error *error)
{
	int ret = 0;

	for (unsigned i = 0; i < endpoint->params.n_rails && !ret; i++)
		ret = rail_find_local(&endpoint->rails[i], (const struct sockaddr *)&peers[i], true,
				      error);
	for (unsigned i = 0; i < endpoint->params.n_lanes && !ret; i++) {
		struct lane *lane = &endpoint->lanes[i];

		ret = resolve_address(lane, &peers[lane->rail->index], deadline_ns, error);
	}
	return ret;
}

int endpoint_connect(struct endpoint *endpoint, const struct sockaddr_storage *peers,
		     uint64_t deadline_ns, struct ramlift_error *error)
{
	char text[ADDRESS_TEXT_BYTES];
	const struct lane *waiting;
	struct cm_event event;
	int ret;

	ret = start_lanes(endpoint, peers, deadline_ns, error);
	if (ret)
		return ret;
	while ((waiting = unready_lane(endpoint))) {
		ret = endpoint_next_event(endpoint, deadline_ns, &event, error);
		if (ret == -ETIMEDOUT) {
			address_text((const struct sockaddr *)&peers[waiting->rail->index], text);
			return error_set(error, ret,
					 "%s did not answer over RDMA in time: check that UDP port "
					 "4791 (RoCE) passes between the hosts",
					 text);
		}
		if (!ret)
			ret = handle_event(event.id->context, &event, deadline_ns, error);
		if (ret)
			return ret;
	}
	return watch_start(endpoint, error);
}
