/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody who can make queue pairs, and has got hold of keys, tries to write into a guest's
 * memory.
 *
 *     rogue victim ADDRESS       on one host
 *     rogue bystander ADDRESS    on the same, as another process
 *     rogue attack ADDRESS       on the other host; exit status 0: no byte was changed
 *
 * Each way in is tried in a session of its own, for a refused write breaks its queue pair. That
 * allowed writes do land is tried first: else all of this would prove nothing.
 */
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "bench/pair.h"
#include "core/clock.h"
#include "tests/testbed/rogue.h"

#define DEADLINE_NS (20 * NS_PER_S)
#define WRITE_BYTES 8192u

struct rogue {
	struct sockaddr_in address;
	const struct ramlift_transport *transport;
	unsigned failures;

	/* One session. */
	int fd;
	struct endpoint *endpoint;
	struct rogue_keys keys;
};

/* What the rogue sends. */
static char memory[ROGUE_SLICES][ROGUE_SLICE_BYTES] __attribute__((aligned(4096)));
static const struct slice slices[ROGUE_SLICES] = { { memory[0], ROGUE_SLICE_BYTES },
						   { memory[1], ROGUE_SLICE_BYTES } };

static uint8_t ask(struct rogue *rogue, enum rogue_request request)
{
	uint8_t byte = (uint8_t)request;

	pair_write(rogue->fd, &byte, 1);
	pair_read(rogue->fd, &byte, 1);
	return byte;
}

static void open_session(struct rogue *rogue)
{
	struct transport_params params = {
		.n_rails = 1,
		.n_lanes = 1,
		.slices = slices,
		.n_slices = ROGUE_SLICES,
		.interrupt_fd = -1,
		.io_timeout_ns = DEADLINE_NS,
	};
	struct ramlift_error error;

	if (getrandom(params.session_id, SESSION_ID_BYTES, 0) != SESSION_ID_BYTES)
		die(NULL, "no random numbers");
	rogue->fd = pair_connect(&rogue->address, PAIR_PORT);
	pair_write(rogue->fd, params.session_id, SESSION_ID_BYTES);
	pair_read(rogue->fd, &rogue->keys, sizeof(rogue->keys));
	if (rogue->transport->connect(&params, &rogue->keys.lanes, clock_now_ns() + DEADLINE_NS,
				      &rogue->endpoint, &error))
		die(&error, "connect");
	for (unsigned i = 0; i < ROGUE_SLICES; i++)
		if (rogue->transport->register_slice(rogue->endpoint, i, 1, NULL, &error))
			die(&error, "register");
}

static void close_session(struct rogue *rogue)
{
	ask(rogue, ROGUE_END);
	rogue->transport->close(rogue->endpoint);
	close(rogue->fd);
}

/* Is it as it should be? */
static void judge(struct rogue *rogue, const char *way, bool written, bool unchanged,
		  const char *words)
{
	bool good = !written && unchanged;

	printf("%s: %s: %s, %s\n", good ? "refused" : "FAILED", way,
	       unchanged ? "no byte changed" : "BYTES CHANGED", words);
	rogue->failures += !good;
}

/* Through a lane of the session itself, to where key says. */
static bool lane_writes(struct rogue *rogue, const struct slice_key *key,
			struct ramlift_error *error)
{
	const struct transport_write write = { .slice = 0, .length_bytes = WRITE_BYTES };

	rogue->transport->set_peer_key(rogue->endpoint, 0, key);
	return !rogue->transport->post(rogue->endpoint, 0, &write, 1, error) &&
	       !rogue->transport->drain(rogue->endpoint, 0, error);
}

static void allowed_by_lane(struct rogue *rogue)
{
	struct ramlift_error error = { 0 };

	open_session(rogue);
	if (!lane_writes(rogue, &rogue->keys.slices[0], &error) || ask(rogue, ROGUE_COMPARE)) {
		printf("FAILED: an allowed write does not land: %s\n", error.text);
		rogue->failures++;
	}
	close_session(rogue);
}

