/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session that carries the migration of a made-up program, over lanes in memory. At the source a
 * thread of the test's plays the program that migrates; at the destination pieces are written down,
 * and echoed.
 */
#ifndef TESTS_UNIT_CORE_CARRIED_FIXTURE_H
#define TESTS_UNIT_CORE_CARRIED_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/carried.h"
#include "tests/support/fake_guest.h"
#include "tests/support/memory_transport.h"

#define CARRYING_BYTES	 (6ull << 20)
#define CARRYING_STREAMS 3u

/* What one side got on one stream. */
struct inbox {
	char *bytes; /* with a NUL behind them; NULL: nothing */
	size_t n_bytes;
	unsigned n_ends;
};

struct carrying {
	struct fake_guest source_guest, destination_guest;
	struct ramlift_source_config source_config;
	struct ramlift_destination_config destination_config;
	struct ramlift_transport transport_ops; /* in memory, but for the fence */
	const struct ramlift_transport *transport;
	struct ramlift_source *source;
	struct ramlift_destination *destination;
	struct ramlift_stats source_stats, destination_stats;
	struct ramlift_error source_error, destination_error;
	char to[32], state_dir[32];
	pthread_t destination_thread, program_thread;
	int destination_ret;

	/* What the test chooses. The program ends when it returns, or when carrying_quit(). */
	void (*program)(struct carrying *carrying);
	int (*on_piece)(struct carrying *carrying, unsigned stream, const char *bytes, size_t n,
			struct ramlift_error *error); /* at the destination; NULL: echo it */
	bool source_does_not_carry, destination_does_not_carry;
	int fail_tick, fail_release, fail_released; /* -errno */
	_Atomic int source_receive_fails;	    /* -errno */
	bool corrupt; /* a bit at the destination flips while it fences */
	bool never_released;

	/* What happened. */
	atomic_bool complete, quit, fenced, released;
	_Atomic unsigned n_ticks, n_releases, n_released_polls;
	bool fenced_at_release, same_ram_at_release;
	size_t destination_got_at_release;
	pthread_mutex_t lock; /* of the inboxes */
	struct inbox at_source[CARRYING_STREAMS], at_destination[CARRYING_STREAMS];
};

void carrying_init(struct carrying *carrying);
/* The whole session; what the source's run says. */
int carrying_run(struct carrying *carrying);
void carrying_fini(struct carrying *carrying);

/* For the program's thread. Both are false once the session is over. */
bool carrying_say(struct carrying *carrying, unsigned stream, const char *words);
bool carrying_wait(struct carrying *carrying, bool (*condition)(struct carrying *carrying));
bool carrying_has_no_backlog(struct carrying *carrying);
/* Name all pages that are not zeros, in runs; a tick comes at once where it is complete. */
void carrying_name_present(struct carrying *carrying);
void carrying_complete(struct carrying *carrying);

void *carrying_page(struct fake_guest *guest, unsigned region, uint64_t page);
void carrying_assert_moved(struct carrying *carrying, int ret);
/* Not moved; the guest was resumed where it was paused, or may have been. */
void carrying_assert_stayed(struct carrying *carrying);

#endif
