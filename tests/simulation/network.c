/* SPDX-License-Identifier: Apache-2.0 */
/* TCP between the simulated hosts, as far as the engine can see: bytes arrive late, in pieces, and
 * in order, or the connection breaks. */
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "real.h"

struct segment {
	struct segment *next, *previous; /* of all on their way */
	enum segment_kind kind;
	struct socket *from, *to;
	uint64_t arrival_ns;
	size_t n;
	uint8_t bytes[];
};

struct host hosts[MAX_HOSTS];

static struct socket *sockets;
static struct segment *on_their_way;
static unsigned last_connection;
static uint16_t last_port;
static uint64_t latency_ns, partition_until_ns[MAX_HOSTS][MAX_HOSTS];
static size_t window_bytes;

static void arrive(void *context);

void network_begin(void)
{
	sockets = NULL;
	on_their_way = NULL;
	last_connection = 0;
	last_port = 40000;
	memset(partition_until_ns, 0, sizeof(partition_until_ns));
	network_set_pace(100000, 65536);
	for (unsigned i = 0; i < MAX_HOSTS; i++)
		hosts[i].listeners = NULL;
}

void network_end(void)
{
	while (sockets) {
		struct socket *socket = sockets;

		sockets = socket->next;
		__real_free(socket->received);
		__real_free(socket->part);
		__real_free(socket->frame);
		__real_free(socket);
	}
	while (on_their_way) {
		struct segment *segment = on_their_way;

		on_their_way = segment->next;
		__real_free(segment);
	}
}

void network_set_pace(uint64_t latency, size_t window)
{
	latency_ns = latency;
	window_bytes = window;
}

static uint64_t *partition_between(const struct host *a, const struct host *b)
{
	return &partition_until_ns[a - hosts][b - hosts];
}

uint64_t network_open_ns(const struct host *a, const struct host *b)
{
	return *partition_between(a, b);
}

uint16_t network_free_port(void)
{
	return ++last_port;
}

void network_partition(const struct host *a, const struct host *b, uint64_t until_ns)
{
	happened(10, "nothing passes between %s and %s until %.3f ms", a->name, b->name,
		 (double)until_ns / 1e6);
	*partition_between(a, b) = until_ns;
	*partition_between(b, a) = until_ns;
}

void socket_changed(struct socket *socket)
{
	if (socket->process)
		something_happened_to(socket->process);
}

struct socket *socket_new(struct host *host)
{
	struct socket *socket = __real_calloc(1, sizeof(*socket));

	if (!socket)
		abort();
	socket->host = host;
	socket->next = sockets;
	sockets = socket;
	socket->local.sin_family = AF_INET;
	socket->local.sin_addr = host->address;
	return socket;
}

static void break_socket(struct socket *socket, int error)
{
	if (socket->error || !(socket->connected || socket->connecting))
		return;
	socket->error = error;
	socket->connecting = false;
	socket->connected = false;
	if (one_in(2))
		socket->n_received = 0;
	socket_changed(socket);
}

void transmit(struct socket *from, struct socket *to, enum segment_kind kind, const void *bytes,
	      size_t n, uint64_t extra_ns)
{
	struct segment *segment = __real_calloc(1, sizeof(*segment) + n);
	uint64_t arrival_ns =
		world.now_ns + latency_ns / 2 + random_below(latency_ns + 1) + extra_ns;
	uint64_t open_ns = *partition_between(from->host, to->host);

	if (!segment)
		abort();
	if (from->lost || open_ns == NEVER_NS) {
		__real_free(segment);
		return;
	}
	if (arrival_ns < open_ns) /* it is sent again until it comes through */
		arrival_ns = open_ns + random_below(200000000);
	if (!extra_ns) {
		if (arrival_ns <= from->last_arrival_ns)
			arrival_ns = from->last_arrival_ns + 1;
		from->last_arrival_ns = arrival_ns;
	}
	segment->kind = kind;
	segment->from = from;
	segment->to = to;
	segment->n = n;
	segment->arrival_ns = arrival_ns;
	if (n)
		memcpy(segment->bytes, bytes, n);
	segment->next = on_their_way;
	if (on_their_way)
		on_their_way->previous = segment;
	on_their_way = segment;
	at(arrival_ns, arrive, segment);
}

