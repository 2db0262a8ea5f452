/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/endpoint_pair.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/clock.h"

#define DEADLINE_NS   (60 * NS_PER_S)
#define IO_TIMEOUT_NS (5 * NS_PER_S)
#define MAX_SLICES    4096u

/* What the receiver found. */
struct receipt {
	uint64_t digest;
	struct cpu_time cpu;
};

static void map_memory(struct endpoint_pair *pair)
{
	uint64_t bytes = (uint64_t)pair->setup.mib << 20;
	void *hva = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	pair->region = (struct ramlift_region){
		.size_bytes = bytes,
		.hva = hva,
		.memfd = -1,
		.numa_node = -1,
		.page_size_bytes = RAMLIFT_PAGE_BYTES,
	};
	if (hva == MAP_FAILED ||
	    ram_init(&pair->ram, &pair->region, 1, (uint64_t)pair->setup.slice_mib << 20))
		die(NULL, "cannot allocate memory");
	pair->keys = calloc(pair->ram.n_slices, sizeof(*pair->keys));
	if (!pair->keys)
		die(NULL, "cannot allocate memory");
	pair->params = (struct transport_params){
		.n_rails = 1,
		.n_lanes = pair->setup.lanes,
		.slices = pair->ram.slices,
		.n_slices = pair->ram.n_slices,
		.interrupt_fd = -1,
		.io_timeout_ns = IO_TIMEOUT_NS,
	};
	memcpy(pair->params.session_id, pair->setup.session_id, SESSION_ID_BYTES);
	if (pair->setup.tls)
		pair->params.lane_secret = (const uint8_t *)"a secret is what it is not, here";
}

void endpoint_pair_close(struct endpoint_pair *pair)
{
	pair->way.transport->close(pair->endpoint);
	munmap(pair->region.hva, pair->region.size_bytes);
	ram_fini(&pair->ram);
	free(pair->keys);
	close(pair->fd);
}

void endpoint_pair_tokens(uint64_t tokens[RAMLIFT_MAX_LANES])
{
	for (unsigned i = 0; i < RAMLIFT_MAX_LANES; i++)
		tokens[i] = ENDPOINT_PAIR_TOKEN;
}

static void receive_lanes(struct endpoint_pair *pair)
{
	const struct ramlift_transport *transport = pair->way.transport;
	struct ramlift_error error = { 0 };
	struct receipt receipt;
	struct cpu_time cpu;
	uint64_t begin_ns, fence_ns;
	uint8_t done;
	uint64_t tokens[RAMLIFT_MAX_LANES];

	endpoint_pair_tokens(tokens);
	if (transport->accept(pair->endpoint, clock_now_ns() + DEADLINE_NS, &error))
		die(&error, "accept");
	cpu = cpu_now();
	if (transport->await_tokens(pair->endpoint, tokens, clock_now_ns() + 10 * DEADLINE_NS,
				    &error))
		die(&error, "await_tokens");
	receipt.cpu = cpu_since(cpu);
	begin_ns = clock_now_ns();
	if (transport->fence(pair->endpoint, &error))
		die(&error, "fence");
	fence_ns = clock_now_ns() - begin_ns;
	receipt.digest = XXH3_64bits(pair->region.hva, pair->region.size_bytes);
	pair_write(pair->fd, &receipt, sizeof(receipt));
	pair_read(pair->fd, &done, sizeof(done));
	fprintf(stderr, "received: fence_us=%.0f\n", (double)fence_ns / 1e3);
}

void endpoint_pair_receive(const struct endpoint_pair_way *way)
{
	const struct ramlift_transport *transport = way->transport;
	struct endpoint_pair pair = { .way = *way };
	struct ramlift_error error = { 0 };
	struct sockaddr_storage bound;

	pair.fd = pair_accept(&way->address, way->port);
	pair_read(pair.fd, &pair.setup, sizeof(pair.setup));
	if (!pair.setup.lanes || pair.setup.lanes > RAMLIFT_MAX_LANES || !pair.setup.mib ||
	    !pair.setup.slice_mib || pair.setup.mib / pair.setup.slice_mib >= MAX_SLICES) {
		errno = EPROTO;
		die(NULL, "the sender asks for nonsense");
	}
	map_memory(&pair);
	if (transport->listen(&pair.params, (const struct sockaddr *)&way->address, &pair.endpoint,
			      &bound, &error))
		die(&error, "listen");
	for (unsigned i = 0; i < pair.ram.n_slices; i++)
		if (transport->register_slice(pair.endpoint, i, 1, &pair.keys[i], &error))
			die(&error, "register");
	pair_write(pair.fd, &bound, sizeof(bound));
	pair_write(pair.fd, pair.keys, pair.ram.n_slices * sizeof(*pair.keys));
	receive_lanes(&pair);
	endpoint_pair_close(&pair);
}

void endpoint_pair_open(struct endpoint_pair *pair, const struct endpoint_pair_way *way,
			const struct endpoint_pair_setup *setup)
{
	const struct ramlift_transport *transport = way->transport;
	struct ramlift_error error = { 0 };
	struct sockaddr_storage peer;

	*pair = (struct endpoint_pair){ .way = *way, .setup = *setup };
	if (getrandom(pair->setup.session_id, SESSION_ID_BYTES, 0) != SESSION_ID_BYTES)
		die(NULL, "no random numbers");
	map_memory(pair);
	fill_random(pair->region.hva, pair->region.size_bytes);
	pair->fd = pair_connect(&way->address, way->port);
	pair_write(pair->fd, &pair->setup, sizeof(pair->setup));
	pair_read(pair->fd, &peer, sizeof(peer));
	pair_read(pair->fd, pair->keys, pair->ram.n_slices * sizeof(*pair->keys));
	if (transport->connect(&pair->params, &peer, clock_now_ns() + DEADLINE_NS, &pair->endpoint,
			       &error))
		die(&error, "connect");
	for (unsigned i = 0; i < pair->ram.n_slices; i++) {
		if (transport->register_slice(pair->endpoint, i, 1, NULL, &error))
			die(&error, "register");
		transport->set_peer_key(pair->endpoint, i, &pair->keys[i]);
	}
}

uint64_t endpoint_pair_compare(struct endpoint_pair *pair)
{
	struct receipt receipt;

	pair_read(pair->fd, &receipt, sizeof(receipt));
	if (receipt.digest != XXH3_64bits(pair->region.hva, pair->region.size_bytes)) {
		fprintf(stderr, "%s: the digests differ: other bytes arrived\n",
			program_invocation_short_name);
		exit(1);
	}
	pair->receiver_cpu = receipt.cpu;
	pair_write(pair->fd, "", 1);
	return receipt.digest;
}
