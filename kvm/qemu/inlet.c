/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/inlet.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/error.h"
#include "kvm/qemu/inlet_private.h"
#include "kvm/qemu/socket_owner.h"

#define LEAST_WINDOW_BYTES (2u << 20)
#define ROOM_POLL_NS	   (1 * NS_PER_MS)
#define WAKE_BYTES	   (1u << 20) /* worth waking the lanes before the next tick does */
/* Of each connection: what waits there is invisible to QEMU's own measuring. */
#define RECEIVE_BUFFER_BYTES (1 << 20)

static void signal_fd(int fd)
{
	uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n; /* cannot fail but by overflow, and then it is readable anyway */
}

int inlet_open(uint16_t port, struct inlet **result, struct ramlift_error *error)
{
	struct inlet *inlet = calloc(1, sizeof(*inlet));
	struct address address;
	int bytes = RECEIVE_BUFFER_BYTES;
	int ret;

	if (!inlet)
		return error_set(error, -ENOMEM, "no memory for QEMU's connections");
	ret = address_parse("127.0.0.1:1", 1, &address, error);
	if (ret)
		goto free_inlet;
	address_set_port(&address, port);
	ret = address_listen(&address, &inlet->listen_fd, error);
	if (ret)
		goto free_inlet;
	/* Connections inherit it. Without the right to exceed the host's limit it is that limit. */
	if (setsockopt(inlet->listen_fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)))
		setsockopt(inlet->listen_fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	ret = address_of_socket(inlet->listen_fd, &address);
	if (!ret) {
		inlet->stop_fd = eventfd(0, EFD_CLOEXEC);
		ret = inlet->stop_fd < 0 ? -errno : 0;
	}
	if (ret) {
		error_set(error, ret, "cannot listen for QEMU: %s", strerror(-ret));
		goto close_listener;
	}
	inlet->port = address_port(&address);
	inlet->peeked_fd = -1;
	inlet->window_bytes = LEAST_WINDOW_BYTES;
	pthread_mutex_init(&inlet->lock, NULL);
	clock_cond_init(&inlet->changed);
	*result = inlet;
	return 0;

close_listener:
	close(inlet->listen_fd);
free_inlet:
	free(inlet);
	return ret;
}

uint16_t inlet_port(const struct inlet *inlet)
{
	return inlet->port;
}

void inlet_fail(struct inlet *inlet, const struct ramlift_error *error)
{
	pthread_mutex_lock(&inlet->lock);
	if (!inlet->error.code && !inlet->stopping)
		inlet->error = *error;
	pthread_cond_broadcast(&inlet->changed);
	pthread_mutex_unlock(&inlet->lock);
	source_hasten(inlet->source);
}

/* A connection that has ended too early says so only now: which synchronisation is the last one,
 * the main channel's end tells. Under the lock. */
static void check_ends(struct inlet *inlet)
{
	if (!inlet->ram_ended || inlet->error.code)
		return;
	for (unsigned i = 1; i < inlet->n_connections; i++) {
		struct inlet_connection *connection = &inlet->connections[i];

		if (atomic_load(&connection->ended) &&
		    atomic_load(&connection->syncs) < inlet->expected_syncs)
			error_set(&inlet->error, -ECONNRESET,
				  "QEMU ended its multifd connection %u before its last pages: see "
				  "its log",
				  i);
	}
}

int inlet_check(struct inlet *inlet, struct ramlift_error *error)
{
	int ret;

	pthread_mutex_lock(&inlet->lock);
	check_ends(inlet);
	ret = inlet->error.code;
	if (ret && error)
		*error = inlet->error;
	pthread_mutex_unlock(&inlet->lock);
	return ret;
}

/* Is that connection QEMU's? Another user of this host could have come first. */
static bool is_qemu(struct inlet *inlet, int fd)
{
	struct address here, there;

	if (address_of_socket(fd, &here) || address_of_peer(fd, &there))
		return false;
	return socket_is_of(inlet->pid, (struct sockaddr *)&there.socket,
			    (struct sockaddr *)&here.socket);
}

