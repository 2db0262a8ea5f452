/* SPDX-License-Identifier: Apache-2.0 */
/* Time: everything is CLOCK_MONOTONIC in ns; a deadline is an absolute time on that clock. */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

static inline uint64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* What is left until a deadline, in ms for poll(2), rounded up; 0 once it has passed. */
static inline int clock_left_ms(uint64_t deadline_ns)
{
	uint64_t now_ns = clock_now_ns();
	uint64_t left_ms =
		deadline_ns > now_ns ? (deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;

	return left_ms > INT32_MAX ? INT32_MAX : (int)left_ms;
}

/* The time since *begin_ns, which moves on to now. */
static inline uint64_t clock_lap_ns(uint64_t *begin_ns)
{
	uint64_t now_ns = clock_now_ns();
	uint64_t lap_ns = now_ns - *begin_ns;

	*begin_ns = now_ns;
	return lap_ns;
}

static inline struct timespec clock_timespec(uint64_t time_ns)
{
	return (struct timespec){
		.tv_sec = (time_t)(time_ns / NS_PER_S),
		.tv_nsec = (long)(time_ns % NS_PER_S),
	};
}

/* A condition variable for clock_wait(). */
static inline void clock_cond_init(pthread_cond_t *condition)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

/* 0 or ETIMEDOUT, as pthread_cond_timedwait(). */
static inline int clock_wait(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t deadline_ns)
{
	struct timespec until = clock_timespec(deadline_ns);

	return pthread_cond_timedwait(condition, lock, &until);
}

static inline void clock_sleep_until(uint64_t deadline_ns)
{
	struct timespec until = clock_timespec(deadline_ns);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL))
		;
}

#endif
