/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bulk rate of the engine's lanes: dirty set, core/lanes.c and a transport as a session has
 * them, without the session. The same memory is dirtied and sent in rounds; only the time from the
 * lanes' waking until the last byte has arrived is measured. Prints one line of JSON.
 *
 *     lanes receive ADDRESS [-t NAME] [--port N]     serves one sender, then exits
 *     lanes send ADDRESS [OPTIONS]
 *
 * Exit status: 0 the same bytes arrived, 1 not, 77 no device for this transport.
 */
#include <argp.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/endpoint_pair.h"
#include "bench/usable_pins.h"
#include "core/clock.h"
#include "core/dirty_set.h"
#include "core/lanes.h"

#define DEADLINE_NS (30 * NS_PER_S)
#define POLL_NS	    (NS_PER_MS / 2)
#define MAX_ROUNDS  1000u

/* Which pages of each stripe of 64 are dirty. */
struct pattern {
	const char *name;
	uint64_t word, odd_word; /* of even and odd stripes */
};

static const struct pattern patterns[] = {
	{ "whole", ~0ull, ~0ull },	       /* runs of 256 KiB */
	{ "64k", 0xffffull, 0xffffull << 32 }, /* one run of 64 KiB in each 256 KiB */
	{ "4k", 0x5555555555555555ull, 0x5555555555555555ull }, /* every second page */
};

struct options {
	bool send;
	struct endpoint_pair_way way;
	struct endpoint_pair_setup setup;
	unsigned rounds;
	const struct pattern *pattern;
};

struct sums {
	uint64_t bytes, ns;
	struct cpu_time cpu;
	double rates[MAX_ROUNDS]; /* MiB/s of each round */
};

/* Change and mark the pattern's pages, and let a tick pass, so that they are quiet. */
static uint64_t dirty_round(const struct pattern *pattern, struct ramlift_dirty_sink *set,
			    const struct ram *ram, uint64_t round)
{
	uint64_t bytes = 0;

	for (uint64_t stripe = 0; stripe < ram_region_stripes(ram, 0); stripe++) {
		uint64_t word = stripe % 2 ? pattern->odd_word : pattern->word;
		uint64_t bits = word;
		char *hva = (char *)ram->regions[0].hva + stripe * STRIPE_BYTES;

		for (unsigned page; bit_next(&bits, &page);) {
			memcpy(hva + (uint64_t)page * RAMLIFT_PAGE_BYTES, &round, sizeof(round));
			bytes += RAMLIFT_PAGE_BYTES;
		}
		ramlift_dirty_mark_words(set, 0, stripe * STRIPE_PAGES, &word, 1);
	}
	dirty_set_fold(set);
	dirty_set_fold(set);
	return bytes;
}

/* Until all that was dirty has arrived. */
static void await_round(struct lanes *lanes, const struct ramlift_dirty_sink *set)
{
	uint64_t deadline_ns = clock_now_ns() + DEADLINE_NS;
	struct ramlift_error error = { 0 };

	while (lanes_done_bytes(lanes) < dirty_set_added_bytes(set)) {
		if (lanes_check(lanes, &error))
			die(&error, "send");
		if (clock_now_ns() > deadline_ns) {
			fprintf(stderr, "lanes: stalled: %llu of %llu bytes done, %llu in flight\n",
				(unsigned long long)lanes_done_bytes(lanes),
				(unsigned long long)dirty_set_added_bytes(set),
				(unsigned long long)lanes_in_flight_bytes(lanes));
			exit(1);
		}
		clock_sleep_until(clock_now_ns() + POLL_NS);
	}
}

static void send_rounds(const struct options *options, struct endpoint_pair *pair,
			struct ramlift_dirty_sink *set, struct lanes *lanes, struct sums *sums)
{
	uint64_t tokens[RAMLIFT_MAX_LANES];
	struct ramlift_error error = { 0 };

	/* Once all of it, so that both memories are equal; not measured. */
	dirty_round(&patterns[0], set, &pair->ram, MAX_ROUNDS);
	lanes_wake(lanes);
	await_round(lanes, set);
	for (unsigned round = 0; round < options->rounds; round++) {
		uint64_t bytes = dirty_round(options->pattern, set, &pair->ram, round);
		struct cpu_time cpu = cpu_now();
		uint64_t begin_ns = clock_now_ns(), ns;

		if (round + 1 < options->rounds) {
			lanes_wake(lanes);
			await_round(lanes, set);
		} else {
			endpoint_pair_tokens(tokens);
			lanes_finish(lanes, tokens);
			if (lanes_wait(lanes, begin_ns + DEADLINE_NS, &error))
				die(&error, "finish");
		}
		ns = clock_now_ns() - begin_ns;
		cpu = cpu_since(cpu);
		sums->bytes += bytes;
		sums->ns += ns;
		sums->cpu.user_ns += cpu.user_ns;
		sums->cpu.system_ns += cpu.system_ns;
		sums->rates[round] = (double)bytes / (1 << 20) / ((double)ns / 1e9);
	}
}

