/* SPDX-License-Identifier: Apache-2.0 */
/* The connection manager: see fake.h. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fake_device.h"

/* What the receiver of a connect request is handed, whatever was sent. */
#define PRIVATE_DATA_BYTES 56

enum id_state { FRESH, LISTENING, REQUESTED, ANSWERING, CONNECTED, OVER };

struct fake_id {
	struct rdma_cm_id id;
	struct fake_id *peer;
	enum id_state state;
	struct fake_id *next;
};

struct fake_event {
	struct rdma_cm_event event;
	uint8_t private_data[PRIVATE_DATA_BYTES];
	struct fake_event *next;
};

struct fake_channel {
	struct rdma_event_channel channel;
	struct fake_event *events;
	unsigned unacknowledged;
};

static struct fake_id *ids;
static uint16_t next_port = 20000;

static struct fake_channel *channel_of(const struct fake_id *id)
{
	return CONTAINER(struct fake_channel, channel, id->id.channel);
}

static struct fake_event *add_event(struct fake_id *id, enum rdma_cm_event_type type, int status)
{
	struct fake_event *event = malloc(sizeof(*event)), **at;

	memset(event, 0, sizeof(*event));
	event->event.id = &id->id;
	event->event.event = type;
	event->event.status = status;
	for (at = &channel_of(id)->events; *at; at = &(*at)->next)
		;
	*at = event;
	eventfd_write(id->id.channel->fd, 1);
	return event;
}

struct rdma_event_channel *rdma_create_event_channel(void)
{
	struct fake_channel *channel;

	if (fake_fails(EMFILE))
		return NULL;
	channel = malloc(sizeof(*channel));
	memset(channel, 0, sizeof(*channel));
	channel->channel.fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	fake_count(1);
	return &channel->channel;
}

void rdma_destroy_event_channel(struct rdma_event_channel *raw)
{
	struct fake_channel *channel = CONTAINER(struct fake_channel, channel, raw);

	assert(!channel->events && !channel->unacknowledged);
	close(raw->fd);
	free(channel);
	fake_count(-1);
}

int rdma_get_cm_event(struct rdma_event_channel *raw, struct rdma_cm_event **event)
{
	struct fake_channel *channel = CONTAINER(struct fake_channel, channel, raw);
	eventfd_t value;
	int ret = -1;

	pthread_mutex_lock(&fake_lock);
	if (!channel->events) {
		errno = EAGAIN;
	} else if (!fake_fails(EIO)) {
		eventfd_read(raw->fd, &value);
		*event = &channel->events->event;
		channel->events = channel->events->next;
		channel->unacknowledged++;
		ret = 0;
	}
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
	struct fake_id *id = CONTAINER(struct fake_id, id, event->id);

	pthread_mutex_lock(&fake_lock);
	channel_of(id)->unacknowledged--;
	pthread_mutex_unlock(&fake_lock);
	free(CONTAINER(struct fake_event, event, event));
	return 0;
}

static struct fake_id *id_new(struct rdma_event_channel *channel, void *context)
{
	struct fake_id *id = malloc(sizeof(*id));

	memset(id, 0, sizeof(*id));
	id->id.channel = channel;
	id->id.context = context;
	pthread_mutex_lock(&fake_lock);
	id->next = ids;
	ids = id;
	pthread_mutex_unlock(&fake_lock);
	fake_count(1);
	return id;
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *context,
		   enum rdma_port_space ps)
{
	assert(ps == RDMA_PS_TCP);
	if (fake_fails(ENOMEM))
		return -1;
	*id = &id_new(channel, context)->id;
	return 0;
}

/* The connection ends on this side: tell the other one, once. */
static void hang_up(struct fake_id *id)
{
	struct fake_id *peer = id->peer;
	enum id_state was = id->state;

	id->state = OVER;
	id->peer = NULL;
	if (!peer)
		return;
	peer->peer = NULL;
	peer->state = OVER;
	if (was == CONNECTED)
		add_event(peer, RDMA_CM_EVENT_DISCONNECTED, 0);
	else if (was == ANSWERING)
		add_event(peer, RDMA_CM_EVENT_REJECTED, 28);
	else if (was == REQUESTED && peer->id.qp)
		add_event(peer, RDMA_CM_EVENT_CONNECT_ERROR, -ECONNRESET);
}

