/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket against clients that mean no good: over-long lines, garbage, connections that
 * say nothing or read nothing, too many of them. After each an ordinary client is served.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/ramlift.h"
#include "kvm/vmm/control_client.h"
#include "kvm/vmm/control_socket.h"

#define PATIENCE_MS 10000

static char directory[64];
static struct control_server *server;
static _Atomic uint64_t held_client;

/* "echo" is answered, "flood" often, "hold" later by the test, "half" never. */
static void take_request(void *context, uint64_t client, const json_t *request)
{
	const char *word = json_string_value(json_object_get(request, "request"));
	json_t *reply = json_pack("{s:s, s:O?}", "event", "result", "value",
				  json_object_get(request, "value"));

	(void)context;
	if (word && !strcmp(word, "echo"))
		control_server_send(server, client, reply);
	for (int i = 0; word && !strcmp(word, "flood") && i < 100; i++)
		control_server_send(server, client, reply);
	if (word && !strcmp(word, "hold")) {
		control_server_hold(server, client);
		held_client = client;
	}
	json_decref(reply);
}

static int open_server(const char *name, uint64_t idle_ns, struct control_server **result,
		       struct ramlift_error *error)
{
	const struct control_config config = {
		.name = name,
		.idle_ns = idle_ns,
		.request = take_request,
	};

	return control_server_open(&config, result, error);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/ramlift-test-XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	setenv("RAMLIFT_RUNTIME_DIR", directory, 1);
	held_client = 0;
	return open_server("db1", 0, &server, NULL);
}

/* Also checks that the socket file goes: rmdir() fails on what is not empty. */
static int tear_down(void **state)
{
	(void)state;
	control_server_close(server);
	server = NULL;
	return rmdir(directory);
}

static int raw_connect(void)
{
	struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;

	assert_int_equal(control_address("db1", &address, NULL), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	return fd;
}

static void raw_send(int fd, const char *text, size_t bytes)
{
	assert_int_equal(send(fd, text, bytes, MSG_NOSIGNAL), bytes);
}

/* Everything until the server closes the connection; fails if it does not. */
static void read_to_end(int fd, char *text, size_t text_bytes)
{
	size_t used = 0;
	ssize_t got;

	do {
		got = recv(fd, text + used, text_bytes - 1 - used, 0);
		if (got > 0)
			used += (size_t)got;
	} while (got > 0);
	assert_true(!got || errno == ECONNRESET || errno == EPIPE);
	text[used] = '\0';
	close(fd);
}

static json_t *echo(const char *value)
{
	return json_pack("{s:s, s:s}", "request", "echo", "value", value);
}

static void assert_serves(void)
{
	json_t *answer;

	assert_int_equal(control_client_ask("db1", echo("hello"), PATIENCE_MS, &answer, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(answer, "value")), "hello");
	json_decref(answer);
}

static void requests_are_answered(void **state)
{
	static const char two[] = "{\"request\":\"echo\",\"value\":1}\n"
				  "{\"request\":\"echo\",\"value\":2}\n{\"request\":";
	char text[256];
	int fd = raw_connect();

	(void)state;
	assert_serves();
	raw_send(fd, two, strlen(two));
	raw_send(fd, "\"echo\",\"value\":3}\n", 18);
	shutdown(fd, SHUT_WR);
	/* Closing the sending side does not lose the answers. */
	read_to_end(fd, text, sizeof(text));
	assert_string_equal(text, "{\"event\":\"result\",\"value\":1}\n"
				  "{\"event\":\"result\",\"value\":2}\n"
				  "{\"event\":\"result\",\"value\":3}\n");
}

static void socket_is_private(void **state)
{
	struct sockaddr_un address;
	struct stat status;

	(void)state;
	assert_int_equal(control_address("db1", &address, NULL), 0);
	assert_int_equal(stat(address.sun_path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
}

#define STRANGER 65534

static _Atomic uid_t stranger;

static void take_stranger(void *context, const struct ucred *who)
{
	(void)context;
	stranger = who->uid;
}

/* As another user: what the server says at once, and whether it goes on. */
static int ask_as_stranger(const struct sockaddr_un *address)
{
	char text[256] = "";
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (setgid(STRANGER) || setuid(STRANGER))
		return 1;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)))
		return 2;
	while (recv(fd, text + strlen(text), sizeof(text) - 1 - strlen(text), 0) > 0)
		;
	return strstr(text, "belongs to another user") ? 0 : 3;
}

