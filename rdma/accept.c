/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's connections: a listener for each rail, and the lanes that join. Whoever does
 * not say this session's id, or a lane of that rail that is not free, is rejected and forgotten.
 */
#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "rdma/address.h"
#include "rdma/cm.h"
#include "rdma/endpoint.h"
#include "rdma/verbs_error.h"

/* A wildcard address means the host's RDMA device, where that is not ambiguous. */
static int only_device(const struct sockaddr *local, struct ibv_context **device,
		       struct ramlift_error *error)
{
	struct ibv_context **devices;
	int n = 0, ret = 0;

	devices = rdma_get_devices(&n);
	if (!devices || !n)
		ret = verbs_no_device_error(error, local);
	else if (n > 1)
		ret = error_set(error, -EINVAL,
				"this host has %d RDMA devices: listen at the address of one of "
				"them, not at a wildcard",
				n);
	else
		*device = devices[0];
	if (devices)
		rdma_free_devices(devices);
	return ret;
}

static int listen_error(const struct sockaddr *address, struct ramlift_error *error)
{
	int ret = errno ? -errno : -EIO;
	char text[ADDRESS_TEXT_BYTES];

	if (ret == -ENODEV)
		return verbs_no_device_error(error, address);
	address_text(address, text);
	return error_set(error, ret, "cannot listen over RDMA at %s: %s", text, strerror(-ret));
}

/* At a port of the kernel's choosing, which is left in address. */
static int rail_listen(struct rail *rail, struct sockaddr_storage *address,
		       struct ramlift_error *error)
{
	struct endpoint *endpoint = rail->endpoint;
	struct sockaddr *local = (struct sockaddr *)address;
	struct ibv_context *device;
	int ret = 0;

	if (rdma_create_id(endpoint->cm, &rail->listener, endpoint, RDMA_PS_TCP)) {
		rail->listener = NULL;
		ret = errno ? -errno : -EIO;
		return error_set(error, ret, "cannot create an RDMA listener: %s", strerror(-ret));
	}
	if (rdma_bind_addr(rail->listener, local))
		return listen_error(local, error);
	device = rail->listener->verbs;
	if (!device && !address_is_wildcard(local))
		return verbs_no_device_error(error, local);
	if (!device)
		ret = only_device(local, &device, error);
	if (!ret)
		ret = rail_use_device(rail, device, error);
	if (!ret)
		ret = receive_prepare_rail(rail, error);
	if (ret)
		return ret;
	if (rdma_listen(rail->listener, (int)rail_n_lanes(&endpoint->params)))
		return listen_error(local, error);
	address_put_port(address, rdma_get_src_port(rail->listener));
	return 0;
}

int endpoint_listen(struct endpoint *endpoint, const struct sockaddr *local,
		    struct sockaddr_storage *addresses, struct ramlift_error *error)
{
	struct sockaddr_storage unnamed;
	int ret;

	ret = address_without_port(local, &unnamed);
	if (ret)
		return error_set(error, ret, "RDMA listens at IPv4 and IPv6 addresses only");
	ret = receive_prepare(endpoint, error);
	for (unsigned i = 0; i < endpoint->params.n_rails && !ret; i++) {
		struct rail *rail = &endpoint->rails[i];

		ret = rail_find_local(rail, local, false, error);
		if (ret)
			return ret;
		addresses[i] = rail->local.ss_family ? rail->local : unnamed;
		ret = rail_listen(rail, &addresses[i], error);
	}
	return ret;
}

/* The free lane that a connect request asks for; NULL for a stranger's. */
static struct lane *requested_lane(struct endpoint *endpoint, const struct cm_event *event)
{
	struct cm_hello hello;
	struct lane *lane;

	if (!cm_hello_unpack(event->private_data, event->private_data_bytes, &hello) ||
	    memcmp(hello.session_id, endpoint->params.session_id, SESSION_ID_BYTES) ||
	    hello.n_lanes != endpoint->params.n_lanes || hello.lane >= endpoint->params.n_lanes)
		return NULL;
	lane = &endpoint->lanes[hello.lane];
	/* Its rail's keys are good for its rail's device only. */
	return lane->state == LANE_IDLE && event->id->verbs == lane->rail->device ? lane : NULL;
}

static int accept_request(struct endpoint *endpoint, const struct cm_event *event,
			  struct ramlift_error *error)
{
	struct lane *lane = requested_lane(endpoint, event);
	struct rdma_conn_param param = { 0 };
	int ret;

	if (!lane) {
		rdma_reject(event->id, NULL, 0);
		rdma_destroy_id(event->id);
		return 0;
	}
	lane->id = event->id;
	lane->id->context = lane;
	lane->state = LANE_CONNECTING;
	ret = lane_open(lane, error);
	if (!ret)
		ret = receive_post(lane, error);
	if (!ret && rdma_accept(lane->id, &param)) {
		ret = errno ? -errno : -EIO;
		error_set(error, ret, "lane %u: cannot accept its connection: %s", lane->index,
			  strerror(-ret));
	}
	return ret;
}

static int handle_event(struct endpoint *endpoint, const struct cm_event *event, unsigned *joined,
			struct ramlift_error *error)
{
	struct lane *lane = event->id->context; /* of a listener's event: none, and not used */

	switch (event->type) {
	case RDMA_CM_EVENT_CONNECT_REQUEST:
		return accept_request(endpoint, event, error);
	case RDMA_CM_EVENT_ESTABLISHED:
		lane->state = LANE_READY;
		++*joined;
		return 0;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		return error_set(error, -EIO, "the RDMA device was removed: see the kernel's log");
	case RDMA_CM_EVENT_DISCONNECTED:
		return error_set(error, -EIO,
				 "lane %u: the source closed it again: see the source's log",
				 lane->index);
	case RDMA_CM_EVENT_CONNECT_ERROR:
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_REJECTED:
		/* It never came to be. The source may try again. */
		lane_close(lane);
		return 0;
	default:
		return 0;
	}
}

int endpoint_accept(struct endpoint *endpoint, uint64_t deadline_ns, struct ramlift_error *error)
{
	struct cm_event event;
	unsigned joined = 0;
	int ret;

	while (joined < endpoint->params.n_lanes) {
		ret = endpoint_next_event(endpoint, deadline_ns, &event, error);
		if (ret == -ETIMEDOUT)
			return error_set(error, ret,
					 "only %u of %u lanes of the source joined in time: check "
					 "that UDP port 4791 (RoCE) passes between the hosts",
					 joined, endpoint->params.n_lanes);
		if (!ret)
			ret = handle_event(endpoint, &event, &joined, error);
		if (ret)
			return ret;
	}
	return watch_start(endpoint, error);
}
