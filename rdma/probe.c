/* SPDX-License-Identifier: Apache-2.0 */
/* Is there an RDMA device for an address? Asks librdmacm, without connecting to anybody. */
#include <errno.h>
#include <poll.h>

#include "core/clock.h"
#include "core/error.h"
#include "rdma/address.h"
#include "rdma/cm.h"
#include "rdma/endpoint.h"
#include "rdma/verbs_error.h"

/* Enough for the kernel to ask the network for the peer's hardware address, twice. */
#define RESOLVE_TIMEOUT_NS (2 * NS_PER_S)

static int next_event(struct rdma_event_channel *channel, struct cm_event *event)
{
	uint64_t deadline_ns = clock_now_ns() + RESOLVE_TIMEOUT_NS;
	struct pollfd fd = { .fd = channel->fd, .events = POLLIN };
	int ret;

	while ((ret = cm_channel_next(channel, event)) == -EAGAIN)
		if (!poll(&fd, 1, clock_left_ms(deadline_ns)))
			return -ETIMEDOUT;
	return ret;
}

static int probe_peer(struct rdma_event_channel *channel, struct rdma_cm_id *id,
		      const struct sockaddr *peer, struct ramlift_error *error)
{
	struct cm_event event = { .status = 0 };
	char text[ADDRESS_TEXT_BYTES];
	int ret;

	/* The kernel would take any device for it, but nobody can listen there. */
	if (address_is_loopback(peer))
		return verbs_no_device_error(error, peer);
	if (rdma_resolve_addr(id, NULL, (struct sockaddr *)(uintptr_t)peer,
			      (int)(RESOLVE_TIMEOUT_NS / NS_PER_MS)))
		return verbs_no_device_error(error, peer);
	ret = next_event(channel, &event);
	if (!ret && event.type == RDMA_CM_EVENT_ADDR_RESOLVED && id->verbs)
		return 0;
	if (ret != -ETIMEDOUT && event.status != -ETIMEDOUT)
		return verbs_no_device_error(error, peer);
	address_text(peer, text);
	return error_set(error, -ENODEV,
			 "%s does not answer on the network of this host's RDMA device: check the "
			 "address, or use --transport tcp",
			 text);
}

static int probe_local(struct rdma_cm_id *id, const struct sockaddr *local,
		       struct ramlift_error *error)
{
	struct sockaddr_storage address;
	struct ibv_context **devices;
	int n = 0;

	if (address_without_port(local, &address) ||
	    rdma_bind_addr(id, (struct sockaddr *)&address))
		return verbs_no_device_error(error, local);
	if (id->verbs)
		return 0;
	if (!address_is_wildcard(local))
		return verbs_no_device_error(error, local);
	devices = rdma_get_devices(&n);
	if (devices)
		rdma_free_devices(devices);
	return n > 0 ? 0 : verbs_no_device_error(error, local);
}

int probe_address(const struct sockaddr *local, const struct sockaddr *peer,
		  struct ramlift_error *error)
{
	struct rdma_event_channel *channel;
	struct rdma_cm_id *id;
	int ret;

	ret = cm_channel_open(&channel, error);
	if (ret)
		return ret;
	if (rdma_create_id(channel, &id, NULL, RDMA_PS_TCP)) {
		ret = verbs_no_device_error(error, peer ? peer : local);
		goto err_channel;
	}
	ret = peer ? probe_peer(channel, id, peer, error) : probe_local(id, local, error);
	rdma_destroy_id(id);
err_channel:
	rdma_destroy_event_channel(channel);
	return ret;
}