/* Whoever could open the file: who it is counts. */
static void other_users_are_refused(void **state)
{
	struct control_config config = { .name = "db2",
					 .request = take_request,
					 .turned_away = take_stranger };
	struct control_server *open_to_all;
	struct sockaddr_un address;
	int status;

	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(control_server_open(&config, &open_to_all, NULL), 0);
	control_address("db2", &address, NULL);
	assert_int_equal(chmod(directory, 0711), 0);
	assert_int_equal(chmod(address.sun_path, 0666), 0);
	stranger = 0;
	if (!fork())
		_exit(ask_as_stranger(&address));
	wait(&status);
	assert_int_equal(status, 0);
	control_server_close(open_to_all);
	assert_int_equal(stranger, STRANGER);
}

/* A server of another user: root is served there. */
static int serve_as_stranger(const char *home, int ready_fd, int end_fd)
{
	struct control_config config = { .name = "db2", .request = take_request };
	char byte = 0;

	setenv("RAMLIFT_RUNTIME_DIR", home, 1);
	if (setgid(STRANGER) || setuid(STRANGER) || control_server_open(&config, &server, NULL))
		return 1;
	if (write(ready_fd, &byte, 1) != 1 || read(end_fd, &byte, 1) < 0)
		return 2;
	control_server_close(server);
	return 0;
}

static void root_is_served_everywhere(void **state)
{
	char home[] = "/tmp/ramlift-test-XXXXXX", path[128], byte;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char request[] = "{\"request\":\"echo\",\"value\":\"hello\"}\n";
	int ready[2], end[2], status, fd;
	char text[256] = "";

	(void)state;
	if (geteuid())
		skip();
	assert_non_null(mkdtemp(home));
	assert_int_equal(chown(home, STRANGER, STRANGER) | pipe(ready) | pipe(end), 0);
	if (!fork()) {
		close(end[1]);
		_exit(serve_as_stranger(home, ready[1], end[0]));
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	snprintf(path, sizeof(path), "%s/db2.sock", home);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	raw_send(fd, request, strlen(request));
	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	assert_non_null(strstr(text, "hello"));
	close(fd);
	close(end[1]);
	wait(&status);
	assert_int_equal(status, 0);
	close(ready[0]);
	close(end[0]);
	assert_int_equal(rmdir(home), 0);
}

static void garbage_is_refused(void **state)
{
	static const char *const garbage[] = {
		"\n",
		"hello\n",
		"[]\n",
		"7\n",
		"{\"request\":\"echo\"\n",
		"{} {}\n",
		"\"x\"\n",
		"{\"a\":1,\"a\":2}\n",
		"\xff\xfe{}\n",
		"{\"request\":\"\xff\"}\n",
	};
	char text[512], deep[8192];

	(void)state;
	for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
		int fd = raw_connect();

		raw_send(fd, garbage[i], strlen(garbage[i]));
		read_to_end(fd, text, sizeof(text));
		assert_non_null(strstr(text, "\"refused\""));
		assert_serves();
	}
	memset(deep, '[', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\n';
	for (int i = 0; i < 2; i++) {
		int fd = raw_connect();

		memset(deep, i ? 0 : '[', sizeof(deep) - 1);
		raw_send(fd, deep, sizeof(deep));
		read_to_end(fd, text, sizeof(text));
		assert_non_null(strstr(text, "\"refused\""));
	}
	assert_serves();
}

static void over_long_lines_are_refused(void **state)
{
	size_t bytes = 4 * CONTROL_MAX_LINE_BYTES;
	char *line = malloc(bytes), text[512];
	int fd = raw_connect();

	(void)state;
	memset(line, 'a', bytes);
	/* It may close before all is sent. */
	for (size_t sent = 0; sent < bytes;) {
		ssize_t n = send(fd, line + sent, bytes - sent, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		sent += (size_t)n;
	}
	recv(fd, text, sizeof(text), 0);
	close(fd);
	free(line);
	assert_serves();
}

static void longest_line_is_taken(void **state)
{
	size_t bytes = CONTROL_MAX_LINE_BYTES - 64;
	char *value = malloc(bytes + 1);
	json_t *answer;

	(void)state;
	memset(value, 'v', bytes);
	value[bytes] = '\0';
	assert_int_equal(control_client_ask("db1", echo(value), PATIENCE_MS, &answer, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(answer, "value")), value);
	json_decref(answer);
	free(value);
}

static void seventeenth_client_is_turned_away(void **state)
{
	int fds[CONTROL_MAX_CLIENTS], more;
	struct ramlift_error error;
	char text[512];

	(void)state;
	for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++)
		fds[i] = raw_connect();
	more = raw_connect();
	read_to_end(more, text, sizeof(text));
	assert_non_null(strstr(text, "too many clients"));
	assert_int_not_equal(control_client_ask("db1", echo("x"), PATIENCE_MS, NULL, &error), 0);
	/* The sixteen are served, and one that goes makes room. */
	for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
		raw_send(fds[i], "{\"request\":\"echo\"}\n", 19);
		assert_true(recv(fds[i], text, sizeof(text), 0) > 0);
		close(fds[i]);
	}
	for (int i = 0; i < 100 && control_client_ask("db1", echo("x"), PATIENCE_MS, NULL, NULL);
	     i++)
		poll(NULL, 0, 20);
	assert_serves();
}

