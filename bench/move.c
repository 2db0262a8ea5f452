/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves a guest that is memory only (move_guest.h) by libramlift, as a VMM would, and prints one
 * line of JSON with everything that was measured on both sides. Digests are taken before and after
 * the session, never inside.
 *
 *     move receive ADDRESS [--port N]      serves one sender, then exits
 *     move send ADDRESS [OPTIONS]
 *
 * Exit status: 0 moved and equal, 1 not, 2 or 64 usage, 77 no device for this transport.
 */
#include <argp.h>
#include <arpa/inet.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/floor.h"
#include "bench/move_guest.h"
#include "bench/pair.h"
#include "bench/timed_transport.h"
#include "core/clock.h"
#include "core/transport.h"
#include "kvm/vmm/report_json.h"

#define MAX_REPORT_BYTES (1u << 20)

struct options {
	bool send;
	struct sockaddr_in address;
	unsigned port; /* of the tool's own connection */
	const struct ramlift_transport *transport;
	struct guest_shape shape;
	unsigned lanes, slice_mib, register_threads, max_downtime_ms, settle_ms;
	bool verify, rss;
	const char *state_dir;
};

/* From the sender, at the beginning. */
struct setup {
	struct guest_shape shape;
	uint32_t tcp, register_threads;
};

/* What one side measured around its session's one blocking call. */
struct measured {
	uint64_t begin_ns, run_ns;
	struct cpu_time cpu;
	uint64_t rss_kib; /* anonymous memory and page tables at most, guest RAM in a memfd left out
			   */
	struct ramlift_stats stats;
};

static uint64_t peak_rss_kib;

/* Anonymous memory of this process: what a migration needs beside a guest in a memfd. */
static void sample_rss(void *context, const struct ramlift_stats *stats)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[128];
	uint64_t kib;

	(void)context;
	(void)stats;
	while (status && fgets(line, sizeof(line), status)) {
		if (sscanf(line, "RssAnon: %" SCNu64, &kib) == 1 && kib > peak_rss_kib)
			peak_rss_kib = kib;
	}
	if (status)
		fclose(status);
}

static json_t *side_report(const struct measured *measured)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:o}", "run_ns", (json_int_t)measured->run_ns,
			 "cpu_user_ns", (json_int_t)measured->cpu.user_ns, "cpu_system_ns",
			 (json_int_t)measured->cpu.system_ns, "rss_anonymous_kib",
			 (json_int_t)measured->rss_kib, "session", report_stats(&measured->stats));
}

/* ---- the destination ---- */

static void send_report(int fd, const struct measured *measured, uint64_t digest)
{
	json_t *report = side_report(measured);
	char *text = json_dumps(report, JSON_COMPACT);
	uint32_t length;

	if (!text)
		die(NULL, "no memory for the report");
	length = (uint32_t)strlen(text);
	pair_write(fd, &digest, sizeof(digest));
	pair_write(fd, &length, sizeof(length));
	pair_write(fd, text, length);
	free(text);
	json_decref(report);
}

