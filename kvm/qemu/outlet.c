/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/outlet.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/carried.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/ramlift.h"
#include "core/wire.h"

#define READ_BYTES (16u << 10)
#define LAST_NS	   (2 * NS_PER_S) /* for QEMU to take what is left */

/* Bytes that wait; n_bytes 0: the stream ends here. */
struct piece {
	struct piece *next;
	size_t n_bytes, n_written;
	char bytes[];
};

struct connection {
	int fd; /* -1: not connected yet, or ended */
	bool opened;
	struct piece *first, **last;
};

struct outlet {
	struct sockaddr_storage address;
	socklen_t address_bytes;
	struct ramlift_destination *destination;
	int wake_fd;
	pthread_t thread;

	pthread_mutex_t lock; /* of the below */
	struct connection connections[WIRE_MAX_STREAMS];
	size_t waiting_bytes;
	uint64_t close_by_ns; /* 0: not closing */
	struct ramlift_error error;
};

static void wake(struct outlet *outlet)
{
	uint64_t one = 1;
	ssize_t n = write(outlet->wake_fd, &one, sizeof(one));

	(void)n; /* cannot fail but by overflow, and then it is readable anyway */
}

static int fail(struct outlet *outlet, int ret, const char *what)
{
	return error_set(&outlet->error, ret, "%s the destination's QEMU: %s; its own log says why",
			 what, strerror(-ret));
}

/*
 * The main connection comes first: QEMU before 8.0 tells them apart by their order. Others wait
 * until it has something to say. Under the lock.
 */
static int connect_those_due(struct outlet *outlet)
{
	for (unsigned i = 0; i < WIRE_MAX_STREAMS; i++) {
		struct connection *connection = &outlet->connections[i];

		if (connection->opened || !connection->first)
			continue;
		if (i && !outlet->connections[0].opened)
			return 0;
		connection->fd = socket(outlet->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connection->fd < 0)
			return fail(outlet, -errno, "cannot make a socket for");
		connection->opened = true;
		/* On the same host, to a listener that is there: no wait to speak of. */
		if (connect(connection->fd, (struct sockaddr *)&outlet->address,
			    outlet->address_bytes))
			return fail(outlet, -errno, "cannot connect to");
	}
	return 0;
}

/* As much as QEMU takes now. Under the lock. */
static int write_stream(struct outlet *outlet, struct connection *connection)
{
	struct piece *piece;

	while ((piece = connection->first)) {
		size_t left = piece->n_bytes - piece->n_written;
		ssize_t n = 0;

		if (connection->fd < 0 && left)
			return fail(outlet, -EPIPE, "cannot write to");
		if (left)
			n = send(connection->fd, piece->bytes + piece->n_written, left,
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		else
			shutdown(connection->fd, SHUT_WR);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n < 0)
			return fail(outlet, -errno, "cannot write to");
		piece->n_written += (size_t)n;
		outlet->waiting_bytes -= (size_t)n;
		if ((size_t)n < left)
			continue;
		outlet->waiting_bytes -= sizeof(*piece);
		connection->first = piece->next;
		if (!connection->first)
			connection->last = &connection->first;
		free(piece);
	}
	return 0;
}

/* The return path, and the connection's end. Without the lock, for sending may wait. */
static int read_stream(struct outlet *outlet, unsigned stream, struct ramlift_error *error)
{
	struct connection *connection = &outlet->connections[stream];
	char bytes[READ_BYTES];
	ssize_t n = recv(connection->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) { /* that it broke, the next write will say */
		close(connection->fd);
		connection->fd = -1;
		n = 0;
	}
	if (stream)
		return 0;
	return destination_send_piece(outlet->destination, 0, bytes, (size_t)n, error);
}

static void drop_pieces(struct outlet *outlet, struct connection *connection)
{
	struct piece *piece;

	while ((piece = connection->first)) {
		connection->first = piece->next;
		outlet->waiting_bytes -= sizeof(*piece) + piece->n_bytes - piece->n_written;
		free(piece);
	}
	connection->last = &connection->first;
}

/* One turn under the lock: connect, write, and say what to wait for. -ECANCELED: the end. */
static int write_streams(struct outlet *outlet, struct pollfd *fds)
{
	bool left = false;
	int ret;

	ret = connect_those_due(outlet);
	for (unsigned i = 0; !ret && i < WIRE_MAX_STREAMS; i++) {
		struct connection *connection = &outlet->connections[i];

		if (connection->opened)
			ret = write_stream(outlet, connection);
		fds[i].fd = connection->fd;
		fds[i].events = (short)(POLLIN | (connection->first ? POLLOUT : 0));
		left = left || connection->first;
	}
	if (ret)
		return ret;
	return outlet->close_by_ns && (!left || clock_now_ns() > outlet->close_by_ns) ? -ECANCELED
										      : 0;
}

