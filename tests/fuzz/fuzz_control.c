/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What anybody of this user may write to a guest's control socket. The first byte picks the state
 * that the guest is in, the rest is what a client sends. Each request gets one answer, or waits for
 * an outcome; a migration that is begun is one that the engine may be asked for.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/server_private.h"
#include "tests/fuzz/fuzz.h"

static struct server server;
static struct migration other; /* the one that runs, where one does */
static char directory[] = "/tmp/ramlift-fuzz-XXXXXX";
static unsigned n_requests, n_begun; /* begun: the answer comes once it has ended */

/* What the lines of the input are, up to one that is no request. */
struct lines {
	unsigned n_requests, n_others;
};

/* ---- in place of a machine, and of what really migrates it ---- */

const struct ramlift_guest_ops machine_guest_ops;

const struct machine_config *machine_config(const struct machine *machine)
{
	static const struct machine_config config = { .n_vcpus = 2, .n_numa_nodes = 2 };

	(void)machine;
	return &config;
}

void machine_report(struct machine *machine, struct machine_report *report)
{
	(void)machine;
	memset(report, 0, sizeof(*report));
}

const struct ramlift_region *machine_regions(const struct machine *machine, unsigned *n_regions)
{
	(void)machine;
	*n_regions = 0;
	return NULL;
}

int machine_describe(const struct machine *machine, void **description, size_t *description_bytes,
		     struct ramlift_error *error)
{
	(void)machine;
	(void)error;
	*description_bytes = 1;
	*description = calloc(1, 1);
	CHECK(*description);
	return 0;
}

const struct ramlift_dirty_source_ops *machine_dirty_source(struct machine *machine, void **source)
{
	(void)machine;
	*source = NULL;
	return NULL;
}

void server_wake(struct server *asked)
{
	(void)asked;
}

json_t *server_session(struct server *asked)
{
	(void)asked;
	return NULL;
}

void server_doubt_report(const struct server *asked, json_t *reply)
{
	(void)asked;
	(void)reply;
}

int server_doubt_resolve(struct server *asked, uint64_t client, enum ramlift_owner owner,
			 struct ramlift_error *error)
{
	(void)asked;
	(void)client;
	(void)error;
	CHECK(owner == RAMLIFT_OWNER_SOURCE || owner == RAMLIFT_OWNER_DESTINATION);
	n_begun++;
	return 0;
}

int server_doubt_clear(struct server *asked, uint64_t client, enum ramlift_owner owner,
		       struct ramlift_error *error)
{
	(void)asked;
	(void)client;
	CHECK(owner == RAMLIFT_OWNER_SOURCE || owner == RAMLIFT_OWNER_DESTINATION);
	return error_set(error, -EINVAL, "guest %s is not in doubt", "fuzz");
}

int server_cancel_migration(struct server *asked)
{
	(void)asked;
	n_begun++;
	return 0;
}

int server_cancel_incoming(struct server *asked)
{
	(void)asked;
	return -EALREADY;
}

static void check_migration(const struct migration *migration)
{
	const struct ramlift_source_config *config = &migration->config;

	CHECK(config->to && config->to[0]);
	CHECK(config->n_transports >= 1 && config->n_transports <= 2);
	CHECK(config->n_rails <= RAMLIFT_MAX_RAILS);
	CHECK(config->lanes_per_rail >= 1 && config->lanes_per_rail <= RAMLIFT_MAX_LANES);
	CHECK(config->max_downtime_ns >= 1 && config->max_downtime_ns <= 3600 * NS_PER_S);
	CHECK(config->max_total_ns <= 366ull * 86400 * NS_PER_S);
	CHECK(config->bandwidth_bytes_per_s <= OPTION_MAX_RATE_BYTES);
	CHECK(config->on_divergence <= RAMLIFT_DIVERGENCE_ABORT);
	CHECK(config->pin <= RAMLIFT_PIN_BUDGET);
	CHECK((config->pin == RAMLIFT_PIN_BUDGET) == !!config->pin_budget_bytes);
	CHECK(config->timeouts.heartbeat_ns && config->timeouts.io_ns);
	CHECK(!config->security.tls_dir || !config->security.psk_file);
}

int server_migrate(struct server *asked, uint64_t client, const json_t *request,
		   struct ramlift_error *error)
{
	struct migration *migration = calloc(1, sizeof(*migration));
	int ret;

	(void)client;
	CHECK(migration);
	ret = migration_prepare(asked, request, migration, error);
	if (!ret) {
		check_migration(migration);
		n_begun++;
	}
	free(migration->description);
	free(migration->fence_command);
	free(migration->to);
	free(migration);
	return ret;
}

/* Nobody waits: the connection ends with the last answer. */
void __wrap_control_server_hold(struct control_server *control, uint64_t client);
void __wrap_control_server_hold(struct control_server *control, uint64_t client)
{
	(void)control;
	(void)client;
}

/* The leak checker is a debugger. */
void __wrap_privileges_forbid_dumps(void);
void __wrap_privileges_forbid_dumps(void)
{
}

