/* SPDX-License-Identifier: Apache-2.0 */
/* The stacks of tasks, and how to get from one to another. */
#ifndef TESTS_SIMULATION_STACK_H
#define TESTS_SIMULATION_STACK_H

#include "scheduler.h"

char *stack_new(void);
void stack_free(char *stack);

/* A stack pointer for a task that is to begin with entry(), which never returns. */
void *stack_prepare(char *stack, void (*entry)(void));

/* The first thing on a new stack. */
void stack_entered(void);

/* From the scheduler to a task, until that leaves. */
void stack_enter(struct task *task);

/* From the current task to the scheduler. */
void stack_leave(struct task *task);

#endif
