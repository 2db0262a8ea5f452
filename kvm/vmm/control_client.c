/* SPDX-License-Identifier: Apache-2.0 */
/* The asking side of a control socket. */
#include "kvm/vmm/control_client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/control_socket.h"

struct control_client {
	int fd;
	const char *name;
	size_t used;
	char input[CONTROL_MAX_LINE_BYTES];
};

int control_client_open(const char *name, struct control_client **result,
			struct ramlift_error *error)
{
	struct control_client *client;
	struct timeval patience = { .tv_sec = 5 };
	struct sockaddr_un address;
	int ret;

	ret = control_address(name, &address, error);
	if (ret)
		return ret;
	client = malloc(sizeof(*client));
	if (!client)
		return error_set(error, -ENOMEM, "no memory for a connection to guest %s", name);
	client->name = name;
	client->used = 0;
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0) {
		ret = error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
		goto free_client;
	}
	/* Bounds connect() and send() to a process that is stopped. */
	setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(client->fd, (struct sockaddr *)&address, sizeof(address))) {
		ret = -errno;
		if (ret == -ENOENT || ret == -ECONNREFUSED)
			ret = error_set(error, -ENOENT,
					"no guest %s runs here; 'ramlift status' lists those that "
					"do",
					name);
		else
			error_set(error, ret, "cannot reach guest %s by %s: %s", name,
				  address.sun_path, strerror(-ret));
		goto close_socket;
	}
	*result = client;
	return 0;

close_socket:
	close(client->fd);
free_client:
	free(client);
	return ret;
}

void control_client_close(struct control_client *client)
{
	if (!client)
		return;
	close(client->fd);
	free(client);
}

int control_client_fd(const struct control_client *client)
{
	return client->fd;
}

static int lost(const struct control_client *client, struct ramlift_error *error)
{
	return error_set(error, -ECONNRESET,
			 "the process of guest %s has ended, or dropped this command",
			 client->name);
}

int control_client_send(struct control_client *client, json_t *request, struct ramlift_error *error)
{
	char *line = request ? json_dumps(request, JSON_COMPACT) : NULL;
	size_t bytes = line ? strlen(line) + 1 : 0;
	int ret = 0;

	json_decref(request);
	if (!line)
		return error_set(error, -ENOMEM, "no memory for a request to guest %s",
				 client->name);
	line[bytes - 1] = '\n';
	for (size_t sent = 0; sent < bytes && !ret;) {
		ssize_t n = send(client->fd, line + sent, bytes - sent, MSG_NOSIGNAL);

		if (n >= 0)
			sent += (size_t)n;
		else if (errno != EINTR)
			ret = lost(client, error);
	}
	free(line);
	return ret;
}

/* The first whole line of the input, taken out of it; -EAGAIN: there is none yet. */
static int take_line(struct control_client *client, json_t **message, struct ramlift_error *error)
{
	char *newline = memchr(client->input, '\n', client->used);
	json_t *object;
	size_t bytes;

	if (!newline)
		return client->used == sizeof(client->input)
			       ? error_set(error, -EPROTO, "guest %s answers with too long a line",
					   client->name)
			       : -EAGAIN;
	bytes = (size_t)(newline - client->input);
	object = json_loadb(client->input, bytes, JSON_REJECT_DUPLICATES, NULL);
	client->used -= bytes + 1;
	memmove(client->input, newline + 1, client->used);
	if (!json_is_object(object)) {
		json_decref(object);
		return error_set(error, -EPROTO,
				 "guest %s answers with something that is no JSON "
				 "object",
				 client->name);
	}
	*message = object;
	return 0;
}

static int receive_more(struct control_client *client, int timeout_ms, struct ramlift_error *error)
{
	struct pollfd fd = { .fd = client->fd, .events = POLLIN };
	ssize_t got;
	int ready = poll(&fd, 1, timeout_ms);

	if (!ready || (ready < 0 && errno == EINTR))
		return -EAGAIN;
	got = recv(client->fd, client->input + client->used, sizeof(client->input) - client->used,
		   MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (got <= 0)
		return lost(client, error);
	client->used += (size_t)got;
	return 0;
}

int control_client_read(struct control_client *client, int timeout_ms, json_t **message,
			struct ramlift_error *error)
{
	uint64_t deadline_ns =
		clock_now_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * NS_PER_MS;
	int ret, left_ms;

	for (;;) {
		ret = take_line(client, message, error);
		if (ret != -EAGAIN)
			return ret;
		left_ms = timeout_ms < 0 ? -1 : clock_left_ms(deadline_ns);
		ret = receive_more(client, left_ms, error);
		if (ret && ret != -EAGAIN)
			return ret;
		if (ret == -EAGAIN && timeout_ms >= 0 && clock_now_ns() >= deadline_ns)
			return error_set(error, -EAGAIN,
					 "the process of guest %s does not answer; it may be "
					 "stopped or overloaded",
					 client->name);
	}
}

int control_client_refusal(const json_t *message, struct ramlift_error *error)
{
	const char *event = json_string_value(json_object_get(message, "event"));
	const json_t *reason = json_object_get(message, "error");
	const char *sentence = json_string_value(json_object_get(reason, "message"));

	if (event && strcmp(event, "refused"))
		return 0;
	return error_set(error, -EREMOTEIO, "%s", sentence ? sentence : "refused without a reason");
}

int control_client_ask(const char *name, json_t *request, int timeout_ms, json_t **answer,
		       struct ramlift_error *error)
{
	struct control_client *client;
	json_t *message = NULL;
	int ret;

	ret = control_client_open(name, &client, error);
	if (ret) {
		json_decref(request);
		return ret;
	}
	ret = control_client_send(client, request, error);
	if (!ret)
		ret = control_client_read(client, timeout_ms, &message, error);
	if (!ret)
		ret = control_client_refusal(message, error);
	control_client_close(client);
	if (!ret && answer)
		*answer = json_incref(message);
	json_decref(message);
	return ret;
}
