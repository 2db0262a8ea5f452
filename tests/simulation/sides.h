/* SPDX-License-Identifier: Apache-2.0 */
/* The two VMMs of a run, and what of it they share with the operator. */
#ifndef TESTS_SIMULATION_SIDES_H
#define TESTS_SIMULATION_SIDES_H

#include "guest.h"
#include "scenario.h"
#include "scheduler.h"

/* One of the two VMMs. What its process shares with the operator. */
struct side {
	bool is_source;
	struct process *process;
	struct copy *copy;
	struct ramlift_source *source;
	struct ramlift_destination *destination;
	bool asked, busy, quit, arrived, settling;
	bool refused_in_doubt; /* its journal says so, though the guest runs here */
	unsigned n_callers;    /* of cancel */
	enum ramlift_phase phase;
	struct ramlift_source_config config;
};

/* A run's state that both files know. */
struct scenario {
	struct run *report;
	bool harmless;		  /* nothing goes wrong but what the caller lets fail */
	enum ramlift_owner owner; /* of the guest, as far as the source's side knows */
	bool fenced;		  /* the destination's host was taken from the network for good */
	uint64_t guest_pages;
	bool guest_is_busy;
	struct side source, destination;
};

extern struct scenario scenario;

bool side_is_alive(const struct side *side);
/* A new process for it. */
void side_start(struct side *side);
/* As a signal handler of the process would: cancel, or leave the guest in doubt. */
void side_cancel(bool of_source);

/* The guest died with the process that had it, or that was about to run it. */
bool guest_is_gone(void);

/* The operator's process; it ends the world. */
void *operator_main(void *context);

/* A host of the network that has overheard everything says it again. */
void stranger_start(void);

#endif
