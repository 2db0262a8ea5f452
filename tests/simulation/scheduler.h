/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated world's time, threads and processes, all inside one thread of this process. A
 * thread of the engine is a task with a stack of its own, which gives way at each call that the
 * wrap_*.c files catch; which task goes on is drawn from the seed. Nobody waits in earnest: when
 * all do, the clock jumps to the next event.
 */
#ifndef TESTS_SIMULATION_SCHEDULER_H
#define TESTS_SIMULATION_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NEVER_NS UINT64_MAX

enum { PROCESS_MAX_FDS = 96, FIRST_FD = 1000 };

struct host;
struct file;

enum task_state { TASK_RUNNABLE, TASK_WAITING, TASK_FINISHED, TASK_DEAD };

struct task {
	struct task *next;
	struct process *process;
	unsigned id;
	char name[24];
	enum task_state state;
	const void *awaited; /* what task_wake() names */
	uint64_t deadline_ns;
	bool timed_out;
	bool detached;	   /* nobody joins it */
	unsigned laziness; /* passed over so often for each time that it is its turn */
	void *(*function)(void *argument);
	void *argument;
	int saved_errno;
	void *stack_pointer;
	char *stack;
	void *fake_stack; /* AddressSanitizer's */
};

/* A process of one of the hosts: what dies together. */
struct process {
	struct process *next;
	char name[24];
	struct host *host;
	bool alive;
	uint64_t stopped_until_ns; /* SIGSTOP */
	uint64_t clock_offset_ns;  /* its CLOCK_MONOTONIC is not its peer's */
	struct file *fds[PROCESS_MAX_FDS];
	unsigned n_allocations;
	void *context; /* the scenario's */
};

struct world {
	uint64_t seed;
	uint64_t now_ns;
	uint64_t steps;
	uint64_t hash; /* of all that has happened */
	unsigned preempt_one_in;
	struct task *tasks;
	struct process *processes;
	struct task *current; /* NULL: nobody of the simulation */
	bool tracing;
	bool over;
	char failure[512]; /* what was violated first */
};

extern struct world world;

/* Begin and end a world; between the two, world_run() until something says world.over. */
void world_begin(uint64_t seed, bool tracing);
void world_run(void);
void world_end(void);

/* An invariant does not hold: the world is over. Returns only outside of tasks. */
void violated(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Something happened, which two runs of a seed must have in common. */
void happened(uint64_t what, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t random_number(void);
uint64_t random_below(uint64_t n);
bool one_in(unsigned n); /* 0: never */

/* At a time, on the scheduler. */
void at(uint64_t time_ns, void (*function)(void *context), void *context);

struct process *process_start(struct host *host, const char *name, void *(*function)(void *),
			      void *context);
/* End it here and now, with everything it has; how its connections end is the caller's to say
 * before. Does not return if the current task is one of its own. */
void process_kill(struct process *process);
/* The current task's process ends of its own: it must have left nothing. */
void process_exit(void);
void process_stop(struct process *process, uint64_t duration_ns);

struct task *task_new(struct process *process, const char *name, void *(*function)(void *),
		      void *argument);
/* Wait until somebody wakes whoever awaits this. False: the deadline has passed. */
bool task_wait(const void *awaited, uint64_t deadline_ns);
void task_wake(const void *awaited);
void task_wake_one(const void *awaited);
void task_sleep(uint64_t duration_ns);
/* Others may go on here. */
void task_point(void);
/* It has ended, and nobody will ask for it again. */
void task_reap(struct task *task);

/* What others keep of a process; set by them. */
extern void (*process_ended)(struct process *process);

#endif
