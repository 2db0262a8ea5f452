/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that hears what no completion tells: the peer closed a connection, the device or its
 * port died. The former costs a lane, the latter is the endpoint's failure.
 *
 * A device's context is librdmacm's and shared by the process: an event may belong to somebody
 * else's queue pair, so pointers in it are only compared with ours. Another endpoint's event that
 * ends up here is lost; that endpoint finds out by its completions or their timeout.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/error.h"
#include "rdma/cm.h"
#include "rdma/endpoint.h"
#include "rdma/verbs_error.h"

/* Where the devices' descriptors begin among those that are polled. */
#define WATCH_DEVICES 2u

static struct lane *lane_of_id(struct endpoint *endpoint, const struct rdma_cm_id *id)
{
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		if (endpoint->lanes[i].id == id)
			return &endpoint->lanes[i];
	return NULL;
}

static struct lane *lane_of_queue(struct endpoint *endpoint, const struct ibv_qp *qp,
				  const struct ibv_cq *cq)
{
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		if ((qp && endpoint->lanes[i].qp == qp) || (cq && endpoint->lanes[i].cq == cq))
			return &endpoint->lanes[i];
	return NULL;
}

static void connection_event(struct endpoint *endpoint, const struct cm_event *event)
{
	struct lane *lane = lane_of_id(endpoint, event->id);
	struct ramlift_error failure;

	switch (event->type) {
	case RDMA_CM_EVENT_CONNECT_REQUEST: /* after all lanes have joined: a stranger */
		rdma_reject(event->id, NULL, 0);
		rdma_destroy_id(event->id);
		return;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		error_set(&failure, -EIO, "the RDMA device was removed: see the kernel's log");
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
		if (!lane || atomic_load(&lane->finished))
			return;
		error_set(&failure, -EIO,
			  "lane %u: the peer closed the connection: see its log for why",
			  lane->index);
		lane_sever(lane, &failure);
		return;
	default:
		return;
	}
	endpoint_fail(endpoint, &failure);
}

static void queue_failed(struct lane *lane, const struct ibv_async_event *event)
{
	struct ramlift_error failure;

	if (!lane || atomic_load(&lane->finished))
		return;
	error_set(&failure, -EIO, "lane %u: the adapter reports: %s; see the kernel's log",
		  lane->index, ibv_event_type_str(event->event_type));
	lane_sever(lane, &failure);
}

static void device_failed(struct endpoint *endpoint, const struct ibv_context *device,
			  const struct ibv_async_event *event)
{
	struct ramlift_error failure;

	error_set(&failure, -EIO, "RDMA device %s: %s; check its link and the kernel's log",
		  ibv_get_device_name(device->device), ibv_event_type_str(event->event_type));
	endpoint_fail(endpoint, &failure);
}

/* Does a rail use this port? All its lanes do then. */
static bool is_our_port(const struct endpoint *endpoint, const struct ibv_context *device, int port)
{
	for (unsigned i = 0; i < endpoint->params.n_rails; i++) {
		const struct rail *rail = &endpoint->rails[i];

		if (rail->device == device &&
		    endpoint->lanes[rail_first_lane(rail)].id->port_num == port)
			return true;
	}
	return false;
}

static void device_event(struct endpoint *endpoint, const struct ibv_context *device,
			 const struct ibv_async_event *event)
{
	switch (event->event_type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
		queue_failed(lane_of_queue(endpoint, event->element.qp, NULL), event);
		return;
	case IBV_EVENT_CQ_ERR:
		queue_failed(lane_of_queue(endpoint, NULL, event->element.cq), event);
		return;
	case IBV_EVENT_PORT_ERR:
		if (is_our_port(endpoint, device, event->element.port_num))
			device_failed(endpoint, device, event);
		return;
	case IBV_EVENT_DEVICE_FATAL:
		device_failed(endpoint, device, event);
		return;
	default:
		return;
	}
}

