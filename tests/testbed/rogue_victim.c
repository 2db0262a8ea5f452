/* SPDX-License-Identifier: Apache-2.0 */
/* The victim: one session after the other, each with memory of its own. */
#include "tests/testbed/rogue.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/pair.h"
#include "core/clock.h"

#define MEMORY_BYTES (2 * ROGUE_EDGE_BYTES + ROGUE_SLICES * ROGUE_SLICE_BYTES)
#define DEADLINE_NS  (20 * NS_PER_S)

struct victim {
	int fd;
	const struct ramlift_transport *transport;
	struct endpoint *endpoint;
	struct slice slices[ROGUE_SLICES];
	char *memory, *before;
};

static void map_memory(struct victim *victim)
{
	victim->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	victim->before = malloc(MEMORY_BYTES);
	if (victim->memory == MAP_FAILED || !victim->before)
		die(NULL, "cannot allocate memory");
	fill_random(victim->memory, MEMORY_BYTES);
	memcpy(victim->before, victim->memory, MEMORY_BYTES);
	for (unsigned i = 0; i < ROGUE_SLICES; i++)
		victim->slices[i] = (struct slice){
			.hva = victim->memory + ROGUE_EDGE_BYTES + i * ROGUE_SLICE_BYTES,
			.size_bytes = ROGUE_SLICE_BYTES,
		};
}

static void let_lane_in(struct victim *victim, const struct sockaddr_in *address)
{
	struct transport_params params = {
		.n_rails = 1,
		.n_lanes = 1,
		.slices = victim->slices,
		.n_slices = ROGUE_SLICES,
		.interrupt_fd = -1,
		.io_timeout_ns = DEADLINE_NS,
	};
	struct rogue_keys keys = { 0 };
	struct ramlift_error error;

	pair_read(victim->fd, params.session_id, SESSION_ID_BYTES);
	if (victim->transport->listen(&params, (const struct sockaddr *)address, &victim->endpoint,
				      &keys.lanes, &error))
		die(&error, "listen");
	for (unsigned i = 0; i < ROGUE_SLICES; i++)
		if (victim->transport->register_slice(victim->endpoint, i, 1, &keys.slices[i],
						      &error))
			die(&error, "register");
	pair_write(victim->fd, &keys, sizeof(keys));
	if (victim->transport->accept(victim->endpoint, clock_now_ns() + DEADLINE_NS, &error))
		die(&error, "accept");
}

static uint8_t serve(struct victim *victim, uint8_t request)
{
	struct ramlift_error error;

	switch (request) {
	case ROGUE_FENCE:
		if (victim->transport->fence(victim->endpoint, &error))
			die(&error, "fence");
		return 0;
	case ROGUE_DEREGISTER:
		for (unsigned i = 0; i < ROGUE_SLICES; i++)
			victim->transport->deregister_slice(victim->endpoint, i);
		return 0;
	case ROGUE_COMPARE:
		return !memcmp(victim->memory, victim->before, MEMORY_BYTES);
	default:
		return 0;
	}
}

void rogue_victim(const struct sockaddr_in *address)
{
	for (;;) {
		struct victim victim = { .transport = ramlift_transport_rdma() };
		uint8_t request, answer;

		alarm(60);
		victim.fd = pair_accept(address, PAIR_PORT);
		map_memory(&victim);
		let_lane_in(&victim, address);
		do {
			pair_read(victim.fd, &request, 1);
			answer = serve(&victim, request);
			pair_write(victim.fd, &answer, 1);
		} while (request != ROGUE_END);
		victim.transport->close(victim.endpoint);
		munmap(victim.memory, MEMORY_BYTES);
		free(victim.before);
		close(victim.fd);
	}
}
