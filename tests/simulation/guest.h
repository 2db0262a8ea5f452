/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of the simulation, in up to as many copies as there are processes that have one; and
 * the account of which of them runs: never two, and none that is not what the one before it was.
 */
#ifndef TESTS_SIMULATION_GUEST_H
#define TESTS_SIMULATION_GUEST_H

#include "core/ramlift.h"
#include "scheduler.h"

#define GUEST_NAME "db1"

struct copy {
	struct copy *next; /* of all, also of processes that are no more */
	struct process *process;
	struct ramlift_region regions[2];
	unsigned n_regions;
	uint64_t n_pages;
	bool running, quit, writer_parked;
	bool has_writer;
	uint64_t counter; /* its state outside RAM */
	uint64_t nap_ns;
	uint64_t hot_pages;

	struct ramlift_source *source; /* to tell of what devices have written */
	struct ramlift_dirty_sink *sink;
	bool tracking, harvesting;
	struct task *harvester;
	bool *protected_;
	uint64_t *noted, *harvested;
	uint64_t n_noted;
	uint64_t limit;
	bool limitable, busy;
};

void guests_begin(void);
void guests_end(void);

/* On a task of the process: with memory of its own, paused; or without, for create(). */
struct copy *copy_new(uint64_t n_pages);
/* Start the thread that writes its memory while it runs. */
void copy_start_writer(struct copy *copy);
/* End the writer, and free what it has; it no longer runs. */
void copy_destroy(struct copy *copy);

/* From its disk, in a process of its own: its memory is what it has at boot. */
void copy_boot(struct copy *copy);

/* The one that runs, or NULL. */
struct copy *copy_running(void);
/* The running one was lost with its process, and no other runs since then. */
bool copy_was_lost(void);
void copies_forget(const struct process *process);

extern const struct ramlift_guest_ops copy_guest_ops;
extern const struct ramlift_dirty_source_ops copy_dirty_ops;

/* Called when a copy starts to run by resume(), before it counts. */
extern void (*copy_resumes)(struct copy *copy);

#endif
