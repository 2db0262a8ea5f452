/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP between the simulated hosts, as far as the engine can see: bytes arrive late, in pieces, and
 * in order, or the connection breaks. What is sent is put together to frames of the protocol, of
 * which the scenario decides what becomes of each: that is more than a network can do to one
 * connection, and the engine must bear it all the same.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "host.h"
#include "real.h"

#define BACKLOG	       8u
#define GREETING_BYTES 8u
#define MAX_FRAME_BYTES (64u << 10)

enum segment_kind { SEGMENT_DATA, SEGMENT_FIN, SEGMENT_RESET, SEGMENT_CONNECT, SEGMENT_CONNECTED };

/* One end of a connection, or a socket that is none yet; kept until the world ends. */
struct socket {
	struct socket *next; /* of all */
	struct host *host;
	struct process *process; /* NULL once it is closed, or in a backlog */
	struct socket *peer;	 /* NULL until it is connected */
	unsigned connection;	 /* a number for both ends */
	struct sockaddr_in local, remote;
	bool connecting, connected, shut_wr, shut_rd, fin_received;
	bool fin_sent, lost; /* lost: nothing that is sent arrives, for ever */
	int error;
	uint8_t *received;
	size_t n_received, room_received;
	uint8_t *part; /* of a frame that is being sent */
	size_t n_part;
	uint8_t *frame; /* the last whole one */
	bool raw; /* it does not speak the protocol */
	size_t in_flight;
	uint64_t last_arrival_ns;

	/* a listener */
	bool listening;
	struct socket *next_listener;
	struct socket *backlog[BACKLOG];
	unsigned n_backlog;
};

struct segment {
	struct segment *next, *previous; /* of all on their way */
	enum segment_kind kind;
	struct socket *from, *to;
	uint64_t arrival_ns;
	size_t n;
	uint8_t bytes[];
};

int __wrap_socket(int family, int type, int protocol);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t length);
int __wrap_listen(int fd, int backlog);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t n, int flags);
int __wrap_shutdown(int fd, int how);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *length);
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *length);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *length);

struct host hosts[MAX_HOSTS];
void (*frame_sent)(const struct frame *frame, struct frame_fate *fate);

static struct socket *sockets;
static struct segment *on_their_way;
static unsigned last_connection;
static uint16_t last_port;
static uint64_t latency_ns, partition_until_ns[MAX_HOSTS][MAX_HOSTS];
static size_t window_bytes;

static void arrive(void *context);

static int fail(int number)
{
	errno = number;
	return -1;
}

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

void network_partition(const struct host *a, const struct host *b, uint64_t until_ns)
{
	happened(10, "nothing passes between %s and %s until %.3f ms", a->name, b->name,
		 (double)until_ns / 1e6);
	*partition_between(a, b) = until_ns;
	*partition_between(b, a) = until_ns;
}

static void changed(struct socket *socket)
{
	if (socket->process)
		something_happened_to(socket->process);
}

static struct socket *socket_new(struct host *host)
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
	changed(socket);
}