/* The connection's thread starts at once. */
static int add_connection(struct inlet *inlet, int fd, struct ramlift_error *error)
{
	struct inlet_connection *connection;
	int ret = -EMFILE;

	pthread_mutex_lock(&inlet->lock);
	connection = &inlet->connections[inlet->n_connections];
	if (inlet->n_connections < WIRE_MAX_STREAMS) {
		*connection = (struct inlet_connection){
			.inlet = inlet,
			.stream = inlet->n_connections,
			.fd = fd,
		};
		ret = -pthread_create(&connection->thread, NULL,
				      connection->stream ? inlet_multifd_run : inlet_main_run,
				      connection);
	}
	if (!ret)
		inlet->n_connections++;
	pthread_mutex_unlock(&inlet->lock);
	if (ret) {
		close(fd);
		return error_set(error, ret, "cannot take QEMU's connection: %s", strerror(-ret));
	}
	return 0;
}

/*
 * Take one connection, if it is QEMU's. While `taking` is set, inlet_complete() knows that one may
 * be between the kernel's queue and the table.
 */
static int take_connection(struct inlet *inlet, struct ramlift_error *error)
{
	int ret = 0;
	int fd;

	atomic_store(&inlet->taking, true);
	fd = accept4(inlet->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0 && !is_qemu(inlet, fd))
		close(fd);
	else if (fd >= 0)
		ret = add_connection(inlet, fd, error);
	else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		ret = error_set(error, -errno, "cannot take QEMU's connections: %s",
				strerror(errno));
	atomic_store(&inlet->taking, false);
	return ret;
}

static void *acceptor_run(void *argument)
{
	struct inlet *inlet = argument;
	struct ramlift_error error = { 0 };

	for (;;) {
		int ret = wait_for_fd(inlet->listen_fd, POLLIN, UINT64_MAX, inlet->stop_fd);

		if (ret == -ECANCELED)
			return NULL;
		if (take_connection(inlet, &error)) {
			inlet_fail(inlet, &error);
			return NULL;
		}
	}
}

int inlet_start(struct inlet *inlet, pid_t pid, struct ramlift_source *source,
		inlet_region_of *region_of, void *context, struct ramlift_error *error)
{
	int ret;

	inlet->pid = pid;
	inlet->source = source;
	inlet->region_of = region_of;
	inlet->context = context;
	if (inlet->peeked_fd >= 0) {
		ret = add_connection(inlet, inlet->peeked_fd, error);
		inlet->peeked_fd = -1;
		if (ret)
			return ret;
	}
	ret = -pthread_create(&inlet->acceptor, NULL, acceptor_run, inlet);
	if (ret) {
		inlet_stop(inlet);
		return error_set(error, ret, "cannot start a thread: %s", strerror(-ret));
	}
	inlet->accepting = true;
	return 0;
}

void inlet_set_window(struct inlet *inlet, uint64_t bytes)
{
	atomic_store(&inlet->window_bytes, bytes > LEAST_WINDOW_BYTES ? bytes : LEAST_WINDOW_BYTES);
}

void inlet_named(struct inlet_connection *connection, uint64_t n_pages)
{
	connection->unwoken_bytes += n_pages * RAMLIFT_PAGE_BYTES;
	if (connection->unwoken_bytes >= WAKE_BYTES)
		inlet_wake_lanes(connection);
}

void inlet_wake_lanes(struct inlet_connection *connection)
{
	if (connection->unwoken_bytes)
		source_wake_lanes(connection->inlet->source);
	connection->unwoken_bytes = 0;
}

/* By looking again and again: lanes tell nobody of what completes, and this is no hot path. */
int inlet_await_room(struct inlet_connection *connection)
{
	struct inlet *inlet = connection->inlet;
	int ret = 0;

	if (source_backlog_bytes(inlet->source) <= atomic_load(&inlet->window_bytes))
		return 0;
	inlet_wake_lanes(connection);
	pthread_mutex_lock(&inlet->lock);
	while (!inlet->stopping &&
	       source_backlog_bytes(inlet->source) > atomic_load(&inlet->window_bytes))
		clock_wait(&inlet->changed, &inlet->lock, clock_now_ns() + ROOM_POLL_NS);
	ret = inlet->stopping ? -ECANCELED : 0;
	pthread_mutex_unlock(&inlet->lock);
	return ret;
}

