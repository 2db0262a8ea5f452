/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "real.h"
#include "stack.h"

#define MAX_EVENTS 65536u

/* Longer than any run with a sane end; in virtual time, and in steps. */
#define MAX_NS	  (3600ull * 1000000000)
#define MAX_STEPS 3000000u

struct event {
	uint64_t time_ns, number;
	void (*function)(void *context);
	void *context;
};

struct world world;
void (*process_ended)(struct process *process);

static struct event events[MAX_EVENTS];
static unsigned n_events;
static uint64_t event_number, random_state;
static unsigned last_task_id;
static struct task *starting;
uint64_t random_number(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t random_below(uint64_t n)
{
	return n ? random_number() % n : 0;
}

bool one_in(unsigned n)
{
	return n && !random_below(n);
}

static void mix(uint64_t what)
{
	world.hash = (world.hash ^ what) * 0x100000001b3u;
	world.hash ^= world.hash >> 29;
}

void happened(uint64_t what, const char *format, ...)
{
	va_list arguments;

	mix(what);
	mix(world.now_ns);
	if (!world.tracing)
		return;
	fprintf(stdout, "%12.6f  %-12s %-18s ", (double)world.now_ns / 1e6,
		world.current ? world.current->process->name : "-",
		world.current ? world.current->name : "-");
	va_start(arguments, format);
	vfprintf(stdout, format, arguments);
	va_end(arguments);
	fputc('\n', stdout);
}

void violated(const char *format, ...)
{
	va_list arguments;

	if (!world.failure[0]) {
		va_start(arguments, format);
		vsnprintf(world.failure, sizeof(world.failure), format, arguments);
		va_end(arguments);
		happened(0, "VIOLATED: %s", world.failure);
	}
	world.over = true;
	while (world.current) {
		world.current->state = TASK_DEAD;
		stack_leave(world.current);
	}
}

static void task_main(void)
{
	struct task *task = starting;

	stack_entered();
	task->function(task->argument);
	task->state = task->detached ? TASK_DEAD : TASK_FINISHED;
	task_wake(task);
	stack_leave(world.current);
	abort();
}

struct task *task_new(struct process *process, const char *name, void *(*function)(void *),
		      void *argument)
{
	struct task *task = __real_calloc(1, sizeof(*task));
	struct task **link = &world.tasks;

	if (!task)
		abort();
	task->process = process;
	task->id = ++last_task_id;
	snprintf(task->name, sizeof(task->name), "%s", name);
	task->function = function;
	task->argument = argument;
	task->deadline_ns = NEVER_NS;
	task->laziness = one_in(8) ? 1 + (unsigned)random_below(20) : 0;
	task->stack = stack_new();
	task->stack_pointer = stack_prepare(task->stack, task_main);
	while (*link)
		link = &(*link)->next;
	*link = task;
	return task;
}

void task_reap(struct task *task)
{
	task->state = TASK_DEAD;
}

bool task_wait(const void *awaited, uint64_t deadline_ns)
{
	struct task *task = world.current;

	task->state = TASK_WAITING;
	task->awaited = awaited;
	task->deadline_ns = deadline_ns;
	task->timed_out = false;
	stack_leave(world.current);
	return !task->timed_out;
}

static void make_runnable(struct task *task, bool timed_out)
{
	task->state = TASK_RUNNABLE;
	task->awaited = NULL;
	task->deadline_ns = NEVER_NS;
	task->timed_out = timed_out;
}

void task_wake(const void *awaited)
{
	for (struct task *task = world.tasks; task; task = task->next) {
		if (task->state == TASK_WAITING && task->awaited == awaited)
			make_runnable(task, false);
	}
}

void task_wake_one(const void *awaited)
{
	struct task *chosen = NULL;
	unsigned n = 0;

	for (struct task *task = world.tasks; task; task = task->next) {
		if (task->state == TASK_WAITING && task->awaited == awaited && !random_below(++n))
			chosen = task;
	}
	if (chosen)
		make_runnable(chosen, false);
}

void task_sleep(uint64_t duration_ns)
{
	static const char nobody_wakes;
	uint64_t until_ns = world.now_ns + duration_ns;

	while (world.now_ns < until_ns)
		task_wait(&nobody_wakes, until_ns);
}

void task_point(void)
{
	world.now_ns += 200 + random_below(2000);
	if (one_in(world.preempt_one_in))
		stack_leave(world.current);
}

void at(uint64_t time_ns, void (*function)(void *context), void *context)
{
	unsigned i = n_events++;

	if (n_events > MAX_EVENTS)
		abort();
	while (i && events[(i - 1) / 2].time_ns > time_ns) {
		events[i] = events[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	events[i] = (struct event){ time_ns, event_number++, function, context };
}

static bool earlier(const struct event *a, const struct event *b)
{
	return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->number < b->number;
}

static struct event take_event(void)
{
	struct event first = events[0], last = events[--n_events];
	unsigned i = 0;

	for (;;) {
		unsigned child = 2 * i + 1;

		if (child >= n_events)
			break;
		if (child + 1 < n_events && earlier(&events[child + 1], &events[child]))
			child++;
		if (!earlier(&events[child], &last))
			break;
		events[i] = events[child];
		i = child;
	}
	events[i] = last;
	return first;
}

struct process *process_start(struct host *host, const char *name, void *(*function)(void *),
			      void *context)
{
	struct process *process = __real_calloc(1, sizeof(*process));
	struct process **link = &world.processes;

	if (!process)
		abort();
	snprintf(process->name, sizeof(process->name), "%s", name);
	process->host = host;
	process->alive = true;
	process->clock_offset_ns = 1000000000 + random_below(1000000000000);
	process->context = context;
	while (*link)
		link = &(*link)->next;
	*link = process;
	task_new(process, "main", function, context);
	return process;
}

void process_kill(struct process *process)
{
	if (!process->alive)
		return;
	happened(1, "%s is dead", process->name);
	process->alive = false;
	for (struct task *task = world.tasks; task; task = task->next) {
		if (task->process == process)
			task->state = TASK_DEAD;
	}
	process_ended(process);
	while (world.current && world.current->process == process)
		stack_leave(world.current);
}

void process_stop(struct process *process, uint64_t duration_ns)
{
	uint64_t until_ns = world.now_ns + duration_ns;

	happened(2, "%s stands still for %.3f ms", process->name, (double)duration_ns / 1e6);
	if (process->stopped_until_ns < until_ns)
		process->stopped_until_ns = until_ns;
	if (world.current && world.current->process == process)
		stack_leave(world.current);
}

static void bury(void)
{
	for (struct task **link = &world.tasks; *link;) {
		struct task *task = *link;

		if (task->state != TASK_DEAD) {
			link = &task->next;
			continue;
		}
		*link = task->next;
		stack_free(task->stack);
		__real_free(task);
	}
}

static bool is_stopped(const struct task *task)
{
	return task->process->stopped_until_ns > world.now_ns;
}

/* One of those that can go on; NULL: none can. */
static struct task *choose_task(void)
{
	struct task *chosen = NULL, *lazy = NULL;
	unsigned n = 0;

	for (struct task *task = world.tasks; task; task = task->next) {
		if (task->state == TASK_WAITING && task->deadline_ns <= world.now_ns &&
		    !is_stopped(task))
			make_runnable(task, true);
		if (task->state != TASK_RUNNABLE || is_stopped(task))
			continue;
		if (task->laziness && random_below(task->laziness + 1)) {
			lazy = task;
			continue;
		}
		if (!random_below(++n))
			chosen = task;
	}
	return chosen ? chosen : lazy;
}

/* Nobody can go on before this. */
static uint64_t next_time_ns(void)
{
	uint64_t next_ns = n_events ? events[0].time_ns : NEVER_NS;

	for (struct task *task = world.tasks; task; task = task->next) {
		uint64_t time_ns = NEVER_NS;

		if (task->state == TASK_RUNNABLE)
			time_ns = task->process->stopped_until_ns;
		else if (task->state == TASK_WAITING)
			time_ns = task->deadline_ns;
		if (time_ns != NEVER_NS && time_ns < task->process->stopped_until_ns)
			time_ns = task->process->stopped_until_ns;
		if (time_ns < next_ns)
			next_ns = time_ns;
	}
	return next_ns;
}

static void list_tasks(void)
{
	for (struct task *task = world.tasks; task && world.tracing; task = task->next)
		printf("    %s %s: state %d, awaits %s, until %.3f ms\n", task->process->name,
		       task->name, task->state, task->awaited ? "something" : "nothing",
		       (double)task->deadline_ns / 1e6);
}

void world_run(void)
{
	while (!world.over) {
		struct task *task;

		while (n_events && events[0].time_ns <= world.now_ns && !world.over) {
			struct event event = take_event();

			event.function(event.context);
		}
		if (world.over)
			break;
		task = choose_task();
		if (!task) {
			uint64_t next_ns = next_time_ns();

			if (next_ns == NEVER_NS || next_ns > MAX_NS) {
				list_tasks();
				violated("a hang: nobody can go on");
			} else if (next_ns > world.now_ns) {
				world.now_ns = next_ns;
			}
			continue;
		}
		if (++world.steps > MAX_STEPS || world.now_ns > MAX_NS) {
			list_tasks();
			violated("no end after %llu steps and %.0f s",
				 (unsigned long long)world.steps, (double)world.now_ns / 1e9);
			break;
		}
		mix(task->id);
		starting = task;
		world.current = task;
		stack_enter(task);
		world.current = NULL;
		bury();
	}
}

void world_begin(uint64_t seed, bool tracing)
{
	memset(&world, 0, sizeof(world));
	world.seed = seed;
	world.tracing = tracing;
	world.hash = 0xcbf29ce484222325u;
	world.now_ns = 1000000000;
	random_state = seed * 0xd1342543de82ef95u + 1;
	n_events = 0;
	event_number = 0;
	last_task_id = 0;
	world.preempt_one_in = 1u + (unsigned)random_below(8);
}

void world_end(void)
{
	world.current = NULL;
	for (struct process *process = world.processes; process; process = process->next) {
		if (process->alive)
			process_kill(process);
	}
	for (struct task *task = world.tasks; task; task = task->next)
		task->state = TASK_DEAD;
	bury();
	while (world.processes) {
		struct process *process = world.processes;

		world.processes = process->next;
		__real_free(process);
	}
}