static void print_report(const struct options *options, const struct endpoint_pair *pair,
			 const struct sums *sums)
{
	printf("{\"transport\":\"%s\",\"tls\":%s,\"lanes\":%u,\"pattern\":\"%s\",\"mib\":%u,"
	       "\"rounds\":%u,"
	       "\"bytes\":%llu,\"ns\":%llu,\"mib_per_s\":%.1f,\"digests_equal\":true,",
	       options->way.transport->name, options->setup.tls ? "true" : "false",
	       options->setup.lanes, options->pattern->name, options->setup.mib, options->rounds,
	       (unsigned long long)sums->bytes, (unsigned long long)sums->ns,
	       (double)sums->bytes / (1 << 20) / ((double)sums->ns / 1e9));
	printf("\"source\":{\"cpu_user_ns\":%llu,\"cpu_system_ns\":%llu},"
	       "\"destination\":{\"cpu_user_ns\":%llu,\"cpu_system_ns\":%llu},\"round_mib_per_s\":"
	       "[",
	       (unsigned long long)sums->cpu.user_ns, (unsigned long long)sums->cpu.system_ns,
	       (unsigned long long)pair->receiver_cpu.user_ns,
	       (unsigned long long)pair->receiver_cpu.system_ns);
	for (unsigned i = 0; i < options->rounds; i++)
		printf("%s%.1f", i ? "," : "", sums->rates[i]);
	printf("]}\n");
}

static void send_memory(const struct options *options)
{
	static struct endpoint_pair pair;
	static struct sums sums;
	struct ramlift_dirty_sink set;
	struct ramlift_error error = { 0 };
	struct lanes_config config;
	struct lanes *lanes;
	struct pins *pins;

	endpoint_pair_open(&pair, &options->way, &options->setup);
	if (dirty_set_init(&set, &pair.ram))
		die(NULL, "no memory for the bitmaps");
	pins = usable_pins(&pair.ram, pair.endpoint);
	config = (struct lanes_config){
		.ram = &pair.ram,
		.set = &set,
		.pins = pins,
		.transport = pair.way.transport,
		.endpoint = pair.endpoint,
		.n_rails = 1,
		.n_lanes = pair.setup.lanes,
		.region_rails = usable_pins_region_rails,
	};
	if (lanes_start(&config, &lanes, &error))
		die(&error, "lanes");
	send_rounds(options, &pair, &set, lanes, &sums);
	lanes_free(lanes);
	pins_free(pins);
	endpoint_pair_compare(&pair);
	print_report(options, &pair, &sums);
	dirty_set_fini(&set);
	endpoint_pair_close(&pair);
}

static const struct pattern *parse_pattern(struct argp_state *state, const char *text)
{
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
		if (!strcmp(patterns[i].name, text))
			return &patterns[i];
	argp_error(state, "pattern '%s' is none of whole, 64k, 4k", text);
	return NULL;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 't':
		options->way.transport = parse_transport(state, text);
		return 0;
	case 'p':
		options->way.port = (unsigned)parse_number(state, text, 1, 65535);
		return 0;
	case 'm':
		options->setup.mib = (uint32_t)parse_number(state, text, 1, 1u << 20);
		return 0;
	case 's':
		options->setup.slice_mib = (uint32_t)parse_number(state, text, 1, 4096);
		return 0;
	case 'l':
		options->setup.lanes = (uint32_t)parse_number(state, text, 1, RAMLIFT_MAX_LANES);
		return 0;
	case 'r':
		options->rounds = (unsigned)parse_number(state, text, 1, MAX_ROUNDS);
		return 0;
	case 'T':
		options->setup.tls = 1;
		return 0;
	case 'P':
		options->pattern = parse_pattern(state, text);
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num == 0 && (!strcmp(text, "send") || !strcmp(text, "receive")))
			options->send = !strcmp(text, "send");
		else if (state->arg_num != 1 ||
			 inet_pton(AF_INET, text, &options->way.address.sin_addr) != 1)
			argp_usage(state);
		return 0;
	case ARGP_KEY_END:
		if (state->arg_num != 2)
			argp_usage(state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option option_table[] = {
	{ "transport", 't', "NAME", 0, "rdma (the default) or tcp", 0 },
	{ "port", 'p', "NUMBER", 0, "port of the tool's own connection, 7470", 0 },
	{ "mib", 'm', "NUMBER", 0, "memory, 1024 MiB", 0 },
	{ "slice-mib", 's', "NUMBER", 0, "unit of registration, 256 MiB", 0 },
	{ "lanes", 'l', "NUMBER", 0, "lanes, 4", 0 },
	{ "rounds", 'r', "NUMBER", 0, "times it is dirtied and sent, 3", 0 },
	{ "tls", 'T', NULL, 0, "TCP lanes under TLS", 0 },
	{ "pattern", 'P', "NAME", 0, "whole (the default), 64k, 4k", 0 },
	{ 0 },
};

int main(int argc, char **argv)
{
	static const struct argp argp = { option_table,
					  parse_option,
					  "send|receive ADDRESS",
					  "Measure the engine's lanes over a transport.",
					  NULL,
					  NULL,
					  NULL };
	struct options options = {
		.way = { .address = { .sin_family = AF_INET },
			 .transport = ramlift_transport_rdma(),
			 .port = PAIR_PORT },
		.setup = { .mib = 1024, .slice_mib = 256, .lanes = 4 },
		.rounds = 3,
		.pattern = &patterns[0],
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	argp_parse(&argp, argc, argv, 0, NULL, &options);
	if (options.send) {
		need_transport(options.way.transport, NULL, &options.way.address);
		send_memory(&options);
	} else {
		need_transport(options.way.transport, &options.way.address, NULL);
		endpoint_pair_receive(&options.way);
	}
	return 0;
}