static void receive(const struct options *options)
{
	int fd = pair_accept(&options->address, options->port);
	const struct ramlift_transport *transport;
	struct ramlift_destination_config config;
	struct ramlift_destination *destination;
	struct ramlift_error error = { 0 };
	struct measured measured = { 0 };
	struct move_guest guest;
	struct cpu_time cpu;
	struct setup setup;
	char listen[64];
	uint16_t port;
	uint8_t go;

	pair_read(fd, &setup, sizeof(setup));
	transport = setup.tcp ? ramlift_transport_tcp() : ramlift_transport_rdma();
	move_guest_init(&guest, &setup.shape);
	snprintf(listen, sizeof(listen), "%s:0", inet_ntoa(options->address.sin_addr));
	ramlift_destination_config_init(&config);
	config.guest_ops = &move_guest_ops;
	config.guest = &guest;
	config.listen = listen;
	config.transports = &transport;
	config.n_transports = 1;
	config.state_dir = options->state_dir;
	config.security.insecure = true; /* both sides are ours, and what is measured is memory */
	if (setup.register_threads)
		config.register_threads = setup.register_threads;
	if (options->rss)
		config.progress = sample_rss;
	if (ramlift_destination_new(&config, &destination, &error))
		die(&error, "cannot listen");
	port = ramlift_destination_port(destination);
	pair_write(fd, &port, sizeof(port));
	floor_answer_round_trips(fd);
	cpu = cpu_now();
	measured.begin_ns = clock_now_ns();
	if (ramlift_destination_run(destination, &error))
		die(&error, "no guest came");
	measured.run_ns = clock_now_ns() - measured.begin_ns;
	measured.cpu = cpu_since(cpu);
	measured.rss_kib = peak_rss_kib;
	ramlift_destination_stats(destination, &measured.stats);
	ramlift_destination_free(destination);
	pair_read(fd, &go, 1); /* the source is no longer measured */
	send_report(fd, &measured, move_guest_digest(&guest));
	move_guest_fini(&guest);
	close(fd);
}

/* ---- the source ---- */

static json_t *receive_report(int fd)
{
	json_error_t why;
	uint32_t length;
	json_t *report;
	char *text;

	pair_read(fd, &length, sizeof(length));
	text = length <= MAX_REPORT_BYTES ? malloc(length) : NULL;
	if (!text)
		die(NULL, "no memory for the destination's report");
	pair_read(fd, text, length);
	report = json_loadb(text, length, 0, &why);
	free(text);
	return report;
}

static void source_config(struct ramlift_source_config *config, const struct options *options)
{
	ramlift_source_config_init(config);
	config->guest_name = "bench";
	config->guest_ops = &move_guest_ops;
	config->dirty_source_ops = &move_dirty_ops;
	config->n_regions = 1;
	config->n_transports = 1;
	config->verify = options->verify;
	config->state_dir = options->state_dir;
	config->security.insecure = true;
	if (options->lanes)
		config->lanes_per_rail = options->lanes;
	if (options->slice_mib)
		config->slice_bytes = (uint64_t)options->slice_mib << 20;
	if (options->register_threads)
		config->register_threads = options->register_threads;
	if (options->max_downtime_ms)
		config->max_downtime_ns = options->max_downtime_ms * NS_PER_MS;
	if (options->rss)
		config->progress = sample_rss;
}

static void run_source(const struct options *options, struct move_guest *guest, uint16_t port,
		       struct measured *measured)
{
	const struct ramlift_transport *transport = timed_transport(options->transport);
	struct ramlift_source_config config;
	struct ramlift_error error = { 0 };
	struct ramlift_source *source;
	struct cpu_time cpu;
	char to[64];

	snprintf(to, sizeof(to), "%s:%u", inet_ntoa(options->address.sin_addr), port);
	source_config(&config, options);
	config.guest = guest;
	config.dirty_source = guest;
	config.regions = &guest->region;
	config.to = to;
	config.transports = &transport;
	if (ramlift_source_new(&config, &source, &error))
		die(&error, "cannot set up");
	cpu = cpu_now();
	measured->begin_ns = clock_now_ns();
	if (ramlift_source_run(source, &error))
		die(&error, "cannot move");
	measured->run_ns = clock_now_ns() - measured->begin_ns;
	measured->cpu = cpu_since(cpu);
	measured->rss_kib = peak_rss_kib;
	ramlift_source_stats(source, &measured->stats);
	ramlift_source_free(source);
}

