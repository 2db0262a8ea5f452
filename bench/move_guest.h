/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that is memory only: no vCPUs, so that it runs wherever there is memory. One thread may
 * write it at a chosen rate. It tracks its own writes: each is followed by a mark in the dirty
 * sink, so it stops within microseconds and its harvest costs nothing; what is left of a downtime
 * is the engine's.
 */
#ifndef BENCH_MOVE_GUEST_H
#define BENCH_MOVE_GUEST_H

#include <pthread.h>
#include <stdbool.h>

#include "core/ramlift.h"

enum guest_memory {
	GUEST_MEMFD,	 /* shared memory, as QEMU's memory-backend-memfd */
	GUEST_ANONYMOUS, /* private, 4 KiB pages */
	GUEST_THP,	 /* private, transparent huge pages where the kernel has them */
	GUEST_HUGETLB,	 /* memfd on 2 MiB pages */
	GUEST_MEMORY_COUNT
};

extern const char *const guest_memory_names[GUEST_MEMORY_COUNT];

struct guest_shape {
	uint64_t bytes;
	uint32_t memory;	 /* enum guest_memory */
	uint32_t random_percent; /* pages with random contents, evenly spread */
	uint32_t preallocated;	 /* the rest is touched zeros, not holes */
	uint32_t data_mib;	 /* instead: so many random MiB, evenly spread; 0: not */
	uint32_t state_bytes;	 /* what the guest has besides memory */
	uint64_t write_pages_per_s;
	uint64_t write_set_bytes; /* written at random within the first so many bytes */
};

struct move_guest {
	struct guest_shape shape;
	struct ramlift_region region;

	pthread_mutex_t lock; /* held for each small group of writes; of all below */
	pthread_cond_t changed;
	pthread_t writer;
	bool has_writer, paused, ending;
	struct ramlift_dirty_sink *sink; /* NULL: writes are not tracked */
	uint64_t limit_pages_per_s;	 /* 0: none */
	uint64_t pages_written;
};

extern const struct ramlift_guest_ops move_guest_ops;
extern const struct ramlift_dirty_source_ops move_dirty_ops;

/* Map its memory; ends the program where there is none. All zeros. */
void move_guest_init(struct move_guest *guest, const struct guest_shape *shape);

/* Give it its contents. */
void move_guest_fill(struct move_guest *guest);

/* Begin to write, if its shape says so. */
void move_guest_start(struct move_guest *guest);

/* Of its pages that are not zeros, and where they are; holes of a memfd are not looked at. */
uint64_t move_guest_digest(const struct move_guest *guest);

void move_guest_fini(struct move_guest *guest);

#endif
