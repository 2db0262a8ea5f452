/* SPDX-License-Identifier: Apache-2.0 */
#include "core/address.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"

static void describe(struct address *address)
{
	char host[64], port[8];

	if (getnameinfo((struct sockaddr *)&address->socket, address->length, host, sizeof(host),
			port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV)) {
		snprintf(address->text, sizeof(address->text), "unknown address");
		return;
	}
	snprintf(address->text, sizeof(address->text),
		 address->socket.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* Split at the last colon; brackets around the host go. */
static bool split(const char *text, char *host, size_t host_size, char *port, size_t port_size)
{
	const char *colon = strrchr(text, ':');
	size_t length;

	if (!colon || !colon[1] || strlen(colon + 1) >= port_size)
		return false;
	length = (size_t)(colon - text);
	if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
		text++;
		length -= 2;
	} else if (memchr(text, ':', length)) {
		return false;
	}
	if (length >= host_size)
		return false;
	memcpy(host, text, length);
	host[length] = '\0';
	strcpy(port, colon + 1);
	return strspn(port, "0123456789") == strlen(port);
}

int address_parse(const char *text, int passive, struct address *address,
		  struct ramlift_error *error)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM,
		.ai_flags = (passive ? AI_PASSIVE : 0) | AI_NUMERICSERV,
	};
	struct addrinfo *found;
	char host[256], port[8];
	int ret;

	if (!split(text, host, sizeof(host), port, sizeof(port)) || (!passive && !host[0]) ||
	    strtol(port, NULL, 10) > 65535)
		return error_set(error, -EINVAL,
				 "\"%s\" is not an address: write it as host:port or [v6]:port",
				 text);
	ret = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
	if (ret)
		return error_set(error, -EHOSTUNREACH, "cannot resolve \"%s\": %s", host,
				 gai_strerror(ret));
	memset(address, 0, sizeof(*address));
	memcpy(&address->socket, found->ai_addr, found->ai_addrlen);
	address->length = found->ai_addrlen;
	freeaddrinfo(found);
	describe(address);
	return 0;
}

void address_host(const char *text, char *host, size_t size)
{
	char port[8];

	host[0] = '\0';
	split(text, host, size, port, sizeof(port));
}

void address_set_port(struct address *address, uint16_t port)
{
	if (address->socket.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&address->socket)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&address->socket)->sin_port = htons(port);
	describe(address);
}

uint16_t address_port(const struct address *address)
{
	if (address->socket.ss_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)&address->socket)->sin6_port);
	return ntohs(((const struct sockaddr_in *)&address->socket)->sin_port);
}

/* An IPv4 peer of an IPv6 socket is an IPv4 peer: RDMA devices know no mapped addresses. */
static void unmap_v4(struct address *address)
{
	struct sockaddr_in6 v6;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&address->socket;

	memcpy(&v6, &address->socket, sizeof(v6));
	if (v6.sin6_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
		return;
	memset(&address->socket, 0, sizeof(address->socket));
	v4->sin_family = AF_INET;
	v4->sin_port = v6.sin6_port;
	memcpy(&v4->sin_addr, &v6.sin6_addr.s6_addr[12], sizeof(v4->sin_addr));
	address->length = sizeof(*v4);
}

static int get_name(int fd, struct address *address,
		    int (*name_of)(int, struct sockaddr *, socklen_t *))
{
	memset(address, 0, sizeof(*address));
	address->length = sizeof(address->socket);
	if (name_of(fd, (struct sockaddr *)&address->socket, &address->length))
		return -errno;
	unmap_v4(address);
	describe(address);
	return 0;
}

int address_of_socket(int fd, struct address *address)
{
	return get_name(fd, address, getsockname);
}

int address_of_peer(int fd, struct address *address)
{
	return get_name(fd, address, getpeername);
}

int wait_for_fd(int fd, short events, uint64_t deadline_ns, int interrupt_fd)
{
	struct pollfd fds[2] = {
		{ .fd = fd, .events = events },
		{ .fd = interrupt_fd, .events = POLLIN }, /* poll() passes over -1 */
	};

	for (;;) {
		int left_ms = clock_left_ms(deadline_ns);
		int n = poll(fds, 2, left_ms);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && fds[1].revents)
			return -ECANCELED;
		if (n > 0 && fds[0].revents)
			return 0;
		if (!left_ms)
			return -ETIMEDOUT;
	}
}

static int finish_connect(int fd, uint64_t deadline_ns, int interrupt_fd)
{
	int status = 0;
	socklen_t length = sizeof(status);
	int ret;

	ret = wait_for_fd(fd, POLLOUT, deadline_ns, interrupt_fd);
	if (ret)
		return ret;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &status, &length))
		return -errno;
	return -status;
}

int address_connect(const struct address *address, uint64_t deadline_ns, int interrupt_fd, int *fd,
		    struct ramlift_error *error)
{
	int ret, new_fd;

	new_fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (new_fd < 0)
		return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
	ret = connect(new_fd, (const struct sockaddr *)&address->socket, address->length) ? -errno
											  : 0;
	if (ret == -EINPROGRESS)
		ret = finish_connect(new_fd, deadline_ns, interrupt_fd);
	if (ret) {
		close(new_fd);
		return error_set(error, ret, "cannot connect to %s: %s", address->text,
				 ret == -ETIMEDOUT ? "no answer in time" : strerror(-ret));
	}
	*fd = new_fd;
	return 0;
}

int address_listen(const struct address *address, int *fd, struct ramlift_error *error)
{
	int one = 1;
	int ret, new_fd;

	new_fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (new_fd < 0)
		return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
	setsockopt(new_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(new_fd, (const struct sockaddr *)&address->socket, address->length) ||
	    listen(new_fd, 128)) {
		ret = -errno;
		close(new_fd);
		return error_set(error, ret, "cannot listen at %s: %s", address->text,
				 strerror(-ret));
	}
	*fd = new_fd;
	return 0;
}

static int not_now(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

int send_all(int fd, const void *data, size_t n, uint64_t deadline_ns, int interrupt_fd)
{
	const char *from = data;

	while (n) {
		ssize_t sent = send(fd, from, n, MSG_NOSIGNAL);
		int ret;

		if (sent < 0 && !not_now())
			return -errno;
		if (sent > 0) {
			from += sent;
			n -= (size_t)sent;
			continue;
		}
		ret = wait_for_fd(fd, POLLOUT, deadline_ns, interrupt_fd);
		if (ret)
			return ret;
	}
	return 0;
}

int receive_all(int fd, void *data, size_t n, uint64_t deadline_ns, int interrupt_fd)
{
	char *to = data;

	while (n) {
		ssize_t received = recv(fd, to, n, 0);
		int ret;

		if (!received)
			return -ECONNRESET;
		if (received < 0 && !not_now())
			return -errno;
		if (received > 0) {
			to += received;
			n -= (size_t)received;
			continue;
		}
		ret = wait_for_fd(fd, POLLIN, deadline_ns, interrupt_fd);
		if (ret)
			return ret;
	}
	return 0;
}
