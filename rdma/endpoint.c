/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The RDMA transport: its table of functions, and what all lanes of an endpoint share: the way in
 * which waits end, the order in which things go away.
 */
#include "rdma/endpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "rdma/cm.h"
#include "rdma/device_address.h"
#include "rdma/verbs_error.h"

int endpoint_new(const struct transport_params *params, struct endpoint **endpoint,
		 struct ramlift_error *error)
{
	size_t size = sizeof(**endpoint) + params->n_lanes * sizeof(struct lane);
	struct endpoint *made;
	int ret;

	assert(params->n_lanes && params->n_lanes <= RAMLIFT_MAX_LANES);
	assert(params->n_rails && params->n_rails <= RAMLIFT_MAX_RAILS);
	assert(params->n_lanes % params->n_rails == 0);
	/* The other side has a say in how many there are. */
	if (params->n_rails > 1 && !params->rails)
		return error_set(error, -EINVAL,
				 "%u rails without names: name as many RDMA devices here as there "
				 "are rails on the other side",
				 params->n_rails);
	ret = slices_check_limit(params, error);
	if (ret)
		return ret;
	/* Lanes are aligned to cache lines, so that threads do not share one. */
	size = (size + 63) / 64 * 64;
	made = aligned_alloc(64, size);
	if (!made)
		return error_set(error, -ENOMEM, "not enough memory for a session");
	memset(made, 0, size);
	made->params = *params;
	made->wake_fd = -1;
	made->watch_stop_fd = -1;
	pthread_mutex_init(&made->failure_lock, NULL);
	for (unsigned i = 0; i < params->n_lanes; i++) {
		made->lanes[i].endpoint = made;
		made->lanes[i].rail = &made->rails[i / rail_n_lanes(params)];
		made->lanes[i].index = i;
	}
	for (unsigned i = 0; i < params->n_rails && !ret; i++)
		ret = rail_init(&made->rails[i], made, i, error);
	if (ret)
		goto err_free;
	made->peer_keys = calloc(params->n_slices + 1ul, sizeof(*made->peer_keys));
	made->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!made->peer_keys || made->wake_fd < 0) {
		ret = error_set(error, made->wake_fd < 0 ? -errno : -ENOMEM,
				"not enough memory or file descriptors for a session");
		goto err_free;
	}
	ret = cm_channel_open(&made->cm, error);
	if (ret)
		goto err_free;
	*endpoint = made;
	return 0;

err_free:
	endpoint_free(made);
	return ret;
}

/* Queue pairs before registrations, both before the protection domains. */
void endpoint_free(struct endpoint *endpoint)
{
	if (!endpoint)
		return;
	watch_stop(endpoint);
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		lane_close(&endpoint->lanes[i]);
	for (unsigned i = 0; i < endpoint->params.n_slices; i++)
		slices_deregister(endpoint, i);
	for (unsigned i = 0; i < endpoint->params.n_rails; i++)
		rail_fini(&endpoint->rails[i]);
	if (endpoint->cm)
		rdma_destroy_event_channel(endpoint->cm);
	if (endpoint->wake_fd >= 0)
		close(endpoint->wake_fd);
	pthread_mutex_destroy(&endpoint->failure_lock);
	free(endpoint->tokens);
	free(endpoint->peer_keys);
	free(endpoint);
}

int endpoint_canceled(struct ramlift_error *error)
{
	return error_set(error, -ECANCELED, "the session was cancelled");
}

int endpoint_check(struct endpoint *endpoint, struct ramlift_error *error)
{
	int ret = 0;

	if (atomic_load_explicit(&endpoint->aborted, memory_order_acquire))
		return endpoint_canceled(error);
	if (atomic_load_explicit(&endpoint->failed, memory_order_acquire)) {
		pthread_mutex_lock(&endpoint->failure_lock);
		ret = error_set(error, endpoint->failure.code, "%s", endpoint->failure.text);
		pthread_mutex_unlock(&endpoint->failure_lock);
	}
	return ret;
}

void endpoint_fail(struct endpoint *endpoint, const struct ramlift_error *failure)
{
	pthread_mutex_lock(&endpoint->failure_lock);
	if (!endpoint->failure.code)
		endpoint->failure = *failure;
	pthread_mutex_unlock(&endpoint->failure_lock);
	atomic_store_explicit(&endpoint->failed, true, memory_order_release);
	eventfd_write(endpoint->wake_fd, 1);
}

