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
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/clock.h"
#include "core/ramlift.h"
#include "core/transport.h"

#define DEADLINE_NS (60 * NS_PER_S)
#define TOKEN_BASE  0x746f6b656e000000ull
#define MAX_SLICES  4096u
#define EXIT_SKIP   77

struct options {
	bool send;
	struct sockaddr_in address;
	const struct ramlift_transport *transport;
	unsigned port; /* of the control connection */
	unsigned mib, slice_mib, lanes, write_kib, batch, rounds;
};

/* From the sender, at the beginning. Both sides are the same build on the same architecture. */
struct setup {
	uint8_t session_id[SESSION_ID_BYTES];
	uint32_t mib, slice_mib, lanes;
};

struct memory {
	uint8_t *ram;
	uint64_t bytes;
	struct slice *slices;
	struct slice_key *keys;
	unsigned n_slices;
};

struct sender {
	const struct options *options;
	struct endpoint *endpoint;
	struct memory *memory;
	unsigned lane;
	int ret;
	struct ramlift_error error;
	pthread_t thread;
};

static _Noreturn void die(const struct ramlift_error *error, const char *what)
{
	fprintf(stderr, "transport_pair: %s: %s\n", what,
		error && error->code ? error->text : strerror(errno));
	exit(1);
}

static void write_all(int fd, const void *data, size_t size)
{
	for (const char *at = data; size;) {
		ssize_t n = write(fd, at, size);

		if (n <= 0)
			die(NULL, "control connection");
		at += n;
		size -= (size_t)n;
	}
}

static void read_all(int fd, void *data, size_t size)
{
	for (char *at = data; size;) {
		ssize_t n = read(fd, at, size);

		if (n <= 0)
			die(NULL, "the other side has gone");
		at += n;
		size -= (size_t)n;
	}
}

static int control_receive(const struct options *options)
{
	struct sockaddr_in address = options->address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, fd;

	address.sin_port = htons((uint16_t)options->port);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1))
		die(NULL, "cannot listen");
	fd = accept(listener, NULL, NULL);
	close(listener);
	if (fd < 0)
		die(NULL, "cannot accept");
	return fd;
}

/* The receiver may start later than the sender. */
static int control_send(const struct options *options)
{
	struct sockaddr_in address = options->address;

	address.sin_port = htons((uint16_t)options->port);
	for (unsigned tries = 0; tries < 100; tries++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

		if (fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address))) {
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
			return fd;
		}
		close(fd);
		clock_sleep_until(clock_now_ns() + 50 * NS_PER_MS);
	}
	die(NULL, "cannot connect");
}

static void memory_init(struct memory *memory, unsigned mib, unsigned slice_mib)
{
	uint64_t slice_bytes = (uint64_t)slice_mib << 20;

	memory->bytes = (uint64_t)mib << 20;
	memory->n_slices = (unsigned)((memory->bytes + slice_bytes - 1) / slice_bytes);
	memory->ram = mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	memory->slices = calloc(memory->n_slices, sizeof(*memory->slices));
	memory->keys = calloc(memory->n_slices, sizeof(*memory->keys));
	if (memory->ram == MAP_FAILED || !memory->slices || !memory->keys)
		die(NULL, "cannot allocate memory");
	for (unsigned i = 0; i < memory->n_slices; i++) {
		uint64_t start = i * slice_bytes;
		uint64_t left = memory->bytes - start;

		memory->slices[i] = (struct slice){
			.hva = memory->ram + start,
			.size_bytes = left < slice_bytes ? left : slice_bytes,
		};
	}
}

static void memory_free(struct memory *memory)
{
	munmap(memory->ram, memory->bytes);
	free(memory->slices);
	free(memory->keys);
}

static void fill_random(struct memory *memory)
{
	uint64_t *words = (uint64_t *)(void *)memory->ram, state;

	if (getrandom(&state, sizeof(state), 0) != sizeof(state))
		die(NULL, "no random numbers");
	state |= 1;
	for (uint64_t i = 0; i < memory->bytes / sizeof(*words); i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		words[i] = state;
	}
}

static double cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void params_init(struct transport_params *params, const struct setup *setup,
			const struct memory *memory)
{
	*params = (struct transport_params){
		.n_rails = 1,
		.n_lanes = setup->lanes,
		.slices = memory->slices,
		.n_slices = memory->n_slices,
		.interrupt_fd = -1,
		.io_timeout_ns = 5 * NS_PER_S,
	};
	memcpy(params->session_id, setup->session_id, SESSION_ID_BYTES);
}

