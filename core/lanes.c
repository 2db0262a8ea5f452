/* SPDX-License-Identifier: Apache-2.0 */
#include "core/lanes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/lane.h"
#include "core/placement.h"

/* A lane that is lost has something to send, until others do that. */
static unsigned n_carrying(struct lanes *lanes)
{
	return lanes->config.n_lanes -
	       (unsigned)__builtin_popcountll(atomic_load(&lanes->replaced));
}

/* Sleep until there has been a wake since `seen`, or the state changes. */
static void await_work(struct lanes *lanes, uint64_t seen)
{
	bool dry;

	pthread_mutex_lock(&lanes->lock);
	dry = ++lanes->n_idle == n_carrying(lanes) && lanes->work == seen;
	pthread_mutex_unlock(&lanes->lock);
	if (dry && lanes->config.dry)
		lanes->config.dry(lanes->config.context);
	pthread_mutex_lock(&lanes->lock);
	while (lanes->work == seen && atomic_load(&lanes->state) == RUNNING)
		pthread_cond_wait(&lanes->changed, &lanes->lock);
	lanes->n_idle--;
	pthread_mutex_unlock(&lanes->lock);
}

static uint64_t work_seen(struct lanes *lanes)
{
	uint64_t seen;

	pthread_mutex_lock(&lanes->lock);
	seen = lanes->work;
	pthread_mutex_unlock(&lanes->lock);
	return seen;
}

static int run(struct lane *lane)
{
	struct lanes *lanes = lane->lanes;
	const struct lanes_config *config = &lanes->config;
	struct batch batch = { .n = 0 };
	int ret;

	for (;;) {
		/* Read before the sweep: only a sweep that began after FINISHING and found nothing
		 * is the last. */
		bool last = atomic_load(&lanes->state) == FINISHING;
		uint64_t seen = work_seen(lanes);
		unsigned given = atomic_load(&lane->given);
		bool found;

		ret = lane_sweep(lane, &batch, &found);
		if (ret)
			return ret;
		if (lanes_stopping(lanes))
			return -ECANCELED;
		atomic_store(&lane->been_through, given);
		if (found)
			continue;
		if (last)
			break;
		ret = config->transport->drain(config->endpoint, lane->index, &lane->error);
		if (ret)
			return ret;
		lane_release_slice(lane);
		await_work(lanes, seen);
	}
	/* What it drains may be what others wait for to go. */
	ret = config->transport->token(config->endpoint, lane->index, lane->token, &lane->error);
	if (!ret)
		lane_release_slice(lane);
	return ret;
}

/* The name is for whoever asks where the lanes run (ps -L, top -H). */
static void settle(struct lane *lane)
{
	const struct lanes_config *config = &lane->lanes->config;
	unsigned rail = lane->index / (config->n_lanes / config->n_rails);
	char name[16];

	if (config->transport->rail_node)
		placement_bind_thread(config->transport->rail_node(config->endpoint, rail));
	atomic_store(&lane->numa_node, placement_here());
	snprintf(name, sizeof(name), "ramlift-lane%u", lane->index % RAMLIFT_MAX_LANES);
	pthread_setname_np(pthread_self(), name);
}

/* Nothing more is to come of any lane. Under the lock. */
static bool have_ended(struct lanes *lanes)
{
	return lanes->failed || lanes->n_done == n_carrying(lanes);
}

static void *lane_thread(void *argument)
{
	struct lane *lane = argument;
	struct lanes *lanes = lane->lanes;
	const struct lanes_config *config = &lanes->config;
	bool ended;
	int ret;

	settle(lane);
	ret = run(lane);
	pthread_mutex_lock(&lanes->lock);
	if (ret)
		lane_lose(lane, ret);
	else
		lanes->n_done++;
	ended = have_ended(lanes);
	pthread_cond_broadcast(&lanes->changed);
	pthread_mutex_unlock(&lanes->lock);
	if (ended && config->ended)
		config->ended(config->context);
	else if (ret && config->lost)
		config->lost(config->context);
	return NULL;
}