/* A key that is not quite the one that was announced. */
static void by_lane(struct rogue *rogue, const char *way, uint64_t address_xor, int64_t add,
		    uint32_t rkey_xor)
{
	struct ramlift_error error = { .text = "" };
	struct slice_key key;
	bool written;

	open_session(rogue);
	key = rogue->keys.slices[0];
	key.address = (key.address ^ address_xor) + (uint64_t)add;
	key.rkeys[0] ^= rkey_xor;
	written = lane_writes(rogue, &key, &error);
	judge(rogue, way, written, ask(rogue, ROGUE_COMPARE), error.text);
	close_session(rogue);
}

static void guessed_keys(struct rogue *rogue)
{
	char way[64];

	for (unsigned i = 0; i < 3; i++) {
		uint32_t guess;

		if (getrandom(&guess, sizeof(guess), 0) != sizeof(guess))
			die(NULL, "no random numbers");
		snprintf(way, sizeof(way), "a guessed key (%08x)", guess);
		by_lane(rogue, way, 0, 0, guess | 1);
	}
	/* The next key of the same memory region, were it registered again. */
	by_lane(rogue, "the key's neighbour", 0, 0, 1);
}

static void by_old_lane(struct rogue *rogue)
{
	struct ramlift_error error = { .text = "" };
	bool written;

	open_session(rogue);
	ask(rogue, ROGUE_FENCE);
	written = lane_writes(rogue, &rogue->keys.slices[0], &error);
	judge(rogue, "the old key after the fence", written, ask(rogue, ROGUE_COMPARE), error.text);
	close_session(rogue);
}

static void allowed_by_bystander(struct rogue *rogue)
{
	struct rogue_gift gift;
	struct rdma_cm_id *id = rogue_connect(&rogue->address, &gift);
	int status = rogue_write(id, gift.address, gift.rkey);

	if (status != IBV_WC_SUCCESS) {
		printf("FAILED: the bystander's own memory cannot be written: %s\n",
		       ibv_wc_status_str((enum ibv_wc_status)status));
		rogue->failures++;
	}
}

/* With the very key, by a queue pair that is of another protection domain. requests: what the
 * victim has done before, in order. */
static void by_bystander(struct rogue *rogue, const char *way, const char *requests)
{
	const struct slice_key *key = &rogue->keys.slices[0];
	struct rogue_gift gift;
	int status;

	open_session(rogue);
	for (; *requests; requests++)
		ask(rogue, (enum rogue_request) * requests);
	status = rogue_write(rogue_connect(&rogue->address, &gift), key->address, key->rkeys[0]);
	judge(rogue, way, status != IBV_WC_REM_ACCESS_ERR, ask(rogue, ROGUE_COMPARE),
	      ibv_wc_status_str((enum ibv_wc_status)status));
	close_session(rogue);
}

static unsigned attack(const struct sockaddr_in *address)
{
	struct rogue rogue = { .address = *address, .transport = ramlift_transport_rdma() };

	alarm(150);
	allowed_by_lane(&rogue);
	guessed_keys(&rogue);
	by_lane(&rogue, "half behind its slice", 0, ROGUE_SLICE_BYTES - WRITE_BYTES / 2, 0);
	by_lane(&rogue, "half before its slice", 0, -(int64_t)(WRITE_BYTES / 2), 0);
	by_lane(&rogue, "the next slice, with this one's key", 0, ROGUE_SLICE_BYTES, 0);
	by_lane(&rogue, "far away", 1ull << 40, 0, 0);
	by_old_lane(&rogue);
	allowed_by_bystander(&rogue);
	by_bystander(&rogue, "another protection domain", "");
	by_bystander(&rogue, "another protection domain, after the fence", "f");
	by_bystander(&rogue, "the key of memory that is no longer registered", "fd");
	return rogue.failures;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) {
		fprintf(stderr, "usage: rogue victim|bystander|attack ADDRESS\n");
		return 2;
	}
	if (!strcmp(argv[1], "victim"))
		rogue_victim(&address);
	else if (!strcmp(argv[1], "bystander"))
		rogue_bystander(&address);
	else
		return attack(&address) ? 1 : 0;
	return 0;
}
