/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's calls for sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "network.h"
#include "real.h"

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

static int fail(int number)
{
	errno = number;
	return -1;
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
	if (socket->connected && socket_room(socket))
		events |= POLLOUT;
	return events;
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
	if (!socket_room(socket))
		return fail(EAGAIN);
	if (n > socket_room(socket))
		n = socket_room(socket);
	if (n > 1 && one_in(16))
		n = 1 + random_below(n - 1);
	socket->part = __real_realloc(socket->part, socket->n_part + n + 1);
	if (!socket->part)
		abort();
	if (n)
		memcpy(socket->part + socket->n_part, data, n);
	socket->n_part += n;
	frames_send(socket);
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
		socket_changed(socket->peer);
	return (ssize_t)n;
}

static void send_fin(struct socket *socket)
{
	if (!socket->connected || socket->fin_sent)
		return;
	socket->fin_sent = true;
	if (socket->n_part) {
		send_bytes(socket, socket->part, socket->n_part, 0);
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
	socket_changed(socket);
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
		socket->local.sin_port = htons(network_free_port());
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
	socket->local.sin_port = htons(network_free_port());
	socket->connecting = true;
	host = host_of(socket->remote.sin_addr);
	if (!host)
		return fail(EHOSTUNREACH);
	if (network_open_ns(socket->host, host) != NEVER_NS) {
		uint64_t open_ns = network_open_ns(socket->host, host);

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