static void silent_clients_are_dropped(void **state)
{
	char text[512];
	int silent, half;

	(void)state;
	control_server_close(server);
	assert_int_equal(open_server("db1", 200 * NS_PER_MS, &server, NULL), 0);
	silent = raw_connect();
	half = raw_connect();
	raw_send(half, "{\"request\":\"ec", 14);
	read_to_end(silent, text, sizeof(text));
	assert_string_equal(text, "");
	read_to_end(half, text, sizeof(text));
	assert_serves();
}

static void held_clients_may_wait(void **state)
{
	json_t *event = json_pack("{s:s}", "event", "result"), *message;
	struct control_client *client;

	(void)state;
	control_server_close(server);
	assert_int_equal(open_server("db1", 100 * NS_PER_MS, &server, NULL), 0);
	assert_int_equal(control_client_open("db1", &client, NULL), 0);
	assert_int_equal(control_client_send(client, json_pack("{s:s}", "request", "hold"), NULL),
			 0);
	assert_int_equal(control_client_read(client, 500, &message, NULL), -EAGAIN);
	assert_int_equal(control_server_send(server, held_client, event), 0);
	assert_int_equal(control_client_read(client, PATIENCE_MS, &message, NULL), 0);
	json_decref(message);
	control_client_close(client);
	/* Gone: noticed, and no trouble. */
	for (int i = 0; i < 500 && control_server_send(server, held_client, event) != -ENOENT; i++)
		poll(NULL, 0, 10);
	assert_int_equal(control_server_send(server, held_client, event), -ENOENT);
	assert_int_equal(control_server_send(server, 0, event), -ENOENT);
	assert_int_equal(control_server_send(server, 12345, event), -ENOENT);
	json_decref(event);
}

static void who_does_not_read_is_dropped(void **state)
{
	static const char flood[] = "{\"request\":\"flood\",\"value\":\"";
	char *line = malloc(40000);
	int fd = raw_connect();
	size_t bytes;
	ssize_t n;

	(void)state;
	bytes = (size_t)sprintf(line, "%s%030000d\"}\n", flood, 0);
	do
		n = send(fd, line, bytes, MSG_NOSIGNAL);
	while (n == (ssize_t)bytes);
	/* Dropped, not waited for: otherwise the send would have timed out. */
	assert_true(n >= 0 || errno == EPIPE || errno == ECONNRESET);
	close(fd);
	free(line);
	assert_serves();
}

