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

static int resolve_address(struct lane *lane, const struct sockaddr *peer, uint64_t deadline_ns,
			   struct ramlift_error *error)
{
	struct endpoint *endpoint = lane->endpoint;
	uint8_t ack_timeout = ACK_TIMEOUT;

	if (rdma_create_id(endpoint->cm, &lane->id, lane, RDMA_PS_TCP)) {
		lane->id = NULL;
		return step_error(lane, "create a connection", error);
	}
	lane->state = LANE_CONNECTING;
	/* Older kernels do not know the option: then io_timeout_ns alone finds a dead peer. */
	rdma_set_option(lane->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &ack_timeout,
			sizeof(ack_timeout));
	/* librdmacm copies the address; its parameter has no const. */
	if (rdma_resolve_addr(lane->id, NULL, (struct sockaddr *)(uintptr_t)peer,
			      clock_left_ms(deadline_ns))) {
		if (errno == ENODEV)
			return verbs_no_device_error(error, peer);
		return step_error(lane, "look up the destination's address", error);
	}
	return 0;
}

static int address_resolved(struct lane *lane, uint64_t deadline_ns, struct ramlift_error *error)
{
	struct endpoint *endpoint = lane->endpoint;
	int ret = 0;

	if (!lane->id->verbs)
		return verbs_no_device_error(error, rdma_get_peer_addr(lane->id));
	if (!endpoint->pd)
		ret = endpoint_use_device(endpoint, lane->id->verbs, error);
	else if (lane->id->verbs != endpoint->device)
		ret = error_set(error, -EXDEV,
				"lane %u: it leaves by another RDMA device than lane 0: give the "
				"destination an address that one device reaches",
				lane->index);
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

static bool all_ready(const struct endpoint *endpoint)
{
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		if (endpoint->lanes[i].state != LANE_READY)
			return false;
	return true;
}

int endpoint_connect(struct endpoint *endpoint, const struct sockaddr *peer, uint64_t deadline_ns,
		     struct ramlift_error *error)
{
	char text[ADDRESS_TEXT_BYTES];
	struct cm_event event;
	int ret;

	for (unsigned i = 0; i < endpoint->params.n_lanes; i++) {
		ret = resolve_address(&endpoint->lanes[i], peer, deadline_ns, error);
		if (ret)
			return ret;
	}
	while (!all_ready(endpoint)) {
		ret = endpoint_next_event(endpoint, deadline_ns, &event, error);
		if (ret == -ETIMEDOUT) {
			address_text(peer, text);
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