/* Of every region that the lane's rail carries, its part among all lanes that carry it. */
static void divide(struct lanes *lanes, struct lane *lane)
{
	const struct lanes_config *config = &lanes->config;
	unsigned per_rail = config->n_lanes / config->n_rails;

	for (unsigned i = 0; i < config->ram->n_regions; i++) {
		unsigned rails = config->region_rails[i], rail = lane->index / per_rail;
		unsigned before = rails & ((1u << rail) - 1), number;

		if (!(rails & 1u << rail))
			continue;
		lane->shares[i].n = (unsigned)__builtin_popcount(rails) * per_rail;
		number = (unsigned)__builtin_popcount(before) * per_rail + lane->index % per_rail;
		atomic_store(&lane->shares[i].numbers, 1ull << number);
	}
}

static int start_threads(struct lanes *lanes)
{
	for (unsigned i = 0; i < lanes->config.n_lanes; i++) {
		struct lane *lane = &lanes->lane[i];
		int ret;

		lane->lanes = lanes;
		lane->index = i;
		lane->held_slice = NO_SLICE;
		atomic_store(&lane->numa_node, -1);
		atomic_store(&lane->given, 1);
		divide(lanes, lane);
		ret = pthread_create(&lane->thread, NULL, lane_thread, lane);
		if (ret)
			return -ret;
		lanes->n_started++;
	}
	return 0;
}

int lanes_start(const struct lanes_config *config, struct lanes **result,
		struct ramlift_error *error)
{
	size_t size = sizeof(struct lanes) + config->n_lanes * sizeof(struct lane);
	struct lanes *lanes;
	int ret;

	/* Lanes are aligned to cache lines, so that threads do not share one. */
	lanes = aligned_alloc(_Alignof(struct lanes), size);
	if (!lanes)
		return error_set(error, -ENOMEM, "no memory for %u lanes", config->n_lanes);
	memset(lanes, 0, size);
	lanes->config = *config;
	if (config->skip_zeros) {
		lanes->seen = calloc((config->ram->n_stripes + 63) / 64, sizeof(*lanes->seen));
		if (!lanes->seen) {
			free(lanes);
			return error_set(error, -ENOMEM, "no memory to remember pages of zeros");
		}
	}
	pthread_mutex_init(&lanes->lock, NULL);
	clock_cond_init(&lanes->changed);

	ret = start_threads(lanes);
	if (ret) {
		lanes_free(lanes);
		return error_set(error, ret, "cannot start a thread for each of %u lanes",
				 config->n_lanes);
	}
	*result = lanes;
	return 0;
}

static void broadcast(struct lanes *lanes)
{
	pthread_mutex_lock(&lanes->lock);
	lanes->work++;
	pthread_cond_broadcast(&lanes->changed);
	pthread_mutex_unlock(&lanes->lock);
}

void lanes_wake(struct lanes *lanes)
{
	broadcast(lanes);
}

/* One that failed a moment ago cannot be replaced any more. Under the lock. */
static void end_replacing(struct lanes *lanes)
{
	uint64_t lost = lanes_lost(lanes);

	if (lost && !lanes->failed)
		lanes->failed = &lanes->lane[__builtin_ctzll(lost)];
}

void lanes_finish(struct lanes *lanes, uint64_t tokens[])
{
	pthread_mutex_lock(&lanes->lock);
	for (unsigned i = 0; i < lanes->config.n_lanes; i++) {
		if (lane_is_lost(lanes, i))
			tokens[i] = 0;
		lanes->lane[i].token = tokens[i];
	}
	end_replacing(lanes);
	atomic_store(&lanes->state, FINISHING);
	lanes->work++;
	pthread_cond_broadcast(&lanes->changed);
	pthread_mutex_unlock(&lanes->lock);
}