int rdma_destroy_id(struct rdma_cm_id *raw)
{
	struct fake_id *id = CONTAINER(struct fake_id, id, raw), **at;
	struct fake_event **event;

	assert(!raw->qp);
	pthread_mutex_lock(&fake_lock);
	hang_up(id);
	for (event = &channel_of(id)->events; *event;) {
		struct fake_event *gone = *event;
		struct rdma_cm_id *request =
			gone->event.event == RDMA_CM_EVENT_CONNECT_REQUEST ? gone->event.id : NULL;
		eventfd_t value;

		if (gone->event.id != raw && (!request || gone->event.listen_id != raw)) {
			event = &gone->next;
			continue;
		}
		*event = gone->next;
		eventfd_read(raw->channel->fd, &value);
		free(gone);
		/* A listener takes requests that nobody has heard of with it. */
		if (request && request != raw) {
			rdma_destroy_id(request);
			event = &channel_of(id)->events;
		}
	}
	for (at = &ids; *at != id; at = &(*at)->next)
		;
	*at = id->next;
	pthread_mutex_unlock(&fake_lock);
	free(id);
	fake_count(-1);
	return 0;
}

static void take_device(struct rdma_cm_id *raw, struct ibv_context *context)
{
	raw->verbs = context;
	raw->port_num = 1;
}

static void set_port(struct sockaddr_storage *address, uint16_t port)
{
	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)address)->sin_port = htons(port);
}

static uint16_t port_of(const struct sockaddr_storage *address)
{
	return ntohs(address->ss_family == AF_INET6 ? ((struct sockaddr_in6 *)address)->sin6_port
						    : ((struct sockaddr_in *)address)->sin_port);
}

static socklen_t length_of(const struct sockaddr *address)
{
	return address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					      : sizeof(struct sockaddr_in);
}