struct host *host_of(struct in_addr address)
{
	for (unsigned i = 0; i < MAX_HOSTS; i++) {
		if (hosts[i].address.s_addr == address.s_addr)
			return &hosts[i];
	}
	return NULL;
}

struct socket *find_listener(const struct host *host, in_port_t port)
{
	struct socket *listener = host->listeners;

	while (listener && listener->local.sin_port != port)
		listener = listener->next_listener;
	return listener;
}

/* A connection is asked for. from has no peer yet, the segment goes to itself. */
static void arrive_connect(struct socket *client)
{
	struct host *host = host_of(client->remote.sin_addr);
	struct socket *listener, *server;

	if (!client->connecting || !host || !host->up)
		return;
	listener = find_listener(host, client->remote.sin_port);
	if (!listener || listener->n_backlog == BACKLOG) {
		break_socket(client, ECONNREFUSED);
		return;
	}
	server = socket_new(host);
	server->local.sin_port = listener->local.sin_port;
	server->remote = client->local;
	server->connected = true;
	server->peer = client;
	server->connection = client->connection = ++last_connection;
	client->peer = server;
	listener->backlog[listener->n_backlog++] = server;
	socket_changed(listener);
	transmit(server, client, SEGMENT_CONNECTED, NULL, 0, 0);
}

static void receive_bytes(struct socket *socket, const struct segment *segment)
{
	if (socket->n_received + segment->n > socket->room_received) {
		socket->room_received = 2 * (socket->n_received + segment->n);
		socket->received = __real_realloc(socket->received, socket->room_received);
		if (!socket->received)
			abort();
	}
	memcpy(socket->received + socket->n_received, segment->bytes, segment->n);
	socket->n_received += segment->n;
}

static bool is_closed(const struct socket *socket)
{
	return !socket->connected && !socket->connecting;
}

static void arrive_at(struct socket *to, const struct segment *segment)
{
	switch (segment->kind) {
	case SEGMENT_DATA:
	case SEGMENT_FIN:
		if (is_closed(to)) {
			transmit(to, segment->from, SEGMENT_RESET, NULL, 0, 0);
			return;
		}
		if (segment->kind == SEGMENT_FIN)
			to->fin_received = true;
		else
			receive_bytes(to, segment);
		break;
	case SEGMENT_RESET:
		break_socket(to, ECONNRESET);
		break;
	case SEGMENT_CONNECTED:
		to->connected = to->connecting;
		to->connecting = false;
		break;
	case SEGMENT_CONNECT:
		arrive_connect(segment->from);
		break;
	}
	socket_changed(to);
}

static void arrive(void *context)
{
	struct segment *segment = context;
	struct socket *from = segment->from, *to = segment->to;

	if (segment->previous)
		segment->previous->next = segment->next;
	else
		on_their_way = segment->next;
	if (segment->next)
		segment->next->previous = segment->previous;
	if (segment->kind == SEGMENT_DATA)
		from->in_flight -= segment->n;
	if (to->host->up)
		arrive_at(to, segment);
	socket_changed(from);
	__real_free(segment);
}

void network_reset(const struct host *a, const struct host *b)
{
	happened(11, "connections of %s and %s break", a->name, b->name);
	for (struct socket *socket = sockets; socket; socket = socket->next) {
		if (!socket->peer || !((socket->host == a && socket->peer->host == b) ||
				       (socket->host == b && socket->peer->host == a)))
			continue;
		socket->lost = true;
		break_socket(socket, ECONNRESET);
	}
}

void network_power_off(const struct host *host)
{
	for (struct socket *socket = sockets; socket; socket = socket->next) {
		if (socket->host != host)
			continue;
		socket->connected = false;
		socket->connecting = false;
	}
	((struct host *)host)->listeners = NULL;
}

const struct host *socket_host(const struct socket *socket)
{
	return socket->host;
}

const struct host *socket_peer_host(const struct socket *socket)
{
	return host_of(socket->remote.sin_addr);
}

size_t socket_room(const struct socket *socket)
{
	size_t used = socket->in_flight + socket->n_part + socket->peer->n_received;

	return used < window_bytes ? window_bytes - used : 0;
}