int lanes_wait(struct lanes *lanes, uint64_t deadline_ns, struct ramlift_error *error)
{
	int failed, ret = 0;

	pthread_mutex_lock(&lanes->lock);
	while (!have_ended(lanes) && ret != ETIMEDOUT)
		ret = clock_wait(&lanes->changed, &lanes->lock, deadline_ns);
	ret = have_ended(lanes) ? 0 : -ETIMEDOUT;
	pthread_mutex_unlock(&lanes->lock);
	failed = lanes_check(lanes, error);
	if (failed)
		return failed;
	if (ret)
		return error_set(error, ret, "the lanes did not drain in time: is the link up?");
	return 0;
}

int lanes_check(struct lanes *lanes, struct ramlift_error *error)
{
	int ret = 0;

	pthread_mutex_lock(&lanes->lock);
	if (lanes->failed) {
		ret = lanes->failed->error.code;
		if (error)
			*error = lanes->failed->error;
	}
	pthread_mutex_unlock(&lanes->lock);
	return ret;
}

bool lanes_first_pass_done(struct lanes *lanes)
{
	for (unsigned i = 0; i < lanes->config.n_lanes; i++) {
		struct lane *lane = &lanes->lane[i];

		if (!lane_is_lost(lanes, i) &&
		    atomic_load(&lane->been_through) != atomic_load(&lane->given))
			return false;
	}
	return !lanes_lost(lanes);
}

uint64_t lanes_in_flight_bytes(struct lanes *lanes)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < lanes->config.n_lanes; i++) {
		if (!lane_is_lost(lanes, i))
			bytes +=
				lanes->config.transport->in_flight_bytes(lanes->config.endpoint, i);
	}
	return bytes;
}

/* All that a lane has taken from the set, or, once others carry on, all that goes again. */
static uint64_t settled_bytes(struct lanes *lanes, unsigned index)
{
	struct lane *lane = &lanes->lane[index];

	if (atomic_load(&lanes->replaced) >> index & 1)
		return lane->taken_pages * RAMLIFT_PAGE_BYTES;
	return atomic_load(&lane->bytes_sent) + atomic_load(&lane->zero_pages) * RAMLIFT_PAGE_BYTES;
}

/* What was sent is read first: a batch that is posted in between counts as in flight only. */
uint64_t lanes_done_bytes(struct lanes *lanes)
{
	uint64_t bytes = 0, in_flight;

	for (unsigned i = 0; i < lanes->config.n_lanes; i++)
		bytes += settled_bytes(lanes, i);
	in_flight = lanes_in_flight_bytes(lanes);
	return bytes > in_flight ? bytes - in_flight : 0;
}

void lanes_stats(struct lanes *lanes, unsigned index, struct ramlift_lane_stats *stats)
{
	struct lane *lane = &lanes->lane[index];

	stats->rail = index / (lanes->config.n_lanes / lanes->config.n_rails);
	stats->numa_node = atomic_load(&lane->numa_node);
	stats->bytes_sent = atomic_load(&lane->bytes_sent);
	stats->writes = atomic_load(&lane->writes);
	stats->zero_pages = atomic_load(&lane->zero_pages);
	stats->sweeps = atomic_load(&lane->sweeps);
	stats->busy_ns = atomic_load(&lane->busy_ns);
	stats->lost = lane_is_lost(lanes, index);
}

void lanes_stop(struct lanes *lanes)
{
	if (!lanes || !lanes->n_started)
		return;
	pthread_mutex_lock(&lanes->lock);
	atomic_store(&lanes->state, STOPPING);
	pthread_mutex_unlock(&lanes->lock);
	lanes->config.transport->abort(lanes->config.endpoint);
	broadcast(lanes);
	for (unsigned i = 0; i < lanes->n_started; i++)
		pthread_join(lanes->lane[i].thread, NULL);
	lanes->n_started = 0;
}

void lanes_free(struct lanes *lanes)
{
	if (!lanes)
		return;
	lanes_stop(lanes);
	pthread_cond_destroy(&lanes->changed);
	pthread_mutex_destroy(&lanes->lock);
	free(lanes->seen);
	free(lanes);
}
