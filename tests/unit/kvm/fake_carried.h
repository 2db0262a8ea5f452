/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's side of core/carried.h, for tests of those who carry: writes down which pages were
 * named and what was sent. Everything comes from many threads, so a test waits with
 * fake_carried_await() and looks while no thread runs, or through the functions here.
 */
#ifndef TESTS_UNIT_KVM_FAKE_CARRIED_H
#define TESTS_UNIT_KVM_FAKE_CARRIED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_CARRIED_REGIONS 2u
#define FAKE_CARRIED_PAGES   4096u /* of each region */
#define FAKE_CARRIED_STREAMS 8u

/* What one stream got. */
struct fake_stream {
	uint8_t *bytes;
	size_t n_bytes;
	unsigned n_pieces;
	unsigned n_ends; /* pieces without bytes */
};

struct fake_carried {
	pthread_mutex_t lock;
	struct fake_stream streams[FAKE_CARRIED_STREAMS];
	unsigned named[FAKE_CARRIED_REGIONS][FAKE_CARRIED_PAGES]; /* how often */
	unsigned zeros[FAKE_CARRIED_REGIONS][FAKE_CARRIED_PAGES]; /* of those, as zeros */
	unsigned n_named, n_outside;
	int send_ret; /* what sending a piece fails with; 0: it does not */

	_Atomic uint64_t backlog_bytes;
	_Atomic unsigned backlog_asked, wakes, hastens;
};

struct ramlift_source {
	struct fake_carried carried;
};

struct ramlift_destination {
	struct fake_carried carried;
};

void fake_carried_init(struct fake_carried *carried);
void fake_carried_fini(struct fake_carried *carried);

/* Consistent looks from any thread. */
unsigned fake_carried_named(struct fake_carried *carried);
size_t fake_carried_bytes(struct fake_carried *carried, unsigned stream);
unsigned fake_carried_ends(struct fake_carried *carried, unsigned stream);
void fake_carried_fail(struct fake_carried *carried, int ret);

/* Wait until it is true; the test fails when it does not come in a minute. */
void fake_carried_await(bool (*condition)(void *context), void *context, const char *what);

#endif