int endpoint_poll(struct endpoint *endpoint, struct pollfd *fds, unsigned n_fds,
		  uint64_t deadline_ns, struct ramlift_error *error)
{
	int ret, ready;

	fds[n_fds] = (struct pollfd){ .fd = endpoint->wake_fd, .events = POLLIN };
	/* poll(2) passes over negative descriptors. */
	fds[n_fds + 1] = (struct pollfd){ .fd = endpoint->params.interrupt_fd, .events = POLLIN };
	do {
		ready = poll(fds, n_fds + ENDPOINT_POLL_FDS, clock_left_ms(deadline_ns));
	} while (ready < 0 && errno == EINTR);
	if (ready < 0)
		return error_set(error, -errno, "cannot wait for the RDMA device: %s",
				 strerror(errno));
	if (fds[n_fds + 1].revents)
		return endpoint_canceled(error);
	ret = endpoint_check(endpoint, error);
	return ret ? ret : ready > 0;
}

int endpoint_next_event(struct endpoint *endpoint, uint64_t deadline_ns, struct cm_event *event,
			struct ramlift_error *error)
{
	struct pollfd fds[1 + ENDPOINT_POLL_FDS] = { { .fd = endpoint->cm->fd, .events = POLLIN } };
	int ret;

	for (;;) {
		ret = cm_channel_next(endpoint->cm, event);
		if (!ret)
			return 0;
		if (ret != -EAGAIN)
			return error_set(error, ret, "cannot read RDMA connection events: %s",
					 strerror(-ret));
		ret = endpoint_poll(endpoint, fds, 1, deadline_ns, error);
		if (ret <= 0)
			return ret ? ret : -ETIMEDOUT;
	}
}

static int rdma_listen_at(const struct transport_params *params, const struct sockaddr *local,
			  struct endpoint **endpoint, struct sockaddr_storage *addresses,
			  struct ramlift_error *error)
{
	struct endpoint *made;
	int ret;

	ret = endpoint_new(params, &made, error);
	if (ret)
		return ret;
	ret = endpoint_listen(made, local, addresses, error);
	if (ret)
		endpoint_free(made);
	else
		*endpoint = made;
	return ret;
}

static int rdma_connect_to(const struct transport_params *params,
			   const struct sockaddr_storage *peers, uint64_t deadline_ns,
			   struct endpoint **endpoint, struct ramlift_error *error)
{
	struct endpoint *made;
	int ret;

	ret = endpoint_new(params, &made, error);
	if (ret)
		return ret;
	ret = endpoint_connect(made, peers, deadline_ns, error);
	if (ret)
		endpoint_free(made);
	else
		*endpoint = made;
	return ret;
}

static int rail_node(const struct endpoint *endpoint, unsigned rail)
{
	assert(rail < endpoint->params.n_rails);
	return endpoint->rails[rail].numa_node;
}

static void set_peer_key(struct endpoint *endpoint, unsigned slice, const struct slice_key *key)
{
	assert(slice < endpoint->params.n_slices);
	endpoint->peer_keys[slice] = *key;
}

static int post(struct endpoint *endpoint, unsigned lane, const struct transport_write *writes,
		unsigned n_writes, struct ramlift_error *error)
{
	assert(lane < endpoint->params.n_lanes);
	return lane_post(&endpoint->lanes[lane], writes, n_writes, error);
}

static uint64_t in_flight_bytes(struct endpoint *endpoint, unsigned lane)
{
	assert(lane < endpoint->params.n_lanes);
	return atomic_load(&endpoint->lanes[lane].in_flight_bytes);
}

static int drain(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error)
{
	assert(lane < endpoint->params.n_lanes);
	return lane_drain(&endpoint->lanes[lane], error);
}

static int token(struct endpoint *endpoint, unsigned lane, uint64_t value,
		 struct ramlift_error *error)
{
	assert(lane < endpoint->params.n_lanes);
	return lane_send_token(&endpoint->lanes[lane], value, error);
}

/* The peer puts its own end into the error state, whether or not this one could be. */
static void drop_lane(struct endpoint *endpoint, unsigned lane)
{
	assert(lane < endpoint->params.n_lanes);
	atomic_store(&endpoint->lanes[lane].finished, true);
	lane_stop(&endpoint->lanes[lane], NULL);
}

static void abort_waits(struct endpoint *endpoint)
{
	atomic_store_explicit(&endpoint->aborted, true, memory_order_release);
	eventfd_write(endpoint->wake_fd, 1);
}

static const struct ramlift_transport rdma_transport = {
	.name = "rdma",
	.probe = probe_address,
	.probe_rails = device_address_probe,
	.listen = rdma_listen_at,
	.accept = endpoint_accept,
	.connect = rdma_connect_to,
	.rail_node = rail_node,
	.register_slice = slices_register,
	.deregister_slice = slices_deregister,
	.set_peer_key = set_peer_key,
	.post = post,
	.in_flight_bytes = in_flight_bytes,
	.drain = drain,
	.token = token,
	.await_tokens = receive_tokens,
	.fence = receive_fence,
	.drop_lane = drop_lane,
	.fence_lane = receive_fence_lane,
	.abort = abort_waits,
	.close = endpoint_free,
};

const struct ramlift_transport *ramlift_transport_rdma(void)
{
	return &rdma_transport;
}