int rdma_bind_addr(struct rdma_cm_id *raw, struct sockaddr *address)
{
	struct sockaddr_storage any = { .ss_family = address->sa_family };
	struct sockaddr_storage *source = &raw->route.addr.src_storage;
	struct ibv_context *context = fake_device_at(address);

	if (fake_fails(EADDRINUSE))
		return -1;
	if (!context && memcmp(address, &any, length_of(address)) != 0) {
		errno = ENODEV;
		return -1;
	}
	if (context)
		take_device(raw, context);
	memcpy(source, address, length_of(address));
	pthread_mutex_lock(&fake_lock);
	set_port(source, next_port++);
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

int rdma_listen(struct rdma_cm_id *raw, int backlog)
{
	assert(backlog > 0);
	if (fake_fails(EADDRINUSE))
		return -1;
	CONTAINER(struct fake_id, id, raw)->state = LISTENING;
	return 0;
}

__be16 rdma_get_src_port(struct rdma_cm_id *raw)
{
	return htons(port_of(&raw->route.addr.src_storage));
}

int rdma_set_option(struct rdma_cm_id *raw, int level, int name, void *value, size_t length)
{
	(void)raw, (void)level, (void)name, (void)value, (void)length;
	return 0;
}

int rdma_resolve_addr(struct rdma_cm_id *raw, struct sockaddr *source, struct sockaddr *peer,
		      int timeout_ms)
{
	struct fake_id *id = CONTAINER(struct fake_id, id, raw);
	struct ibv_context *to = fake_device_at(peer);

	assert(timeout_ms >= 0 && (!source || source->sa_family == peer->sa_family));
	if (fake_fails(EADDRNOTAVAIL))
		return -1;
	memcpy(&raw->route.addr.dst_storage, peer, length_of(peer));
	pthread_mutex_lock(&fake_lock);
	if (to) {
		/* All networks are one here: every device reaches every other. */
		take_device(raw, source ? fake_device_at(source) : to);
		add_event(id, RDMA_CM_EVENT_ADDR_RESOLVED, 0);
	} else {
		add_event(id, RDMA_CM_EVENT_ADDR_ERROR, -ENODEV);
	}
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

int rdma_resolve_route(struct rdma_cm_id *raw, int timeout_ms)
{
	(void)timeout_ms;
	if (fake_fails(ENETUNREACH))
		return -1;
	pthread_mutex_lock(&fake_lock);
	add_event(CONTAINER(struct fake_id, id, raw), RDMA_CM_EVENT_ROUTE_RESOLVED, 0);
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

/* A port belongs to one listener here, whatever its address. */
static struct fake_id *listener_at(uint16_t port)
{
	struct fake_id *id;

	for (id = ids; id; id = id->next)
		if (id->state == LISTENING && port_of(&id->id.route.addr.src_storage) == port)
			break;
	return id;
}

int rdma_connect(struct rdma_cm_id *raw, struct rdma_conn_param *param)
{
	struct fake_id *id = CONTAINER(struct fake_id, id, raw), *listener, *incoming;
	const struct sockaddr_storage *peer = &raw->route.addr.dst_storage;
	struct fake_event *event;

	/* 7 retries would be endless with soft-RoCE. */
	assert(param->private_data_len <= PRIVATE_DATA_BYTES && param->retry_count < 7);
	if (fake_fails(EIO))
		return -1;
	pthread_mutex_lock(&fake_lock);
	listener = listener_at(port_of(peer));
	if (!listener) {
		add_event(id, RDMA_CM_EVENT_REJECTED, 8);
	} else {
		incoming = id_new(listener->id.channel, listener->id.context);
		take_device(&incoming->id, fake_device_at((const struct sockaddr *)peer));
		incoming->peer = id;
		incoming->state = ANSWERING;
		id->peer = incoming;
		id->state = REQUESTED;
		event = add_event(incoming, RDMA_CM_EVENT_CONNECT_REQUEST, 0);
		event->event.listen_id = &listener->id;
		if (param->private_data_len) {
			memcpy(event->private_data, param->private_data, param->private_data_len);
			event->event.param.conn.private_data = event->private_data;
			event->event.param.conn.private_data_len = PRIVATE_DATA_BYTES;
		}
	}
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

int rdma_accept(struct rdma_cm_id *raw, struct rdma_conn_param *param)
{
	struct fake_id *id = CONTAINER(struct fake_id, id, raw), *peer;

	(void)param;
	if (fake_fails(EIO))
		return -1;
	pthread_mutex_lock(&fake_lock);
	peer = id->peer;
	/* The token's receives must be there before the first write can come. */
	assert(raw->qp && id->state != CONNECTED);
	/* A peer that gives up has no queue pair any more before it has no identifier. */
	if (peer && peer->id.qp) {
		fake_qp_connect(raw->qp, peer->id.qp);
		id->state = CONNECTED;
		peer->state = CONNECTED;
		add_event(id, RDMA_CM_EVENT_ESTABLISHED, 0);
		add_event(peer, RDMA_CM_EVENT_ESTABLISHED, 0);
	} else {
		add_event(id, RDMA_CM_EVENT_CONNECT_ERROR, -ECONNRESET);
	}
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

int rdma_reject(struct rdma_cm_id *raw, const void *private_data, uint8_t private_data_len)
{
	(void)private_data, (void)private_data_len;
	pthread_mutex_lock(&fake_lock);
	hang_up(CONTAINER(struct fake_id, id, raw));
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

int rdma_disconnect(struct rdma_cm_id *raw)
{
	pthread_mutex_lock(&fake_lock);
	if (raw->qp)
		fake_qp_error(raw->qp);
	hang_up(CONTAINER(struct fake_id, id, raw));
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

int rdma_create_qp(struct rdma_cm_id *raw, struct ibv_pd *pd, struct ibv_qp_init_attr *init)
{
	assert(pd->context == raw->verbs && init->send_cq->context == raw->verbs);
	if (fake_fails(ENOMEM))
		return -1;
	raw->qp = fake_qp_new(pd, init);
	return 0;
}

void rdma_destroy_qp(struct rdma_cm_id *raw)
{
	pthread_mutex_lock(&fake_lock);
	fake_qp_free(raw->qp);
	raw->qp = NULL;
	pthread_mutex_unlock(&fake_lock);
}