/* ---- the client ---- */

static void count_request(void *context, uint64_t client, const json_t *request)
{
	pthread_mutex_lock(&server.lock);
	n_requests++;
	pthread_mutex_unlock(&server.lock);
	server_request(context, client, request);
}

static void tear_down(void)
{
	control_server_close(server.control);
	rmdir(directory);
}

static void set_up(void)
{
	static const struct control_config config = {
		.name = "db-1",
		.request = count_request,
		.context = &server,
	};

	CHECK(mkdtemp(directory) && !setenv("RAMLIFT_RUNTIME_DIR", directory, 1));
	pthread_mutex_init(&server.lock, NULL);
	strcpy(server.place.name, "db-1");
	server.migration = &other;
	other.to = (char *)"10.0.0.2:7440";
	CHECK(!control_server_open(&config, &server.control, NULL));
	atexit(tear_down);
}

/* Until the server has taken all that was sent, so that the rest is another piece. */
static void await_taken(int fd)
{
	int left_bytes = 0;

	while (!ioctl(fd, SIOCOUTQ, &left_bytes) && left_bytes)
		sched_yield();
}

/* It may have gone after what was no request. */
static void say(int fd, const uint8_t *data, size_t size)
{
	ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);

	CHECK(sent == (ssize_t)size || (sent < 0 && (errno == EPIPE || errno == ECONNRESET)));
}

/* In two pieces; all that comes back until the server is done with the client. */
static char *converse(const uint8_t *data, size_t size, size_t cut)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	char *answers = malloc(CONTROL_MAX_OUTPUT_BYTES + 1);
	size_t length = 0;
	ssize_t got;

	CHECK(fd >= 0 && answers && !control_address("db-1", &address, NULL));
	CHECK(!connect(fd, (const struct sockaddr *)&address, sizeof(address)));
	if (cut) {
		say(fd, data, cut);
		await_taken(fd);
	}
	say(fd, data + cut, size - cut);
	shutdown(fd, SHUT_WR);
	do { /* libFuzzer's clock is a signal */
		got = recv(fd, answers + length, CONTROL_MAX_OUTPUT_BYTES - length, 0);
		length += got > 0 ? (size_t)got : 0;
	} while (got > 0 || (got < 0 && errno == EINTR));
	/* It closes with unread input after what was no request. */
	CHECK(!got || errno == ECONNRESET);
	close(fd);
	answers[length] = '\0';
	return answers;
}

static struct lines read_lines(const uint8_t *data, size_t size)
{
	struct lines lines = { 0 };
	const uint8_t *newline;

	while (!lines.n_others && (newline = memchr(data, '\n', size))) {
		size_t length = (size_t)(newline - data);
		json_t *line = json_loadb((const char *)data, length, JSON_REJECT_DUPLICATES, NULL);

		lines.n_requests += json_is_object(line);
		lines.n_others += !json_is_object(line);
		json_decref(line);
		data = newline + 1;
		size -= length + 1;
	}
	return lines;
}

/* Returns 1 for what was no request. */
static unsigned check_answer(const char *line, size_t length)
{
	json_t *answer = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
	const char *event = json_string_value(json_object_get(answer, "event"));
	const json_t *error = json_object_get(answer, "error");
	unsigned no_request = !json_object_get(answer, "request");

	CHECK(event);
	if (!strcmp(event, "refused")) {
		CHECK(json_integer_value(json_object_get(error, "code")) < 0);
		CHECK(json_string_length(json_object_get(error, "message")) > 0);
	} else {
		CHECK(!strcmp(event, "result") && !error && !no_request);
	}
	json_decref(answer);
	return no_request;
}

static void begin(uint8_t how)
{
	pthread_mutex_lock(&server.lock);
	server.state = (enum server_state)(how % (SERVER_STOPPED + 1));
	server.machine = server.state == SERVER_WAITING ? NULL : (struct machine *)&other;
	server.destination = how & 0x80 ? (struct ramlift_destination *)&other : NULL;
	n_requests = 0;
	n_begun = 0;
	server.n_watchers = 0;
	pthread_mutex_unlock(&server.lock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned n_answers = 0, n_no_requests = 0;
	struct lines lines;
	char *answers, *at, *newline;

	/* Small enough for all answers to be kept. */
	if (size < 2 || size > 2048)
		return 0;
	if (!server.control)
		set_up();
	begin(data[0]);
	answers = converse(data + 1, size - 1, (size - 1) * data[0] / 256);
	for (at = answers; (newline = strchr(at, '\n')); at = newline + 1) {
		CHECK(!n_no_requests); /* that is the last thing it says */
		n_no_requests += check_answer(at, (size_t)(newline - at));
		n_answers++;
	}
	CHECK(!*at);
	lines = read_lines(data + 1, size - 1);
	pthread_mutex_lock(&server.lock);
	CHECK(n_requests == lines.n_requests && n_no_requests == lines.n_others);
	CHECK(n_answers + n_begun == n_requests + n_no_requests);
	pthread_mutex_unlock(&server.lock);
	free(answers);
	return 0;
}
