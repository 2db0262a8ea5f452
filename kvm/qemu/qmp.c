/* SPDX-License-Identifier: Apache-2.0 */
/* A QMP connection: one request at a time, answers told apart by their id, events kept. */
#include "kvm/qemu/qmp.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/ramlift.h"
#include "kvm/qemu/qmp_input.h"

#define OPEN_PATIENCE_S	 5u
#define CALL_PATIENCE_NS (10 * NS_PER_S)
#define MAX_EVENTS	 1024u

struct qmp {
	int fd;
	pid_t pid;
	struct qmp_input input;
	json_t *events; /* an array, oldest first */
	json_int_t last_id;
	json_int_t asked_id; /* of qmp_ask(); 0: nothing is asked */
	unsigned numbers[3];
	char version[32];
};

static int lost(struct ramlift_error *error)
{
	return error_set(error, -ECONNRESET, "QEMU has ended, or closed its monitor");
}

/* -ETIMEDOUT leaves error alone: callers know what they waited for. */
static int wait_for(const struct qmp *qmp, short events, uint64_t deadline_ns)
{
	struct pollfd fd = { .fd = qmp->fd, .events = events };

	for (;;) {
		int ready = poll(&fd, 1, clock_left_ms(deadline_ns));

		if (ready > 0)
			return 0;
		if (!ready || errno != EINTR)
			return ready ? -errno : -ETIMEDOUT;
	}
}

/* The next message of any kind; what is there already is read even after the deadline. */
static int receive(struct qmp *qmp, uint64_t deadline_ns, json_t **message,
		   struct ramlift_error *error)
{
	size_t n_bytes;
	char *room;
	ssize_t got;
	int ret;

	for (;;) {
		ret = qmp_input_take(&qmp->input, message, error);
		if (ret != -EAGAIN)
			return ret;
		ret = qmp_input_room(&qmp->input, &room, &n_bytes, error);
		if (!ret)
			ret = wait_for(qmp, POLLIN, deadline_ns);
		if (ret)
			return ret;
		got = recv(qmp->fd, room, n_bytes, MSG_DONTWAIT);
		if (got > 0)
			qmp->input.used += (size_t)got;
		else if (!got || (errno != EAGAIN && errno != EINTR))
			return lost(error);
	}
}

