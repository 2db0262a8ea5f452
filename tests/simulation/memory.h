/* SPDX-License-Identifier: Apache-2.0 */
/* What the simulated processes have allocated. */
#ifndef TESTS_SIMULATION_MEMORY_H
#define TESTS_SIMULATION_MEMORY_H

#include <stddef.h>

struct process;

/* Bytes that a process has, and how many allocations that is. */
size_t memory_of(const struct process *process, unsigned *n);

/* Free all of a process that is no more. */
void memory_forget(const struct process *process);

#endif