int inlet_pass(struct inlet_connection *connection, const void *bytes, size_t n_bytes,
	       struct ramlift_error *error)
{
	const char *next = bytes;
	int ret = 0;

	while (!ret && n_bytes) {
		size_t n = n_bytes < WIRE_MAX_STREAM_BYTES ? n_bytes : WIRE_MAX_STREAM_BYTES;

		ret = source_send_piece(connection->inlet->source, connection->stream, next, n,
					error);
		next += n;
		n_bytes -= n;
	}
	return ret;
}

int inlet_write(struct inlet *inlet, const void *bytes, size_t n_bytes, struct ramlift_error *error)
{
	int fd, ret;

	pthread_mutex_lock(&inlet->lock);
	fd = inlet->n_connections ? inlet->connections[0].fd : -1;
	pthread_mutex_unlock(&inlet->lock);
	if (fd < 0)
		return error_set(error, -EPROTO,
				 "the destination's QEMU speaks before the source's");
	if (!n_bytes) {
		shutdown(fd, SHUT_WR);
		return 0;
	}
	ret = send_all(fd, bytes, n_bytes, clock_now_ns() + NS_PER_S, inlet->stop_fd);
	/* A QEMU that has finished closes its end; what is said after that is of no interest. */
	if (ret && ret != -EPIPE && ret != -ECONNRESET)
		return error_set(error, ret, "QEMU does not read its return path: %s",
				 strerror(-ret));
	return 0;
}

/* Connections that have not been taken yet count as unread. Under the lock. */
static bool all_read(struct inlet *inlet)
{
	/* In this order: what leaves the kernel's queue is being taken by then, or in the table. */
	if (!inlet->ram_ended || !wait_for_fd(inlet->listen_fd, POLLIN, 0, -1) ||
	    atomic_load(&inlet->taking))
		return false;
	for (unsigned i = 1; i < inlet->n_connections; i++) {
		if (atomic_load(&inlet->connections[i].syncs) < inlet->expected_syncs)
			return false;
	}
	return true;
}

bool inlet_complete(struct inlet *inlet, uint64_t *since_ns)
{
	bool complete;

	pthread_mutex_lock(&inlet->lock);
	complete = all_read(inlet);
	if (complete)
		*since_ns = inlet->ram_end_ns;
	pthread_mutex_unlock(&inlet->lock);
	return complete;
}

void inlet_release(struct inlet *inlet)
{
	pthread_mutex_lock(&inlet->lock);
	inlet->released = true;
	pthread_cond_broadcast(&inlet->changed);
	pthread_mutex_unlock(&inlet->lock);
}

bool inlet_ended(struct inlet *inlet)
{
	bool ended;

	pthread_mutex_lock(&inlet->lock);
	ended = inlet->main_ended;
	pthread_mutex_unlock(&inlet->lock);
	return ended;
}

void inlet_stop(struct inlet *inlet)
{
	pthread_mutex_lock(&inlet->lock);
	inlet->stopping = true;
	pthread_cond_broadcast(&inlet->changed);
	pthread_mutex_unlock(&inlet->lock);
	signal_fd(inlet->stop_fd);
	if (inlet->accepting)
		pthread_join(inlet->acceptor, NULL);
	inlet->accepting = false;
	for (unsigned i = 0; i < inlet->n_connections; i++) {
		pthread_join(inlet->connections[i].thread, NULL);
		close(inlet->connections[i].fd);
	}
	inlet->n_connections = 0;
	qemu_stream_free(inlet->stream);
	inlet->stream = NULL;
	inlet->blocks = NULL;
}

void inlet_close(struct inlet *inlet)
{
	if (!inlet)
		return;
	inlet_stop(inlet);
	if (inlet->peeked_fd >= 0)
		close(inlet->peeked_fd);
	close(inlet->listen_fd);
	close(inlet->stop_fd);
	pthread_cond_destroy(&inlet->changed);
	pthread_mutex_destroy(&inlet->lock);
	free(inlet);
}