static int send_line(struct qmp *qmp, const char *line, size_t n_bytes, uint64_t deadline_ns,
		     struct ramlift_error *error)
{
	while (n_bytes) {
		ssize_t sent = send(qmp->fd, line, n_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
		int ret;

		if (sent >= 0) {
			line += sent;
			n_bytes -= (size_t)sent;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return lost(error);
		ret = wait_for(qmp, POLLOUT, deadline_ns);
		if (ret)
			return ret;
	}
	return 0;
}

static int send_command(struct qmp *qmp, const char *command, json_t *arguments,
			uint64_t deadline_ns, struct ramlift_error *error)
{
	json_t *request = json_pack("{s:s, s:I, s:O*}", "execute", command, "id", ++qmp->last_id,
				    "arguments", arguments);
	char *line = request ? json_dumps(request, JSON_COMPACT) : NULL;
	size_t n_bytes = line ? strlen(line) + 1 : 0;
	int ret;

	json_decref(request);
	if (!line)
		return error_set(error, -ENOMEM, "no memory for the command %s to QEMU", command);
	line[n_bytes - 1] = '\n';
	ret = send_line(qmp, line, n_bytes, deadline_ns, error);
	free(line);
	return ret;
}

/* Takes over the reference. */
static void keep_event(struct qmp *qmp, json_t *event)
{
	if (json_array_size(qmp->events) >= MAX_EVENTS)
		json_array_remove(qmp->events, 0);
	json_array_append_new(qmp->events, event);
}

/* A message that qmp_event() gives out, the caller's to free; NULL: it is none. */
static json_t *as_event(struct qmp *qmp, json_t *message)
{
	json_t *answer = json_object_get(message, "return");

	if (json_object_get(message, "event"))
		return json_incref(message);
	if (!qmp->asked_id ||
	    json_number_value(json_object_get(message, "id")) != (double)qmp->asked_id)
		return NULL;
	qmp->asked_id = 0;
	return answer ? json_pack("{s:s, s:O}", "event", QMP_ANSWER, "data", answer) : NULL;
}

/* Is it what the last command was waiting for? QEMU leaves the id out of what it cannot parse. */
static bool is_answer(const struct qmp *qmp, const json_t *message)
{
	const json_t *id = json_object_get(message, "id");

	if (!json_object_get(message, "return") && !json_object_get(message, "error"))
		return false;
	return !id || json_number_value(id) == (double)qmp->last_id;
}

/* QEMU's own sentence, on one line. */
static int refusal(const char *command, const json_t *reason, struct ramlift_error *error)
{
	const char *text = json_string_value(json_object_get(reason, "desc"));
	char line[400];

	snprintf(line, sizeof(line), "%s", text ? text : "it does not say why");
	for (char *c = line; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = ' ';
	return error_set(error, -EREMOTEIO, "QEMU refuses %s: %s", command, line);
}

int qmp_call(struct qmp *qmp, const char *command, json_t *arguments, json_t **result,
	     struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + CALL_PATIENCE_NS;
	json_t *message = NULL, *event;
	bool answered = false;
	int ret;

	ret = send_command(qmp, command, arguments, deadline_ns, error);
	json_decref(arguments);
	while (!ret && !answered) {
		json_decref(message);
		message = NULL;
		ret = receive(qmp, deadline_ns, &message, error);
		if (ret)
			break;
		answered = is_answer(qmp, message);
		event = answered ? NULL : as_event(qmp, message);
		if (event)
			keep_event(qmp, event);
	}
	if (ret == -ETIMEDOUT)
		error_set(error, ret, "QEMU does not answer %s: it may be stopped or overloaded",
			  command);
	if (!ret && json_object_get(message, "error"))
		ret = refusal(command, json_object_get(message, "error"), error);
	if (!ret && result)
		*result = json_incref(json_object_get(message, "return"));
	json_decref(message);
	return ret;
}

int qmp_ask(struct qmp *qmp, const char *command, json_t *arguments, struct ramlift_error *error)
{
	int ret = -EAGAIN;

	if (!qmp->asked_id)
		ret = send_command(qmp, command, arguments, clock_now_ns() + CALL_PATIENCE_NS,
				   error);
	if (!ret)
		qmp->asked_id = qmp->last_id;
	json_decref(arguments);
	return ret;
}

int qmp_monitor_command(struct qmp *qmp, const char *line, char **text, struct ramlift_error *error)
{
	json_t *result = NULL;
	char *copy;
	int ret;

	ret = qmp_call(qmp, "human-monitor-command", json_pack("{s:s}", "command-line", line),
		       &result, error);
	if (ret)
		return ret;
	copy = strdup(json_is_string(result) ? json_string_value(result) : "");
	json_decref(result);
	if (!copy)
		return error_set(error, -ENOMEM, "no memory for QEMU's answer to \"%s\"", line);
	*text = copy;
	return 0;
}

int qmp_event(struct qmp *qmp, uint64_t deadline_ns, json_t **event, struct ramlift_error *error)
{
	json_t *message;
	int ret;

	if (json_array_size(qmp->events)) {
		*event = json_incref(json_array_get(qmp->events, 0));
		json_array_remove(qmp->events, 0);
		return 0;
	}
	for (;;) {
		ret = receive(qmp, deadline_ns, &message, error);
		if (ret)
			return ret;
		*event = as_event(qmp, message);
		json_decref(message); /* else it is the answer to a command that was given up */
		if (*event)
			return 0;
	}
}

static int connect_to(int fd, const char *path, struct ramlift_error *error)
{
	const struct timeval patience = { .tv_sec = OPEN_PATIENCE_S };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int ret;

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(error, -ENAMETOOLONG,
				 "the path of QEMU's monitor is too long for a socket: %s", path);
	strcpy(address.sun_path, path);
	/* connect(2) itself waits where one more client is in the queue already. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	do {
		ret = connect(fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
	} while (ret == -EINTR);
	if (ret == -EAGAIN)
		return -ETIMEDOUT;
	if (ret == -ENOENT || ret == -ECONNREFUSED)
		return error_set(error, ret,
				 "no QEMU has its monitor at %s: start it with -qmp "
				 "unix:%s,server=on,wait=off",
				 path, path);
	return ret ? error_set(error, ret, "cannot reach QEMU's monitor %s: %s", path,
			       strerror(-ret))
		   : 0;
}

static int take_greeting(struct qmp *qmp, const json_t *greeting, struct ramlift_error *error)
{
	const json_t *version = json_object_get(
		json_object_get(json_object_get(greeting, "QMP"), "version"), "qemu");
	static const char *const keys[] = { "major", "minor", "micro" };

	for (unsigned i = 0; i < 3; i++) {
		const json_t *number = json_object_get(version, keys[i]);
		json_int_t value = json_integer_value(number);

		if (!json_is_integer(number) || value < 0 || value > 9999)
			return error_set(error, -EPROTO,
					 "what answers is no QMP monitor: its greeting has no "
					 "version of QEMU");
		qmp->numbers[i] = (unsigned)value;
	}
	snprintf(qmp->version, sizeof(qmp->version), "%u.%u.%u", qmp->numbers[0], qmp->numbers[1],
		 qmp->numbers[2]);
	return 0;
}

static int shake_hands(struct qmp *qmp, const char *path, struct ramlift_error *error)
{
	struct ucred peer = { 0 };
	socklen_t bytes = sizeof(peer);
	json_t *greeting = NULL;
	int ret;

	ret = connect_to(qmp->fd, path, error);
	if (!ret)
		ret = receive(qmp, clock_now_ns() + OPEN_PATIENCE_S * NS_PER_S, &greeting, error);
	if (ret == -ETIMEDOUT)
		return error_set(error, -EBUSY,
				 "another client is connected to the monitor %s, or QEMU hangs: "
				 "give QEMU a monitor for Ramlift alone: -qmp "
				 "unix:PATH,server=on,wait=off",
				 path);
	if (!ret)
		ret = take_greeting(qmp, greeting, error);
	json_decref(greeting);
	if (!ret)
		ret = qmp_call(qmp, "qmp_capabilities", NULL, NULL, error);
	if (!ret && !getsockopt(qmp->fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes))
		qmp->pid = peer.pid;
	return ret;
}

int qmp_open(const char *path, struct qmp **result, struct ramlift_error *error)
{
	struct qmp *qmp = calloc(1, sizeof(*qmp));
	int ret;

	if (qmp)
		qmp->events = json_array();
	if (!qmp || !qmp->events) {
		free(qmp);
		return error_set(error, -ENOMEM, "no memory for a connection to QEMU");
	}
	qmp->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (qmp->fd < 0) {
		ret = -errno;
		error_set(error, ret, "cannot make a socket: %s", strerror(-ret));
	} else {
		ret = shake_hands(qmp, path, error);
	}
	if (ret) {
		qmp_close(qmp);
		return ret;
	}
	*result = qmp;
	return 0;
}

int qmp_fd(const struct qmp *qmp)
{
	return qmp->fd;
}

const char *qmp_version(const struct qmp *qmp)
{
	return qmp->version;
}

void qmp_version_numbers(const struct qmp *qmp, unsigned numbers[3])
{
	memcpy(numbers, qmp->numbers, sizeof(qmp->numbers));
}

pid_t qmp_pid(const struct qmp *qmp)
{
	return qmp->pid;
}

void qmp_close(struct qmp *qmp)
{
	if (!qmp)
		return;
	if (qmp->fd >= 0)
		close(qmp->fd);
	qmp_input_fini(&qmp->input);
	json_decref(qmp->events);
	free(qmp);
}