/* A descriptor that only reports errors is given up, rather than read for
 * ever: the device is gone. */
static void source_lost(struct endpoint *endpoint, struct pollfd *fd, const char *what)
{
	struct ramlift_error failure;

	fd->fd = -1;
	error_set(&failure, -EIO, "the RDMA device's %s cannot be read: see the kernel's log",
		  what);
	endpoint_fail(endpoint, &failure);
}

static void read_connection_events(struct endpoint *endpoint, struct pollfd *fd)
{
	struct cm_event event;
	int ret;

	while (!(ret = cm_channel_next(endpoint->cm, &event)))
		connection_event(endpoint, &event);
	if (ret != -EAGAIN || fd->revents & ~POLLIN)
		source_lost(endpoint, fd, "connection events");
}

static void read_device_events(struct endpoint *endpoint, struct ibv_context *device,
			       struct pollfd *fd)
{
	struct ibv_async_event event;

	errno = 0;
	while (!ibv_get_async_event(device, &event)) {
		device_event(endpoint, device, &event);
		ibv_ack_async_event(&event);
		errno = 0;
	}
	if ((errno && errno != EAGAIN) || fd->revents & ~POLLIN)
		source_lost(endpoint, fd, "events");
}

static void *watch_run(void *argument)
{
	struct endpoint *endpoint = argument;
	unsigned n_rails = endpoint->params.n_rails;
	struct pollfd fds[WATCH_DEVICES + RAMLIFT_MAX_RAILS] = {
		{ .fd = endpoint->watch_stop_fd, .events = POLLIN },
		{ .fd = endpoint->cm->fd, .events = POLLIN },
	};

	for (unsigned i = 0; i < n_rails; i++)
		fds[WATCH_DEVICES + i] = (struct pollfd){
			.fd = endpoint->rails[i].device->async_fd,
			.events = POLLIN,
		};
	for (;;) {
		if (poll(fds, WATCH_DEVICES + n_rails, -1) < 0) {
			if (errno == EINTR)
				continue;
			return NULL;
		}
		if (fds[0].revents)
			return NULL;
		if (fds[1].revents)
			read_connection_events(endpoint, &fds[1]);
		for (unsigned i = 0; i < n_rails; i++)
			if (fds[WATCH_DEVICES + i].revents)
				read_device_events(endpoint, endpoint->rails[i].device,
						   &fds[WATCH_DEVICES + i]);
	}
}

int watch_start(struct endpoint *endpoint, struct ramlift_error *error)
{
	int ret;

	for (unsigned i = 0; i < endpoint->params.n_rails; i++) {
		const struct ibv_context *device = endpoint->rails[i].device;
		int flags = fcntl(device->async_fd, F_GETFL);

		if (flags < 0 || fcntl(device->async_fd, F_SETFL, flags | O_NONBLOCK)) {
			ret = -errno;
			return error_set(error, ret, "cannot watch RDMA device %s: %s",
					 ibv_get_device_name(device->device), strerror(-ret));
		}
	}
	endpoint->watch_stop_fd = eventfd(0, EFD_CLOEXEC);
	if (endpoint->watch_stop_fd < 0) {
		ret = -errno;
		return error_set(error, ret, "cannot watch the RDMA devices: %s", strerror(-ret));
	}
	ret = pthread_create(&endpoint->watch, NULL, watch_run, endpoint);
	if (ret)
		return error_set(error, -ret, "cannot start a thread: %s", strerror(ret));
	pthread_setname_np(endpoint->watch, "ramlift-rdma");
	endpoint->watching = true;
	return 0;
}

void watch_stop(struct endpoint *endpoint)
{
	if (endpoint->watching) {
		eventfd_write(endpoint->watch_stop_fd, 1);
		pthread_join(endpoint->watch, NULL);
	}
	if (endpoint->watch_stop_fd >= 0)
		close(endpoint->watch_stop_fd);
	endpoint->watching = false;
	endpoint->watch_stop_fd = -1;
}