static void receive(const struct options *options)
{
	const struct ramlift_transport *transport = options->transport;
	struct transport_params params;
	struct ramlift_error error = { 0 };
	struct memory memory;
	struct endpoint *endpoint;
	struct setup setup;
	uint64_t digest, started_ns, fenced_ns;
	struct sockaddr_storage bound;
	uint16_t port;
	uint8_t done;
	int fd = control_receive(options);

	read_all(fd, &setup, sizeof(setup));
	if (!setup.lanes || setup.lanes > RAMLIFT_MAX_LANES || !setup.mib || !setup.slice_mib ||
	    setup.mib / setup.slice_mib >= MAX_SLICES)
		die(NULL, "the sender asks for nonsense");
	memory_init(&memory, setup.mib, setup.slice_mib);
	params_init(&params, &setup, &memory);
	if (transport->listen(&params, (const struct sockaddr *)&options->address, &endpoint,
			      &bound, &error))
		die(&error, "listen");
	port = ntohs(((struct sockaddr_in *)&bound)->sin_port);
	for (unsigned i = 0; i < memory.n_slices; i++)
		if (transport->register_slice(endpoint, i, 1, &memory.keys[i], &error))
			die(&error, "register");
	write_all(fd, &port, sizeof(port));
	write_all(fd, memory.keys, memory.n_slices * sizeof(*memory.keys));
	if (transport->accept(endpoint, clock_now_ns() + DEADLINE_NS, &error))
		die(&error, "accept");
	if (transport->await_tokens(endpoint, TOKEN_BASE, clock_now_ns() + 10 * DEADLINE_NS,
				    &error))
		die(&error, "await_tokens");
	started_ns = clock_now_ns();
	if (transport->fence(endpoint, &error))
		die(&error, "fence");
	fenced_ns = clock_now_ns() - started_ns;
	digest = XXH3_64bits(memory.ram, memory.bytes);
	write_all(fd, &digest, sizeof(digest));
	read_all(fd, &done, sizeof(done));
	printf("received: fence_us=%.0f cpu_s=%.3f\n", (double)fenced_ns / 1e3, cpu_seconds());
	transport->close(endpoint);
	memory_free(&memory);
	close(fd);
}

/* A lane's share of a round: every n_lanes-th batch of writes. The first word of each write says
 * the round, so that an old copy that lands late shows in the digest. */
static int send_round(struct sender *sender, unsigned round)
{
	const struct options *options = sender->options;
	struct memory *memory = sender->memory;
	uint32_t length = options->write_kib << 10;
	struct transport_write writes[TRANSPORT_MAX_BATCH];
	uint64_t n_writes = memory->bytes / length;
	uint64_t stride = (uint64_t)options->batch * options->lanes;
	int ret = 0;

	for (uint64_t first = (uint64_t)sender->lane * options->batch; first < n_writes && !ret;
	     first += stride) {
		unsigned n = 0;

		for (; n < options->batch && first + n < n_writes; n++) {
			uint64_t offset = (first + n) * length;
			uint64_t slice_bytes = memory->slices[0].size_bytes;

			memcpy(memory->ram + offset, &round, sizeof(round));
			writes[n] = (struct transport_write){
				.slice = (uint32_t)(offset / slice_bytes),
				.offset_bytes = offset % slice_bytes,
				.length_bytes = length,
			};
		}
		ret = options->transport->post(sender->endpoint, sender->lane, writes, n,
					       &sender->error);
	}
	return ret;
}

static void *send_lane(void *argument)
{
	struct sender *sender = argument;

	for (unsigned round = 0; round < sender->options->rounds && !sender->ret; round++)
		sender->ret = send_round(sender, round);
	if (!sender->ret)
		sender->ret = sender->options->transport->token(sender->endpoint, sender->lane,
								TOKEN_BASE, &sender->error);
	return NULL;
}

static void send_lanes(const struct options *options, struct endpoint *endpoint,
		       struct memory *memory)
{
	struct sender senders[RAMLIFT_MAX_LANES] = { 0 };
	uint64_t started_ns = clock_now_ns();
	double cpu = cpu_seconds(), seconds, bytes;

	for (unsigned i = 0; i < options->lanes; i++) {
		senders[i] = (struct sender){ options, endpoint, memory, i, 0, { 0 }, 0 };
		if (pthread_create(&senders[i].thread, NULL, send_lane, &senders[i]))
			die(NULL, "cannot start a thread");
	}
	for (unsigned i = 0; i < options->lanes; i++)
		pthread_join(senders[i].thread, NULL);
	seconds = (double)(clock_now_ns() - started_ns) / 1e9;
	cpu = cpu_seconds() - cpu;
	for (unsigned i = 0; i < options->lanes; i++)
		if (senders[i].ret) {
			fprintf(stderr, "after %.1f s: ", seconds);
			die(&senders[i].error, "send");
		}
	bytes = (double)memory->bytes * options->rounds;
	printf("sent: transport=%s lanes=%u write_kib=%u batch=%u mib=%.0f seconds=%.3f "
	       "mib_per_s=%.1f gbit_per_s=%.2f cpu_s_per_gb=%.3f\n",
	       options->transport->name, options->lanes, options->write_kib, options->batch,
	       bytes / (1 << 20), seconds, bytes / (1 << 20) / seconds, bytes * 8 / 1e9 / seconds,
	       cpu / (bytes / 1e9));
}