static void print_report(const struct options *options, const struct measured *measured,
			 json_t *destination, uint64_t round_trip, const struct move_guest *guest)
{
	const struct guest_shape *shape = &options->shape;
	json_t *report = json_pack(
		"{s:I, s:s, s:I, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:o, s:o}", "mib",
		(json_int_t)(shape->bytes >> 20), "memory", guest_memory_names[shape->memory],
		"random_percent", (json_int_t)shape->random_percent, "preallocated",
		shape->preallocated, "transport", options->transport->name, "run_ns",
		(json_int_t)measured->run_ns, "first_post_ns",
		(json_int_t)(timed_transport_first_post_ns() - measured->begin_ns), "state_bytes",
		(json_int_t)shape->state_bytes, "round_trip_ns", (json_int_t)round_trip, "sync_ns",
		(json_int_t)floor_sync_ns(options->state_dir), "pages_written",
		(json_int_t)guest->pages_written, "digests_equal", 1, "source",
		side_report(measured), "destination", destination);

	if (!report)
		die(NULL, "no memory for the report");
	json_dumpf(report, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(report);
}

static void send_guest(const struct options *options)
{
	int fd = pair_connect(&options->address, options->port);
	struct setup setup = {
		.shape = options->shape,
		.tcp = options->transport == ramlift_transport_tcp(),
		.register_threads = options->register_threads,
	};
	struct measured measured = { 0 };
	struct move_guest guest;
	uint64_t digest, round_trip;
	uint16_t port;

	pair_write(fd, &setup, sizeof(setup));
	move_guest_init(&guest, &options->shape);
	move_guest_fill(&guest);
	pair_read(fd, &port, sizeof(port));
	round_trip = floor_round_trip_ns(fd);
	move_guest_start(&guest);
	clock_sleep_until(clock_now_ns() + options->settle_ms * NS_PER_MS);
	run_source(options, &guest, port, &measured);
	pair_write(fd, "", 1);
	pair_read(fd, &digest, sizeof(digest));
	if (digest != move_guest_digest(&guest)) {
		fprintf(stderr, "move: the digests differ: other bytes arrived\n");
		exit(1);
	}
	print_report(options, &measured, receive_report(fd), round_trip, &guest);
	move_guest_fini(&guest);
	close(fd);
}

/* ---- options ---- */

static uint32_t parse_memory(struct argp_state *state, const char *text)
{
	uint32_t memory = 0;

	while (memory < GUEST_MEMORY_COUNT && strcmp(guest_memory_names[memory], text))
		memory++;
	if (memory == GUEST_MEMORY_COUNT)
		argp_error(state, "memory '%s' is none of memfd, anonymous, thp, hugetlb", text);
	return memory;
}

enum {
	OPTION_RANDOM = 256,
	OPTION_PREALLOC,
	OPTION_DATA,
	OPTION_STATE,
	OPTION_WRITE_RATE,
	OPTION_WRITE_SET,
	OPTION_SLICE,
	OPTION_THREADS,
	OPTION_DOWNTIME,
	OPTION_SETTLE,
	OPTION_VERIFY,
	OPTION_RSS,
};

static const struct argp_option option_table[] = {
	{ "transport", 't', "NAME", 0, "rdma (the default) or tcp", 0 },
	{ "port", 'p', "NUMBER", 0, "port of the tool's own connection, 7470", 0 },
	{ "rss", OPTION_RSS, NULL, 0, "look at this process's anonymous memory at every tick", 0 },
	{ NULL, 0, NULL, 0, "For the sender:", 1 },
	{ "mib", 'm', "NUMBER", 0, "the guest's memory, 256 MiB", 1 },
	{ "memory", 'M', "KIND", 0, "memfd (the default), anonymous, thp, hugetlb", 1 },
	{ "random", OPTION_RANDOM, "PERCENT", 0, "pages with random contents, 100", 1 },
	{ "data-mib", OPTION_DATA, "NUMBER", 0, "so many random MiB, evenly spread, instead", 1 },
	{ "prealloc", OPTION_PREALLOC, NULL, 0, "touch all memory on both sides before", 1 },
	{ "state-kib", OPTION_STATE, "NUMBER", 0, "the guest's state besides memory, 32 KiB", 1 },
	{ "write-mib-per-s", OPTION_WRITE_RATE, "NUMBER", 0, "a thread dirties so much", 1 },
	{ "write-set-mib", OPTION_WRITE_SET, "NUMBER", 0, "within the first so many MiB; all", 1 },
	{ "settle-ms", OPTION_SETTLE, "NUMBER", 0, "wait before the session begins", 1 },
	{ "lanes", 'l', "NUMBER", 0, "lanes; the library's default", 1 },
	{ "slice-mib", OPTION_SLICE, "NUMBER", 0, "unit of registration; the default", 1 },
	{ "register-threads", OPTION_THREADS, "NUMBER", 0, "on each side; the default", 1 },
	{ "max-downtime-ms", OPTION_DOWNTIME, "NUMBER", 0, "the default", 1 },
	{ "verify", OPTION_VERIFY, NULL, 0, "let the session compare digests as well", 1 },
	{ 0 },
};

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;
	struct guest_shape *shape = &options->shape;

	switch (key) {
	case 't':
		options->transport = parse_transport(state, text);
		return 0;
	case 'p':
		options->port = (unsigned)parse_number(state, text, 1, 65535);
		return 0;
	case 'm':
		shape->bytes = parse_number(state, text, 1, 16ul << 20) << 20;
		return 0;
	case 'M':
		shape->memory = parse_memory(state, text);
		return 0;
	case OPTION_RANDOM:
		shape->random_percent = (uint32_t)parse_number(state, text, 0, 100);
		return 0;
	case OPTION_DATA:
		shape->data_mib = (uint32_t)parse_number(state, text, 1, 1u << 20);
		return 0;
	case OPTION_PREALLOC:
		shape->preallocated = 1;
		return 0;
	case OPTION_STATE:
		shape->state_bytes = (uint32_t)parse_number(state, text, 1, 16384) << 10;
		return 0;
	case OPTION_WRITE_RATE:
		shape->write_pages_per_s = parse_number(state, text, 0, 1ul << 30) << 8;
		return 0;
	case OPTION_WRITE_SET:
		shape->write_set_bytes = parse_number(state, text, 1, 16ul << 20) << 20;
		return 0;
	case 'l':
		options->lanes = (unsigned)parse_number(state, text, 1, RAMLIFT_MAX_LANES);
		return 0;
	case OPTION_SLICE:
		options->slice_mib = (unsigned)parse_number(state, text, 1, 4096);
		return 0;
	case OPTION_THREADS:
		options->register_threads = (unsigned)parse_number(state, text, 1, 64);
		return 0;
	case OPTION_DOWNTIME:
		options->max_downtime_ms = (unsigned)parse_number(state, text, 1, 1000000);
		return 0;
	case OPTION_SETTLE:
		options->settle_ms = (unsigned)parse_number(state, text, 0, 1000000);
		return 0;
	case OPTION_VERIFY:
		options->verify = true;
		return 0;
	case OPTION_RSS:
		options->rss = true;
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num == 0 && (!strcmp(text, "send") || !strcmp(text, "receive")))
			options->send = !strcmp(text, "send");
		else if (state->arg_num != 1 ||
			 inet_pton(AF_INET, text, &options->address.sin_addr) != 1)
			argp_usage(state);
		return 0;
	case ARGP_KEY_END:
		if (state->arg_num != 2)
			argp_usage(state);
		if (shape->data_mib > shape->bytes >> 20)
			argp_error(state, "more data than memory");
		if (!shape->write_set_bytes || shape->write_set_bytes > shape->bytes)
			shape->write_set_bytes = shape->bytes;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = { option_table,
					  parse_option,
					  "send|receive ADDRESS",
					  "Move a guest of memory only and measure it.",
					  NULL,
					  NULL,
					  NULL };
	struct options options = {
		.address = { .sin_family = AF_INET },
		.transport = ramlift_transport_rdma(),
		.port = PAIR_PORT,
		.shape = { .bytes = 256ull << 20, .random_percent = 100, .state_bytes = 32 << 10 },
		.state_dir = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	argp_parse(&argp, argc, argv, 0, NULL, &options);
	if (options.send) {
		need_transport(options.transport, NULL, &options.address);
		send_guest(&options);
	} else {
		receive(&options);
	}
	return 0;
}