static void progress_is_left_out_for_slow_clients(void **state)
{
	json_t *event = json_pack("{s:s, s:s}", "event", "progress", "text", directory), *message;
	struct control_client *client;
	unsigned n_events = 0;
	bool last;

	(void)state;
	assert_int_equal(control_client_open("db1", &client, NULL), 0);
	control_client_send(client, json_pack("{s:s}", "request", "hold"), NULL);
	while (!held_client)
		poll(NULL, 0, 1);
	for (int i = 0; i < 50000; i++)
		control_server_send_lossy(server, held_client, event);
	json_object_set_new(event, "event", json_string("result"));
	assert_int_equal(control_server_send(server, held_client, event), 0);
	do {
		assert_int_equal(control_client_read(client, PATIENCE_MS, &message, NULL), 0);
		n_events++;
		last = !strcmp(json_string_value(json_object_get(message, "event")), "result");
		json_decref(message);
	} while (!last);
	assert_true(n_events < 50000);
	control_client_close(client);
	json_decref(event);
}

static void live_socket_is_not_taken_over(void **state)
{
	struct ramlift_error error;
	struct control_server *other;
	char number[32];

	(void)state;
	assert_int_equal(open_server("db1", 0, &other, &error), -EEXIST);
	snprintf(number, sizeof(number), "in process %d", (int)getpid());
	assert_non_null(strstr(error.text, number));
	assert_serves();
}

static void stale_socket_is_replaced(void **state)
{
	struct sockaddr_un address;
	int fd;

	(void)state;
	control_server_close(server);
	assert_int_equal(control_address("db1", &address, NULL), 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(control_client_ask("db1", echo("x"), PATIENCE_MS, NULL, NULL), -ENOENT);
	assert_int_equal(open_server("db1", 0, &server, NULL), 0);
	assert_serves();
}

static void foreign_socket_is_not_removed(void **state)
{
	struct sockaddr_un address;
	struct stat status;
	int fd;

	(void)state;
	assert_int_equal(control_address("db1", &address, NULL), 0);
	assert_int_equal(unlink(address.sun_path), 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	control_server_close(server);
	server = NULL;
	assert_int_equal(stat(address.sun_path, &status), 0);
	unlink(address.sun_path);
	close(fd);
}

static void unknown_guest_is_said(void **state)
{
	struct ramlift_error error;

	(void)state;
	assert_int_equal(control_client_ask("db2", echo("x"), PATIENCE_MS, NULL, &error), -ENOENT);
	assert_non_null(strstr(error.text, "no guest db2 runs here"));
}

static void close_delivers_what_is_queued(void **state)
{
	json_t *event = json_pack("{s:s}", "event", "last");
	char text[512];
	int fd = raw_connect();

	(void)state;
	raw_send(fd, "{\"request\":\"hold\"}\n", 19);
	while (!held_client)
		poll(NULL, 0, 1);
	assert_int_equal(control_server_send(server, held_client, event), 0);
	json_decref(event);
	control_server_close(server);
	server = NULL;
	read_to_end(fd, text, sizeof(text));
	assert_string_equal(text, "{\"event\":\"last\"}\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(requests_are_answered),
		TEST(socket_is_private),
		TEST(other_users_are_refused),
		TEST(root_is_served_everywhere),
		TEST(garbage_is_refused),
		TEST(over_long_lines_are_refused),
		TEST(longest_line_is_taken),
		TEST(seventeenth_client_is_turned_away),
		TEST(silent_clients_are_dropped),
		TEST(held_clients_may_wait),
		TEST(who_does_not_read_is_dropped),
		TEST(progress_is_left_out_for_slow_clients),
		TEST(live_socket_is_not_taken_over),
		TEST(stale_socket_is_replaced),
		TEST(foreign_socket_is_not_removed),
		TEST(unknown_guest_is_said),
		TEST(close_delivers_what_is_queued),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