static void send_memory(const struct options *options)
{
	const struct ramlift_transport *transport = options->transport;
	struct sockaddr_in peer = options->address;
	struct sockaddr_storage peers[1] = { 0 };
	struct setup setup = { .mib = options->mib,
			       .slice_mib = options->slice_mib,
			       .lanes = options->lanes };
	struct transport_params params;
	struct ramlift_error error = { 0 };
	struct memory memory;
	struct endpoint *endpoint;
	uint64_t digest;
	uint16_t port;
	int fd;

	if (getrandom(setup.session_id, SESSION_ID_BYTES, 0) != SESSION_ID_BYTES)
		die(NULL, "no random numbers");
	memory_init(&memory, options->mib, options->slice_mib);
	fill_random(&memory);
	params_init(&params, &setup, &memory);
	fd = control_send(options);
	write_all(fd, &setup, sizeof(setup));
	read_all(fd, &port, sizeof(port));
	read_all(fd, memory.keys, memory.n_slices * sizeof(*memory.keys));
	peer.sin_port = htons(port);
	memcpy(&peers[0], &peer, sizeof(peer));
	if (transport->connect(&params, peers, clock_now_ns() + DEADLINE_NS, &endpoint, &error))
		die(&error, "connect");
	for (unsigned i = 0; i < memory.n_slices; i++) {
		if (transport->register_slice(endpoint, i, 1, NULL, &error))
			die(&error, "register");
		transport->set_peer_key(endpoint, i, &memory.keys[i]);
	}
	send_lanes(options, endpoint, &memory);
	read_all(fd, &digest, sizeof(digest));
	if (digest != XXH3_64bits(memory.ram, memory.bytes)) {
		fprintf(stderr, "transport_pair: the digests differ: other bytes arrived\n");
		exit(1);
	}
	printf("digest=%016llx equal\n", (unsigned long long)digest);
	write_all(fd, "", 1);
	transport->close(endpoint);
	memory_free(&memory);
	close(fd);
}

static unsigned parse_number(struct argp_state *state, const char *text, unsigned low,
			     unsigned high)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || end == text || value < low || value > high)
		argp_error(state, "'%s' is not a number from %u to %u", text, low, high);
	return (unsigned)value;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 't':
		if (!strcmp(text, "rdma"))
			options->transport = ramlift_transport_rdma();
		else if (!strcmp(text, "tcp"))
			options->transport = ramlift_transport_tcp();
		else
			argp_error(state, "transport '%s' is neither rdma nor tcp", text);
		return 0;
	case 'p':
		options->port = parse_number(state, text, 1, 65535);
		return 0;
	case 'm':
		options->mib = parse_number(state, text, 1, 1u << 20);
		return 0;
	case 's':
		options->slice_mib = parse_number(state, text, 1, 4096);
		return 0;
	case 'l':
		options->lanes = parse_number(state, text, 1, RAMLIFT_MAX_LANES);
		return 0;
	case 'w':
		options->write_kib = parse_number(state, text, 4, TRANSPORT_MAX_WRITE_BYTES >> 10);
		return 0;
	case 'b':
		options->batch = parse_number(state, text, 1, TRANSPORT_MAX_BATCH);
		return 0;
	case 'r':
		options->rounds = parse_number(state, text, 1, 1u << 30);
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
		.address = { .sin_family = AF_INET },
		.transport = ramlift_transport_rdma(),
		.port = 7470,
		.mib = 256,
		.slice_mib = 64,
		.lanes = 4,
		.write_kib = 64,
		.batch = TRANSPORT_MAX_BATCH,
		.rounds = 1,
	};
	const struct sockaddr *address = (const struct sockaddr *)&options.address;
	struct ramlift_error error = { 0 };

	setvbuf(stdout, NULL, _IOLBF, 0);
	argp_parse(&argp, argc, argv, 0, NULL, &options);
	if (options.transport->probe(options.send ? NULL : address, options.send ? address : NULL,
				     &error)) {
		fprintf(stderr, "transport_pair: skipped: %s\n", error.text);
		return EXIT_SKIP;
	}
	if (options.send)
		send_memory(&options);
	else
		receive(&options);
	return 0;
}