static int turn(struct outlet *outlet, struct ramlift_error *error)
{
	struct pollfd fds[WIRE_MAX_STREAMS + 1];
	uint64_t deadline_ns, count;
	ssize_t n;
	int ret;

	pthread_mutex_lock(&outlet->lock);
	ret = write_streams(outlet, fds);
	deadline_ns = outlet->close_by_ns ? outlet->close_by_ns : UINT64_MAX;
	pthread_mutex_unlock(&outlet->lock);
	if (ret)
		return ret;
	fds[WIRE_MAX_STREAMS] = (struct pollfd){ .fd = outlet->wake_fd, .events = POLLIN };
	poll(fds, WIRE_MAX_STREAMS + 1, clock_left_ms(deadline_ns));
	if (fds[WIRE_MAX_STREAMS].revents) {
		n = read(outlet->wake_fd, &count, sizeof(count));
		(void)n;
	}
	for (unsigned i = 0; !ret && i < WIRE_MAX_STREAMS; i++) {
		if (fds[i].fd >= 0 && fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			ret = read_stream(outlet, i, error);
	}
	return ret;
}

static void *outlet_run(void *argument)
{
	struct outlet *outlet = argument;
	struct ramlift_error error = { 0 };
	int ret;

	do {
		ret = turn(outlet, &error);
	} while (!ret);
	pthread_mutex_lock(&outlet->lock);
	if (ret != -ECANCELED && !outlet->error.code)
		outlet->error = error;
	pthread_mutex_unlock(&outlet->lock);
	return NULL;
}

int outlet_open(const struct sockaddr *address, socklen_t address_bytes,
		struct ramlift_destination *destination, struct outlet **result,
		struct ramlift_error *error)
{
	struct outlet *outlet = calloc(1, sizeof(*outlet));
	int ret;

	if (!outlet)
		return error_set(error, -ENOMEM, "no memory for QEMU's connections");
	memcpy(&outlet->address, address, address_bytes);
	outlet->address_bytes = address_bytes;
	outlet->destination = destination;
	for (unsigned i = 0; i < WIRE_MAX_STREAMS; i++) {
		outlet->connections[i].fd = -1;
		outlet->connections[i].last = &outlet->connections[i].first;
	}
	pthread_mutex_init(&outlet->lock, NULL);
	outlet->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = outlet->wake_fd < 0 ? -errno
				  : -pthread_create(&outlet->thread, NULL, outlet_run, outlet);
	if (!ret) {
		*result = outlet;
		return 0;
	}
	if (outlet->wake_fd >= 0)
		close(outlet->wake_fd);
	free(outlet);
	return error_set(error, ret, "cannot speak to QEMU: %s", strerror(-ret));
}

int outlet_write(struct outlet *outlet, unsigned stream, const void *bytes, size_t n_bytes,
		 struct ramlift_error *error)
{
	struct connection *connection = &outlet->connections[stream];
	struct piece *piece = malloc(sizeof(*piece) + n_bytes);
	int ret;

	if (!piece)
		return error_set(error, -ENOMEM, "no memory for QEMU's stream");
	*piece = (struct piece){ .n_bytes = n_bytes };
	if (n_bytes)
		memcpy(piece->bytes, bytes, n_bytes);
	pthread_mutex_lock(&outlet->lock);
	ret = outlet->error.code;
	if (ret && error)
		*error = outlet->error;
	if (!ret && outlet->waiting_bytes + sizeof(*piece) + n_bytes > OUTLET_MAX_BYTES)
		ret = error_set(error, -ENOBUFS,
				"the destination's QEMU does not read its stream: see its log");
	if (!ret) {
		*connection->last = piece;
		connection->last = &piece->next;
		outlet->waiting_bytes += sizeof(*piece) + n_bytes;
	}
	pthread_mutex_unlock(&outlet->lock);
	if (ret)
		free(piece);
	else
		wake(outlet);
	return ret;
}

void outlet_close(struct outlet *outlet)
{
	if (!outlet)
		return;
	pthread_mutex_lock(&outlet->lock);
	outlet->close_by_ns = clock_now_ns() + LAST_NS;
	pthread_mutex_unlock(&outlet->lock);
	wake(outlet);
	pthread_join(outlet->thread, NULL);
	for (unsigned i = 0; i < WIRE_MAX_STREAMS; i++) {
		drop_pieces(outlet, &outlet->connections[i]);
		if (outlet->connections[i].fd >= 0)
			close(outlet->connections[i].fd);
	}
	close(outlet->wake_fd);
	pthread_mutex_destroy(&outlet->lock);
	free(outlet);
}
