/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes drive a transport through its contract, without a guest: one sends random memory in
 * rounds, over and over the same pages, the other receives it, and both compare digests. Prints
 * what the lanes moved in a second and what that cost in CPU time. Knows no verbs.
 *
 *     transport_pair receive ADDRESS [OPTIONS]      serves one sender, then exits
 *     transport_pair send ADDRESS [OPTIONS]
 *
 * Exit status: 0 the same bytes arrived, 1 not, 2 usage, 77 no device for this transport.
 */
#include <argp.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "bench/endpoint_pair.h"
#include "core/clock.h"

struct options {
	bool send;
	struct endpoint_pair_way way;
	struct endpoint_pair_setup setup;
	unsigned write_kib, batch, rounds;
};

struct sender {
	const struct options *options;
	struct endpoint_pair *pair;
	unsigned lane;
	int ret;
	struct ramlift_error error;
	pthread_t thread;
};

/* A lane's share of a round: every n_lanes-th batch of writes. The first word of each write says
 * the round, so that an old copy that lands late shows in the digest. */
static int send_round(struct sender *sender, unsigned round)
{
	const struct options *options = sender->options;
	const struct ram *ram = &sender->pair->ram;
	char *hva = ram->regions[0].hva;
	uint32_t length = options->write_kib << 10;
	struct transport_write writes[TRANSPORT_MAX_BATCH];
	uint64_t n_writes = ram->bytes / length;
	uint64_t stride = (uint64_t)options->batch * options->setup.lanes;
	int ret = 0;

	for (uint64_t first = (uint64_t)sender->lane * options->batch; first < n_writes && !ret;
	     first += stride) {
		unsigned n = 0;

		for (; n < options->batch && first + n < n_writes; n++) {
			uint64_t offset = (first + n) * length;

			memcpy(hva + offset, &round, sizeof(round));
			writes[n] = (struct transport_write){
				.slice = (uint32_t)(offset / ram->slice_bytes),
				.offset_bytes = offset % ram->slice_bytes,
				.length_bytes = length,
			};
		}
		ret = sender->pair->way.transport->post(sender->pair->endpoint, sender->lane,
							writes, n, &sender->error);
	}
	return ret;
}

static void *send_lane(void *argument)
{
	struct sender *sender = argument;

	for (unsigned round = 0; round < sender->options->rounds && !sender->ret; round++)
		sender->ret = send_round(sender, round);
	if (!sender->ret)
		sender->ret = sender->pair->way.transport->token(
			sender->pair->endpoint, sender->lane, ENDPOINT_PAIR_TOKEN, &sender->error);
	return NULL;
}

static void send_lanes(const struct options *options, struct endpoint_pair *pair)
{
	struct sender senders[RAMLIFT_MAX_LANES] = { 0 };
	uint64_t started_ns = clock_now_ns();
	struct cpu_time cpu = cpu_now();
	double seconds, bytes;

	for (unsigned i = 0; i < options->setup.lanes; i++) {
		senders[i] = (struct sender){ options, pair, i, 0, { 0 }, 0 };
		if (pthread_create(&senders[i].thread, NULL, send_lane, &senders[i]))
			die(NULL, "cannot start a thread");
	}
	for (unsigned i = 0; i < options->setup.lanes; i++)
		pthread_join(senders[i].thread, NULL);
	seconds = (double)(clock_now_ns() - started_ns) / 1e9;
	cpu = cpu_since(cpu);
	for (unsigned i = 0; i < options->setup.lanes; i++)
		if (senders[i].ret) {
			fprintf(stderr, "after %.1f s: ", seconds);
			die(&senders[i].error, "send");
		}
	bytes = (double)pair->ram.bytes * options->rounds;
	printf("sent: transport=%s lanes=%u write_kib=%u batch=%u mib=%.0f seconds=%.3f "
	       "mib_per_s=%.1f gbit_per_s=%.2f cpu_s_per_gb=%.3f\n",
	       options->way.transport->name, options->setup.lanes, options->write_kib,
	       options->batch, bytes / (1 << 20), seconds, bytes / (1 << 20) / seconds,
	       bytes * 8 / 1e9 / seconds, (double)(cpu.user_ns + cpu.system_ns) / bytes);
}

static void send_memory(const struct options *options)
{
	static struct endpoint_pair pair;

	endpoint_pair_open(&pair, &options->way, &options->setup);
	send_lanes(options, &pair);
	printf("digest=%016llx equal\n", (unsigned long long)endpoint_pair_compare(&pair));
	endpoint_pair_close(&pair);
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
	case 'w':
		options->write_kib =
			(unsigned)parse_number(state, text, 4, TRANSPORT_MAX_WRITE_BYTES >> 10);
		return 0;
	case 'b':
		options->batch = (unsigned)parse_number(state, text, 1, TRANSPORT_MAX_BATCH);
		return 0;
	case 'r':
		options->rounds = (unsigned)parse_number(state, text, 1, 1u << 30);
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
		/* Writes must not cross slices. */
		if (options->write_kib & (options->write_kib - 1))
			argp_error(state, "the write size is not a power of two");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option option_table[] = {
	{ "transport", 't', "NAME", 0, "rdma (the default) or tcp", 0 },
	{ "port", 'p', "NUMBER", 0, "port of the control connection, 7470", 0 },
	{ "mib", 'm', "NUMBER", 0, "memory to send, 256 MiB", 0 },
	{ "slice-mib", 's', "NUMBER", 0, "unit of registration, 64 MiB", 0 },
	{ "lanes", 'l', "NUMBER", 0, "lanes, 4", 0 },
	{ "write-kib", 'w', "NUMBER", 0, "size of a write, a power of two, 64 KiB", 0 },
	{ "batch", 'b', "NUMBER", 0, "writes in a post, 32", 0 },
	{ "rounds", 'r', "NUMBER", 0, "times the memory is sent, 1", 0 },
	{ 0 },
};

int main(int argc, char **argv)
{
	static const struct argp argp = { option_table,
					  parse_option,
					  "send|receive ADDRESS",
					  "Send random memory through a transport and compare.",
					  NULL,
					  NULL,
					  NULL };
	struct options options = {
		.way = { .address = { .sin_family = AF_INET },
			 .transport = ramlift_transport_rdma(),
			 .port = PAIR_PORT },
		.setup = { .mib = 256, .slice_mib = 64, .lanes = 4 },
		.write_kib = 64,
		.batch = TRANSPORT_MAX_BATCH,
		.rounds = 1,
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
