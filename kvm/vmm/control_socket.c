/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serving side of a control socket.
 *
 * One thread polls; other threads only append to a client's output, under the lock, and wake it.
 * Slots of clients are filled and emptied by the polling thread alone, so it may read them without
 * the lock; what others see of them changes under it.
 */
#include "kvm/vmm/control_socket.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/control_bind.h"

struct client {
	int fd;
	uint64_t id; /* 0: the slot is free */
	bool held;   /* waits for an answer that comes later */
	bool ended;  /* takes no more requests; goes once its output is flushed */
	bool broken; /* to be dropped at once */
	struct ucred who;
	uint64_t idle_since_ns;
	char *input; /* CONTROL_MAX_LINE_BYTES */
	size_t input_bytes;
	char *output;
	size_t output_bytes;
};

struct control_server {
	struct control_config config;
	struct control_binding binding;
	int wake_fd;
	pthread_t thread;
	pthread_mutex_t lock; /* clients, closing */
	bool closing;
	uint64_t last_id;
	uint64_t accept_after_ns;
	struct client clients[CONTROL_MAX_CLIENTS];
};

static void wake(struct control_server *server)
{
	uint64_t one = 1;

	while (write(server->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static struct client *find_client(struct control_server *server, uint64_t id)
{
	for (unsigned i = 0; id && i < CONTROL_MAX_CLIENTS; i++) {
		if (server->clients[i].id == id)
			return &server->clients[i];
	}
	return NULL;
}

/* Append to the output; a client that lets it grow too large is dropped. The lock is held. */
static void queue(struct client *client, const char *line, size_t bytes)
{
	char *grown;

	if (client->broken)
		return;
	if (client->output_bytes + bytes > CONTROL_MAX_OUTPUT_BYTES) {
		client->broken = true;
		return;
	}
	grown = realloc(client->output, client->output_bytes + bytes);
	if (!grown) {
		client->broken = true;
		return;
	}
	client->output = grown;
	memcpy(grown + client->output_bytes, line, bytes);
	client->output_bytes += bytes;
}

static int send_message(struct control_server *server, uint64_t id, const json_t *message,
			bool lossy)
{
	char *line = json_dumps(message, JSON_COMPACT);
	size_t bytes = line ? strlen(line) : 0;
	struct client *client;
	int ret = 0;

	if (!line)
		return -ENOMEM;
	line[bytes++] = '\n'; /* in place of the final NUL */
	pthread_mutex_lock(&server->lock);
	client = find_client(server, id);
	if (!client || client->broken)
		ret = -ENOENT;
	else if (bytes > CONTROL_MAX_LINE_BYTES)
		ret = -EMSGSIZE;
	else if (!lossy || !client->output_bytes)
		queue(client, line, bytes);
	pthread_mutex_unlock(&server->lock);
	free(line);
	wake(server);
	return ret;
}

int control_server_send(struct control_server *server, uint64_t client, const json_t *message)
{
	return send_message(server, client, message, false);
}

void control_server_send_lossy(struct control_server *server, uint64_t client,
			       const json_t *message)
{
	send_message(server, client, message, true);
}

void control_server_hold(struct control_server *server, uint64_t id)
{
	struct client *client;

	pthread_mutex_lock(&server->lock);
	client = find_client(server, id);
	if (client)
		client->held = true;
	pthread_mutex_unlock(&server->lock);
}

bool control_server_who(struct control_server *server, uint64_t id, struct ucred *who)
{
	const struct client *client;

	pthread_mutex_lock(&server->lock);
	client = find_client(server, id);
	if (client)
		*who = client->who;
	pthread_mutex_unlock(&server->lock);
	return client;
}

static void refuse(struct control_server *server, struct client *client, const char *sentence)
{
	json_t *message = json_pack("{s:s, s:{s:i, s:s}}", "event", "refused", "error", "code",
				    -EPROTO, "message", sentence);

	if (message)
		send_message(server, client->id, message, false);
	json_decref(message);
	pthread_mutex_lock(&server->lock);
	client->ended = true;
	pthread_mutex_unlock(&server->lock);
}

/* Empty the slot. The lock is held. */
static void drop(struct client *client)
{
	close(client->fd);
	free(client->input);
	free(client->output);
	*client = (struct client){ .fd = -1 };
}

static void mark_broken(struct control_server *server, struct client *client)
{
	pthread_mutex_lock(&server->lock);
	client->broken = true;
	pthread_mutex_unlock(&server->lock);
}

static bool takes_requests(struct control_server *server, const struct client *client)
{
	bool takes;

	pthread_mutex_lock(&server->lock);
	takes = !client->ended && !client->broken;
	pthread_mutex_unlock(&server->lock);
	return takes;
}

static void take_line(struct control_server *server, struct client *client, const char *line,
		      size_t bytes)
{
	json_t *request = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, NULL);

	if (json_is_object(request))
		server->config.request(server->config.context, client->id, request);
	else
		refuse(server, client, "a request is one JSON object on one line");
	json_decref(request);
	client->idle_since_ns = clock_now_ns();
}

static void take_lines(struct control_server *server, struct client *client)
{
	char *from = client->input, *newline;
	size_t left = client->input_bytes;

	while (takes_requests(server, client) && (newline = memchr(from, '\n', left))) {
		take_line(server, client, from, (size_t)(newline - from));
		left -= (size_t)(newline + 1 - from);
		from = newline + 1;
	}
	memmove(client->input, from, left);
	client->input_bytes = left;
	if (left == CONTROL_MAX_LINE_BYTES && takes_requests(server, client))
		refuse(server, client, "a request is at most 64 KiB");
}

static void read_client(struct control_server *server, struct client *client)
{
	ssize_t got = recv(client->fd, client->input + client->input_bytes,
			   CONTROL_MAX_LINE_BYTES - client->input_bytes, MSG_DONTWAIT);

	if (got > 0) {
		client->input_bytes += (size_t)got;
		take_lines(server, client);
	} else if (!got) {
		/* It may have shut down its sending side only, and wait for an answer. */
		pthread_mutex_lock(&server->lock);
		client->ended = true;
		pthread_mutex_unlock(&server->lock);
	} else if (errno != EAGAIN && errno != EINTR) {
		mark_broken(server, client);
	}
}

static void write_client(struct control_server *server, struct client *client)
{
	ssize_t sent;

	pthread_mutex_lock(&server->lock);
	sent = send(client->fd, client->output, client->output_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent > 0) {
		client->output_bytes -= (size_t)sent;
		memmove(client->output, client->output + sent, client->output_bytes);
	} else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		client->broken = true;
	}
	pthread_mutex_unlock(&server->lock);
}

/* Too many, or another user: say so if the socket takes it at once. */
static void turn_away(int fd, const char *sentence)
{
	char line[256];
	int length =
		snprintf(line, sizeof(line),
			 "{\"event\":\"refused\",\"error\":{\"code\":%d,\"message\":\"%s\"}}\n",
			 -EBUSY, sentence);

	/* If not, it learns it from the end of the connection. */
	(void)send(fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

/* This process's user, and root. */
static bool is_trusted(int fd, struct ucred *who)
{
	socklen_t bytes = sizeof(*who);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, who, &bytes) &&
	       (who->uid == geteuid() || !who->uid);
}

static void accept_client(struct control_server *server)
{
	int fd = accept4(server->binding.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct ucred who = { .uid = (uid_t)-1 };
	struct client *free_slot = NULL;
	char *input;

	if (fd < 0) {
		/* Out of descriptors: the connection stays pending, look again a little later. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			server->accept_after_ns = clock_now_ns() + 100 * NS_PER_MS;
		return;
	}
	for (unsigned i = 0; i < CONTROL_MAX_CLIENTS && !free_slot; i++) {
		if (!server->clients[i].id)
			free_slot = &server->clients[i];
	}
	if (!is_trusted(fd, &who)) {
		turn_away(fd, "this guest belongs to another user");
		if (server->config.turned_away)
			server->config.turned_away(server->config.context, &who);
		return;
	}
	input = free_slot ? malloc(CONTROL_MAX_LINE_BYTES) : NULL;
	if (!input) {
		turn_away(fd, "too many clients; try again in a moment");
		return;
	}
	pthread_mutex_lock(&server->lock);
	*free_slot = (struct client){
		.fd = fd,
		.id = ++server->last_id,
		.input = input,
		.who = who,
		.idle_since_ns = clock_now_ns(),
	};
	pthread_mutex_unlock(&server->lock);
}

/* Drop who is broken, done or idle. Returns how many still have output; the lock is held. */
static unsigned sweep(struct control_server *server)
{
	uint64_t now_ns = clock_now_ns();
	unsigned n_waiting = 0;

	for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
		struct client *client = &server->clients[i];
		bool idle =
			!client->held && now_ns - client->idle_since_ns >= server->config.idle_ns;
		bool done = client->ended && !client->held && !client->output_bytes;

		if (!client->id)
			continue;
		if (client->broken || idle || done)
			drop(client);
		else if (client->output_bytes)
			n_waiting++;
	}
	return n_waiting;
}

/* fds[0] wakes, fds[1] listens, fds[2 + i] is client i. */
static void prepare_poll(struct control_server *server, struct pollfd *fds, bool closing)
{
	bool accepting = !closing && clock_now_ns() >= server->accept_after_ns;

	fds[0] = (struct pollfd){ .fd = server->wake_fd, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = accepting ? server->binding.fd : -1, .events = POLLIN };
	for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
		struct client *client = &server->clients[i];

		fds[2 + i] = (struct pollfd){ .fd = client->id ? client->fd : -1 };
		if (!client->ended && !closing)
			fds[2 + i].events |= POLLIN;
		if (client->output_bytes)
			fds[2 + i].events |= POLLOUT;
	}
}

/* Take what wake() wrote. */
static void calm(const struct control_server *server)
{
	uint64_t count;

	while (read(server->wake_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

static void serve(struct control_server *server, const struct pollfd *fds)
{
	if (fds[0].revents)
		calm(server);
	for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
		struct client *client = &server->clients[i];

		if (fds[2 + i].revents & POLLOUT)
			write_client(server, client);
		if (fds[2 + i].revents & POLLIN)
			read_client(server, client);
		else if (fds[2 + i].revents & (POLLHUP | POLLERR))
			mark_broken(server, client);
	}
	if (fds[1].revents)
		accept_client(server);
}

static void *control_main(void *argument)
{
	struct control_server *server = argument;
	struct pollfd fds[2 + CONTROL_MAX_CLIENTS];
	uint64_t deadline_ns = 0;

	for (;;) {
		bool closing;
		unsigned n_waiting;

		pthread_mutex_lock(&server->lock);
		n_waiting = sweep(server);
		closing = server->closing;
		prepare_poll(server, fds, closing);
		pthread_mutex_unlock(&server->lock);
		if (closing && !deadline_ns)
			deadline_ns = clock_now_ns() + NS_PER_S;
		if (closing && (!n_waiting || clock_now_ns() >= deadline_ns))
			return NULL;
		if (poll(fds, 2 + CONTROL_MAX_CLIENTS, 100) > 0)
			serve(server, fds);
	}
}

int control_server_open(const struct control_config *config, struct control_server **result,
			struct ramlift_error *error)
{
	struct control_server *server = calloc(1, sizeof(*server));
	int ret;

	if (!server)
		return error_set(error, -ENOMEM, "no memory for a control socket");
	server->config = *config;
	if (!server->config.idle_ns)
		server->config.idle_ns = CONTROL_IDLE_NS;
	for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++)
		server->clients[i].fd = -1;
	pthread_mutex_init(&server->lock, NULL);
	ret = control_bind(&server->binding, config->name, error);
	if (ret)
		goto free_server;
	server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->wake_fd < 0) {
		ret = error_set(error, -errno, "cannot make an eventfd: %s", strerror(errno));
		goto unbind;
	}
	ret = -pthread_create(&server->thread, NULL, control_main, server);
	if (ret) {
		error_set(error, ret, "cannot start the control thread: %s", strerror(-ret));
		goto close_wake;
	}
	*result = server;
	return 0;

close_wake:
	close(server->wake_fd);
unbind:
	control_unbind(&server->binding);
free_server:
	pthread_mutex_destroy(&server->lock);
	free(server);
	return ret;
}

void control_server_close(struct control_server *server)
{
	if (!server)
		return;
	pthread_mutex_lock(&server->lock);
	server->closing = true;
	pthread_mutex_unlock(&server->lock);
	wake(server);
	pthread_join(server->thread, NULL);
	for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
		if (server->clients[i].id)
			drop(&server->clients[i]);
	}
	close(server->wake_fd);
	control_unbind(&server->binding);
	pthread_mutex_destroy(&server->lock);
	free(server);
}
