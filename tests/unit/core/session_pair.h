/* SPDX-License-Identifier: Apache-2.0 */
/* A source and a destination in one process, with fake guests: whole
 * sessions, as tests want them. */
#ifndef TESTS_UNIT_CORE_SESSION_PAIR_H
#define TESTS_UNIT_CORE_SESSION_PAIR_H

#include <pthread.h>

#include "core/clock.h"
#include "tests/support/fake_guest.h"
#include "tests/support/memory_transport.h"

#define GUEST_BYTES (24ull << 20)

struct pair {
	struct fake_guest source_guest, destination_guest;
	struct ramlift_source_config source_config;
	struct ramlift_destination_config destination_config;
	const struct ramlift_transport *transport;
	struct ramlift_source *source;
	struct ramlift_destination *destination;
	struct ramlift_stats source_stats, destination_stats;
	struct ramlift_error source_error, destination_error;
	char to[32];
	char state_dir[32];
	pthread_t thread;
	int destination_ret;
	uint64_t touched_page; /* for a test that writes one while the guest streams */
};

void pair_init(struct pair *pair, const struct ramlift_transport *transport);
void pair_init_sized(struct pair *pair, const struct ramlift_transport *transport,
		     uint64_t guest_bytes);
/* Make both sides; nobody waits for a guest yet. */
void pair_make(struct pair *pair);
/* The same, and start the destination, and leave the source to the test. */
void pair_start(struct pair *pair);
void pair_start_destination(struct pair *pair); /* again */
/* Wait for the destination and take both sides' figures. */
void pair_join(struct pair *pair);
/* All three; what the source's run says. */
int pair_run(struct pair *pair);
void pair_fini(struct pair *pair);

void pair_assert_moved(struct pair *pair, int ret);
/* The attempt failed before COMMIT: the guest is where and as it was, and the destination has
 * nothing. */
void pair_assert_stayed(struct pair *pair);

#endif
