/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads, locks, condition variables and clocks of the engine, on the scheduler's tasks. A mutex
 * keeps its owner inside the caller's object, in place of the C library's contents.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"
#include "real.h"
#include "scheduler.h"

struct mutex {
	struct task *owner;
};

_Static_assert(sizeof(struct mutex) <= sizeof(pthread_mutex_t), "it has to fit");

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*function)(void *), void *argument);
int __wrap_pthread_join(pthread_t thread, void **result);
pthread_t __wrap_pthread_self(void);
int __wrap_pthread_setname_np(pthread_t thread, const char *name);
int __wrap_pthread_mutex_init(pthread_mutex_t *lock, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __wrap_pthread_cond_destroy(pthread_cond_t *condition);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock,
				  const struct timespec *until);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_broadcast(pthread_cond_t *condition);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
			   struct timespec *left);
int __wrap_usleep(useconds_t us);
time_t __wrap_time(time_t *result);

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*function)(void *), void *argument);
int __real_pthread_join(pthread_t thread, void **result);
pthread_t __real_pthread_self(void);
int __real_pthread_setname_np(pthread_t thread, const char *name);
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __real_usleep(useconds_t us);
time_t __real_time(time_t *result);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*function)(void *), void *argument)
{
	int ret;

	if (!world.current)
		return __real_pthread_create(thread, attributes, function, argument);
	ret = call_fails("pthread_create", EAGAIN);
	if (ret)
		return ret;
	*thread = (pthread_t)task_new(world.current->process, "thread", function, argument);
	task_point();
	return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
	struct task *task = (struct task *)thread;

	if (!world.current)
		return __real_pthread_join(thread, result);
	if (task->process != world.current->process)
		violated("a thread of another process is joined");
	while (task->state != TASK_FINISHED)
		task_wait(task, NEVER_NS);
	if (result)
		*result = NULL;
	task_reap(task);
	return 0;
}

pthread_t __wrap_pthread_self(void)
{
	return world.current ? (pthread_t)world.current : __real_pthread_self();
}

int __wrap_pthread_setname_np(pthread_t thread, const char *name)
{
	struct task *task = (struct task *)thread;

	if (!world.current)
		return __real_pthread_setname_np(thread, name);
	strncpy(task->name, name, sizeof(task->name) - 1);
	return 0;
}

/* Outside of tasks there is nobody else: locks need not lock. */
int __wrap_pthread_mutex_init(pthread_mutex_t *lock, const pthread_mutexattr_t *attributes)
{
	(void)attributes;
	memset(lock, 0, sizeof(*lock));
	return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *lock)
{
	if (world.current && ((struct mutex *)lock)->owner)
		violated("a mutex is destroyed that %s holds", ((struct mutex *)lock)->owner->name);
	memset(lock, 0xee, sizeof(*lock));
	return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
	struct mutex *mutex = (struct mutex *)lock;

	if (!world.current)
		return 0;
	task_point();
	if (mutex->owner == world.current)
		violated("%s locks a mutex twice", world.current->name);
	while (mutex->owner)
		task_wait(mutex, NEVER_NS);
	mutex->owner = world.current;
	return 0;
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *lock)
{
	struct mutex *mutex = (struct mutex *)lock;

	if (!world.current)
		return 0;
	task_point();
	if (mutex->owner)
		return EBUSY;
	mutex->owner = world.current;
	return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock)
{
	struct mutex *mutex = (struct mutex *)lock;

	if (!world.current)
		return 0;
	if (mutex->owner != world.current)
		violated("%s unlocks a mutex that it does not hold", world.current->name);
	mutex->owner = NULL;
	task_wake_one(mutex);
	task_point();
	return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes)
{
	(void)attributes;
	memset(condition, 0, sizeof(*condition));
	return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *condition)
{
	memset(condition, 0xee, sizeof(*condition));
	return 0;
}

/* Any wait on a condition may end for no reason. */
static bool wait_for(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t deadline_ns)
{
	struct mutex *mutex = (struct mutex *)lock;
	bool woken = true;

	if (mutex->owner != world.current)
		violated("%s waits with a mutex that it does not hold", world.current->name);
	mutex->owner = NULL;
	task_wake_one(mutex);
	if (!one_in(64))
		woken = task_wait(condition, deadline_ns);
	while (mutex->owner)
		task_wait(mutex, NEVER_NS);
	mutex->owner = world.current;
	return woken;
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock)
{
	wait_for(condition, lock, NEVER_NS);
	return 0;
}

static uint64_t to_ns(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec;
}

/* From the process's clock to the world's. */
static uint64_t to_world_ns(const struct timespec *time)
{
	uint64_t offset_ns = world.current->process->clock_offset_ns;
	uint64_t time_ns = to_ns(time);

	/* A deadline of UINT64_MAX ns does not fit into the kernel's either way of counting. */
	if ((uint64_t)time->tv_sec >= UINT64_MAX / 1000000000)
		return NEVER_NS;
	return time_ns > offset_ns ? time_ns - offset_ns : 0;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock,
				  const struct timespec *until)
{
	uint64_t deadline_ns = to_world_ns(until);

	if (wait_for(condition, lock, deadline_ns))
		return 0;
	return ETIMEDOUT;
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
	if (world.current)
		task_wake_one(condition);
	return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *condition)
{
	if (world.current)
		task_wake(condition);
	return 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	uint64_t now_ns;

	if (!world.current)
		return __real_clock_gettime(clock, now);
	task_point();
	now_ns = world.now_ns;
	now_ns += clock == CLOCK_REALTIME ? 1700000000ull * 1000000000
					  : world.current->process->clock_offset_ns;
	now->tv_sec = (time_t)(now_ns / 1000000000);
	now->tv_nsec = (long)(now_ns % 1000000000);
	return 0;
}

int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
			   struct timespec *left)
{
	(void)left;
	if (clock != CLOCK_MONOTONIC)
		violated("somebody sleeps by another clock than the monotonic");
	if (flags & TIMER_ABSTIME) {
		uint64_t until_ns = to_world_ns(time);

		task_sleep(until_ns > world.now_ns ? until_ns - world.now_ns : 0);
	} else {
		task_sleep(to_ns(time));
	}
	return 0;
}

int __wrap_usleep(useconds_t us)
{
	if (!world.current)
		return __real_usleep(us);
	task_sleep(us * 1000ull);
	return 0;
}

time_t __wrap_time(time_t *result)
{
	time_t now = 1700000000 + (time_t)(world.now_ns / 1000000000);

	if (!world.current)
		return __real_time(result);
	if (result)
		*result = now;
	return now;
}
