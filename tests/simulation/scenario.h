/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run: a guest at host A that is to go to host B, an operator who starts and restarts what is
 * needed, and what has to hold whatever happens.
 */
#ifndef TESTS_SIMULATION_SCENARIO_H
#define TESTS_SIMULATION_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>

struct run {
	bool failed;
	char failure[512];
	uint64_t hash, steps, virtual_ns;
	unsigned outcomes[3]; /* of attempts: moved, failed, in doubt */
	unsigned settled;     /* doubts that the source's process settled, or tried to */
	unsigned recovered;   /* times that its journal had to say */
	bool lost;	      /* the guest died with its process */
};

/* harmless: nothing goes wrong but what call_hook, which may be replaced in prepared(), says. */
void scenario_run(uint64_t seed, bool tracing, bool harmless, void (*prepared)(void),
		  struct run *run);

#endif
