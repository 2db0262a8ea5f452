/* SPDX-License-Identifier: Apache-2.0 */
/* The transport for hosts without an RNIC: one TCP connection a lane. Its endpoint and its table;
 * tcp_transport.h explains. */
#include "core/tcp_transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/error.h"
#include "core/ramlift.h"

static int tcp_probe(const struct sockaddr *local, const struct sockaddr *peer,
		     struct ramlift_error *error)
{
	(void)local;
	(void)peer;
	(void)error;
	return 0;
}

struct endpoint *tcp_endpoint_new(const struct transport_params *params,
				  struct ramlift_error *error)
{
	struct endpoint *endpoint =
		calloc(1, sizeof(*endpoint) + params->n_lanes * sizeof(endpoint->lanes[0]));

	if (!endpoint) {
		error_set(error, -ENOMEM, "no memory for %u TCP lanes", params->n_lanes);
		return NULL;
	}
	endpoint->params = *params;
	endpoint->listen_fd = -1;
	pthread_mutex_init(&endpoint->lock, NULL);
	clock_cond_init(&endpoint->changed);
	for (unsigned i = 0; i < params->n_lanes; i++) {
		endpoint->lanes[i].endpoint = endpoint;
		endpoint->lanes[i].index = i;
		endpoint->lanes[i].fd = -1;
	}
	return endpoint;
}

static void tcp_abort(struct endpoint *endpoint)
{
	atomic_store(&endpoint->aborted, true);
	if (endpoint->listen_fd >= 0)
		shutdown(endpoint->listen_fd, SHUT_RDWR); /* wakes accept() */
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++) {
		if (endpoint->lanes[i].fd >= 0)
			shutdown(endpoint->lanes[i].fd, SHUT_RDWR);
	}
	pthread_mutex_lock(&endpoint->lock);
	pthread_cond_broadcast(&endpoint->changed);
	pthread_mutex_unlock(&endpoint->lock);
}

void tcp_close(struct endpoint *endpoint)
{
	if (!endpoint)
		return;
	tcp_fence(endpoint, NULL); /* ends its threads, where it has any */
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		stream_free(endpoint->lanes[i].stream);
	if (endpoint->listen_fd >= 0)
		close(endpoint->listen_fd);
	pthread_cond_destroy(&endpoint->changed);
	pthread_mutex_destroy(&endpoint->lock);
	free(endpoint);
}

int tcp_lane_attach(struct tcp_lane *lane, struct stream *stream)
{
	int off = 0;

	lane->stream = stream;
	lane->fd = stream_fd(stream);
	return ioctl(lane->fd, FIONBIO, &off) ? -errno : 0;
}

/* Nothing to do on either side: the kernel copies. */
static int tcp_register_slice(struct endpoint *endpoint, unsigned slice, unsigned rails,
			      struct slice_key *key, struct ramlift_error *error)
{
	(void)endpoint;
	(void)slice;
	(void)rails;
	(void)error;
	if (key)
		memset(key, 0, sizeof(*key));
	return 0;
}

static void tcp_deregister_slice(struct endpoint *endpoint, unsigned slice)
{
	(void)endpoint;
	(void)slice;
}

static void tcp_set_peer_key(struct endpoint *endpoint, unsigned slice, const struct slice_key *key)
{
	(void)endpoint;
	(void)slice;
	(void)key;
}

static const struct ramlift_transport tcp_transport = {
	.name = "tcp",
	.probe = tcp_probe,
	.listen = tcp_listen,
	.accept = tcp_accept,
	.connect = tcp_connect,
	.register_slice = tcp_register_slice,
	.deregister_slice = tcp_deregister_slice,
	.set_peer_key = tcp_set_peer_key,
	.post = tcp_post,
	.in_flight_bytes = tcp_in_flight_bytes,
	.drain = tcp_drain,
	.token = tcp_token,
	.await_tokens = tcp_await_tokens,
	.fence = tcp_fence,
	.drop_lane = tcp_drop_lane,
	.fence_lane = tcp_fence_lane,
	.abort = tcp_abort,
	.close = tcp_close,
};

const struct ramlift_transport *ramlift_transport_tcp(void)
{
	return &tcp_transport;
}