/* Put it on its way; data stays in order unless it is given a delay of its own. */
static void transmit(struct socket *from, struct socket *to, enum segment_kind kind,
		     const void *bytes, size_t n, uint64_t extra_ns)
{
	struct segment *segment = __real_calloc(1, sizeof(*segment) + n);
	uint64_t arrival_ns = world.now_ns + latency_ns / 2 + random_below(latency_ns + 1) + extra_ns;
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

static struct host *host_of(struct in_addr address)
{
	for (unsigned i = 0; i < MAX_HOSTS; i++) {
		if (hosts[i].address.s_addr == address.s_addr)
			return &hosts[i];
	}
	return NULL;
}

static struct socket *find_listener(const struct host *host, in_port_t port)
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
	changed(listener);
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
	changed(to);
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
	changed(from);
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

static size_t room(const struct socket *socket)
{
	size_t used = socket->in_flight + socket->n_part + socket->peer->n_received;

	return used < window_bytes ? window_bytes - used : 0;
}

short socket_events(const struct socket *socket)
{
	short events = 0;

	if (socket->listening)
		return socket->n_backlog ? POLLIN : 0;
	if (socket->n_received || socket->fin_received || socket->shut_rd)
		events |= POLLIN;
	if (socket->error)
		return POLLIN | POLLOUT | POLLERR | POLLHUP;
	if (!socket->connected && !socket->connecting)
		return events | POLLIN | POLLOUT | POLLHUP;
	if (socket->connected && room(socket))
		events |= POLLOUT;
	return events;
}

static void send_data(struct socket *socket, const uint8_t *bytes, size_t n, uint64_t extra_ns)
{
	if (socket->lost || *partition_between(socket->host, socket->peer->host) == NEVER_NS)
		return; /* what never arrives takes room all the same, but nobody counts on it */
	socket->in_flight += n;
	transmit(socket, socket->peer, SEGMENT_DATA, bytes, n, extra_ns);
}

/* The scenario may end the process here: then the frame has not left it. */
static void send_frame(struct socket *socket, size_t n)
{
	struct frame_fate fate = { .copies = 1 };
	struct frame frame = {
		.from = socket,
		.connection = socket->connection,
		.sender = socket->process,
		.type = socket->part[2],
		.n_bytes = (uint32_t)n,
		.length_bytes = (uint32_t)n - WIRE_HEADER_BYTES,
	};

	socket->frame = __real_realloc(socket->frame, n);
	if (!socket->frame)
		abort();
	memcpy(socket->frame, socket->part, n);
	memmove(socket->part, socket->part + n, socket->n_part - n);
	socket->n_part -= n;
	frame.bytes = socket->frame;
	frame.payload = socket->frame + WIRE_HEADER_BYTES;
	if (frame_sent)
		frame_sent(&frame, &fate);
	for (unsigned i = 0; i < fate.copies; i++)
		send_data(socket, socket->frame, n, fate.delay_ns);
	if (fate.followed_by)
		send_data(socket, fate.followed_by, fate.followed_by_bytes, 0);
}

/* What a stream begins with, where it is plaintext. */
static bool is_a_greeting(const struct socket *socket)
{
	return socket->n_part >= 2 && socket->part[0] == 'R' && socket->part[1] == 'L';
}

static bool is_a_frame(const struct socket *socket)
{
	return socket->part[0] == WIRE_MAGIC && (socket->n_part < 2 || socket->part[1] == WIRE_VERSION);
}

/* As many frames as are complete. */
static void send_frames(struct socket *socket)
{
	while (socket->n_part && !socket->raw) {
		const uint8_t *part = socket->part;
		size_t n;

		if (is_a_greeting(socket)) {
			if (socket->n_part < GREETING_BYTES)
				break;
			send_data(socket, part, GREETING_BYTES, 0);
			socket->n_part -= GREETING_BYTES;
			memmove(socket->part, part + GREETING_BYTES, socket->n_part);
			continue;
		}
		if (!is_a_frame(socket))
			socket->raw = true;
		if (socket->raw || socket->n_part < WIRE_HEADER_BYTES)
			break;
		n = WIRE_HEADER_BYTES + ((size_t)part[4] << 24 | (size_t)part[5] << 16 |
					 (size_t)part[6] << 8 | part[7]);
		if (n > MAX_FRAME_BYTES)
			socket->raw = true;
		if (socket->raw || socket->n_part < n)
			break;
		send_frame(socket, n);
	}
	if (socket->raw && socket->n_part) {
		send_data(socket, socket->part, socket->n_part, 0);
		socket->n_part = 0;
	}
}

static struct socket *connected_socket(int fd)
{
	struct file *file = file_of(fd);

	return file && file->type == FILE_SOCKET ? file->socket : NULL;
}

ssize_t __wrap_send(int fd, const void *data, size_t n, int flags)
{
	struct socket *socket = connected_socket(fd);
	int failure = call_fails("send", ECONNRESET);

	(void)flags;
	if (!socket)
		return fail(ENOTSOCK);
	task_point();
	pass_point("send");
	if (failure)
		return fail(failure);
	if (socket->error)
		return fail(socket->error);
	if (!socket->connected || socket->shut_wr)
		return fail(EPIPE);
	if (!room(socket))
		return fail(EAGAIN);
	if (n > room(socket))
		n = room(socket);
	if (n > 1 && one_in(16))
		n = 1 + random_below(n - 1);
	socket->part = __real_realloc(socket->part, socket->n_part + n + 1);
	if (!socket->part)
		abort();
	if (n)
		memcpy(socket->part + socket->n_part, data, n);
	socket->n_part += n;
	send_frames(socket);
	pass_point("send");
	return (ssize_t)n;
}

ssize_t __wrap_recv(int fd, void *data, size_t n, int flags)
{
	struct socket *socket = connected_socket(fd);
	int failure = call_fails("recv", ECONNRESET);

	if (!socket)
		return fail(ENOTSOCK);
	task_point();
	pass_point("receive");
	if (failure)
		return fail(failure);
	if (!socket->n_received) {
		if (socket->error)
			return fail(socket->error);
		if (socket->fin_received || socket->shut_rd || !socket->connected)
			return 0;
		return fail(EAGAIN);
	}
	if (n > socket->n_received)
		n = socket->n_received;
	if (n > 1 && one_in(16))
		n = 1 + random_below(n - 1);
	memcpy(data, socket->received, n);
	if (flags & MSG_PEEK)
		return (ssize_t)n;
	memmove(socket->received, socket->received + n, socket->n_received - n);
	socket->n_received -= n;
	if (socket->peer)
		changed(socket->peer);
	return (ssize_t)n;
}

static void send_fin(struct socket *socket)
{
	if (!socket->connected || socket->fin_sent)
		return;
	socket->fin_sent = true;
	if (socket->n_part) {
		send_data(socket, socket->part, socket->n_part, 0);
		socket->n_part = 0;
	}
	transmit(socket, socket->peer, SEGMENT_FIN, NULL, 0, 0);
}

int __wrap_shutdown(int fd, int how)
{
	struct socket *socket = connected_socket(fd);

	if (!socket)
		return fail(ENOTSOCK);
	task_point();
	if (!socket->connected)
		return fail(ENOTCONN);
	if (how != SHUT_RD) {
		socket->shut_wr = true;
		send_fin(socket);
	}
	if (how != SHUT_WR)
		socket->shut_rd = true;
	changed(socket);
	return 0;
}

static void close_listener(struct socket *socket)
{
	struct socket **link = &socket->host->listeners;

	while (*link && *link != socket)
		link = &(*link)->next_listener;
	if (*link)
		*link = socket->next_listener;
	for (unsigned i = 0; i < socket->n_backlog; i++) {
		struct socket *waiting = socket->backlog[i];

		transmit(waiting, waiting->peer, SEGMENT_RESET, NULL, 0, 0);
		waiting->connected = false;
	}
	socket->listening = false;
}

/* With bytes that nobody has read the kernel sends a reset, else what was sent arrives before the
 * end. */
void socket_close(struct socket *socket)
{
	socket->process = NULL;
	if (!socket->host->up)
		return;
	if (socket->listening)
		close_listener(socket);
	else if (socket->connected && socket->n_received)
		transmit(socket, socket->peer, SEGMENT_RESET, NULL, 0, 0);
	else if (socket->connected)
		send_fin(socket);
	socket->connected = false;
	socket->connecting = false;
}

int __wrap_socket(int family, int type, int protocol)
{
	int fd, failure = call_fails("socket", EMFILE);
	struct file *file;

	(void)protocol;
	if (failure)
		return fail(failure);
	if (family != AF_INET || !(type & SOCK_NONBLOCK))
		violated("a socket is made that is not simulated");
	file = file_new(FILE_SOCKET, &fd);
	if (!file)
		return -1;
	file->nonblocking = true;
	file->socket = socket_new(world.current->process->host);
	file->socket->process = world.current->process;
	return fd;
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t length)
{
	struct socket *socket = connected_socket(fd);
	int failure = call_fails("bind", EADDRINUSE);

	if (!socket || length < sizeof(socket->local))
		return fail(EINVAL);
	if (failure)
		return fail(failure);
	socket->local.sin_port = ((const struct sockaddr_in *)address)->sin_port;
	if (!socket->local.sin_port)
		socket->local.sin_port = htons(++last_port);
	return find_listener(socket->host, socket->local.sin_port) ? fail(EADDRINUSE) : 0;
}

int __wrap_listen(int fd, int backlog)
{
	struct socket *socket = connected_socket(fd);
	int failure = call_fails("listen", EADDRINUSE);

	(void)backlog;
	if (!socket)
		return fail(ENOTSOCK);
	if (failure)
		return fail(failure);
	socket->listening = true;
	socket->next_listener = socket->host->listeners;
	socket->host->listeners = socket;
	return 0;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length)
{
	struct socket *socket = connected_socket(fd);
	int failure = call_fails("connect", EHOSTUNREACH);
	struct host *host;

	if (!socket || length < sizeof(socket->remote))
		return fail(EINVAL);
	task_point();
	pass_point("connect");
	if (failure)
		return fail(failure);
	memcpy(&socket->remote, address, sizeof(socket->remote));
	socket->local.sin_port = htons(++last_port);
	socket->connecting = true;
	host = host_of(socket->remote.sin_addr);
	if (!host)
		return fail(EHOSTUNREACH);
	if (*partition_between(socket->host, host) != NEVER_NS) {
		uint64_t open_ns = *partition_between(socket->host, host);

		transmit(socket, socket, SEGMENT_CONNECT, NULL, 0,
			 open_ns > world.now_ns ? open_ns - world.now_ns : 0);
	}
	return fail(EINPROGRESS);
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	struct socket *listener = connected_socket(fd);
	int new_fd, failure = call_fails("accept4", EMFILE);
	struct file *file;

	(void)flags;
	if (!listener || !listener->listening)
		return fail(EINVAL);
	task_point();
	if (failure)
		return fail(failure);
	if (!listener->n_backlog)
		return fail(EAGAIN);
	file = file_new(FILE_SOCKET, &new_fd);
	if (!file)
		return -1;
	file->nonblocking = true;
	file->socket = listener->backlog[0];
	memmove(&listener->backlog[0], &listener->backlog[1],
		--listener->n_backlog * sizeof(listener->backlog[0]));
	file->socket->process = world.current->process;
	if (address && *length >= sizeof(file->socket->remote)) {
		memcpy(address, &file->socket->remote, sizeof(file->socket->remote));
		*length = sizeof(file->socket->remote);
	}
	return new_fd;
}

static int give_address(const struct sockaddr_in *from, struct sockaddr *address, socklen_t *length)
{
	if (*length < sizeof(*from))
		return fail(EINVAL);
	memcpy(address, from, sizeof(*from));
	*length = sizeof(*from);
	return 0;
}

int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
	struct socket *socket = connected_socket(fd);
	int failure = call_fails("getsockname", ENOBUFS);

	if (!socket || failure)
		return fail(failure ? failure : ENOTSOCK);
	return give_address(&socket->local, address, length);
}

int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
	struct socket *socket = connected_socket(fd);
	int failure = call_fails("getpeername", ENOTCONN);

	if (!socket || failure)
		return fail(failure ? failure : ENOTSOCK);
	if (!socket->connected)
		return fail(ENOTCONN);
	return give_address(&socket->remote, address, length);
}

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	int failure = call_fails("setsockopt", ENOPROTOOPT);

	(void)level;
	(void)option;
	(void)value;
	(void)length;
	if (!connected_socket(fd))
		return fail(ENOTSOCK);
	return failure ? fail(failure) : 0;
}

int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
	struct socket *socket = connected_socket(fd);
	int failure = call_fails("getsockopt", ENOBUFS);
	int error;

	(void)level;
	if (!socket)
		return fail(ENOTSOCK);
	if (failure)
		return fail(failure);
	error = option == SO_ERROR ? socket->error : 0;
	memcpy(value, &error, *length < sizeof(error) ? *length : sizeof(error));
	return 0;
}
