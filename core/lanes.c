/* SPDX-License-Identifier: Apache-2.0 */
#include "core/lanes.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/zero.h"

/* A batch that is worth its doorbell; more would only be in flight for longer. */
#define BATCH_BYTES (1u << 20)

/* Counters are written by the lane's own thread only and read by others as they are. */
struct lane {
	struct lanes *lanes;
	unsigned index;
	pthread_t thread;
	struct transport_write batch[TRANSPORT_MAX_BATCH];
	unsigned n_batch;
	uint64_t batch_bytes;
	uint64_t paced_ns;	     /* slept for the bandwidth limit */
	_Atomic uint64_t held_bytes; /* taken from the set, not posted yet */
	_Atomic uint64_t bytes_sent, writes, zero_pages, sweeps, busy_ns;
	struct ramlift_error error; /* why it failed; read by others once it is done */
};

enum { RUNNING, FINISHING, STOPPING };

struct lanes {
	struct lanes_config config;
	uint64_t every_nth;	      /* bit b: b is a multiple of n_lanes */
	_Atomic uint8_t *slice_ready; /* enum slice_side of each slice, or-ed */
	uint64_t *seen; /* with skip_zeros: pages that a lane has looked at, a word a stripe */
	_Atomic int state;
	_Atomic uint64_t pace_ns; /* when the next batch may go, with a bandwidth limit */
	uint64_t token;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* any of the below, state, or slice_ready */
	uint64_t work;		/* counts lanes_wake() */
	unsigned n_done;
	struct lane *failed; /* the first one */

	unsigned n_started;
	struct lane lane[];
};

/* The stripes of this lane among the 64 that a summary word speaks for. */
static uint64_t own_stripes(const struct lane *lane, uint64_t summary)
{
	uint64_t n_lanes = lane->lanes->config.n_lanes;
	uint64_t first = (lane->index + n_lanes - summary * 64 % n_lanes) % n_lanes;

	return lane->lanes->every_nth << first;
}

static bool stopping(struct lanes *lanes)
{
	return atomic_load(&lanes->state) == STOPPING;
}

/* With a bandwidth limit: take the batch's share of time from all lanes' common clock, and sleep
 * until it is due. */
static void pace(struct lane *lane)
{
	struct lanes *lanes = lane->lanes;
	uint64_t limit = lanes->config.bandwidth_bytes_per_s;
	uint64_t begin_ns, due_ns, now_ns, cost_ns;

	if (!limit || atomic_load(&lanes->state) != RUNNING)
		return;
	cost_ns = (uint64_t)((double)lane->batch_bytes * (double)NS_PER_S / (double)limit);
	begin_ns = clock_now_ns();
	now_ns = begin_ns;
	due_ns = atomic_load(&lanes->pace_ns);
	while (!atomic_compare_exchange_weak(&lanes->pace_ns, &due_ns,
					     (due_ns > now_ns ? due_ns : now_ns) + cost_ns))
		;
	/* In short naps, so that finishing or stopping is not kept waiting. */
	while (due_ns > now_ns && atomic_load(&lanes->state) == RUNNING) {
		uint64_t nap_ns = due_ns - now_ns < NS_PER_MS ? due_ns - now_ns : NS_PER_MS;

		clock_sleep_until(now_ns + nap_ns);
		now_ns = clock_now_ns();
	}
	lane->paced_ns += now_ns - begin_ns;
}

static int flush(struct lane *lane)
{
	struct lanes *lanes = lane->lanes;
	int ret;

	if (!lane->n_batch)
		return 0;
	pace(lane);
	ret = lanes->config.transport->post(lanes->config.endpoint, lane->index, lane->batch,
					    lane->n_batch, &lane->error);
	if (ret)
		return ret;
	atomic_fetch_add(&lane->bytes_sent, lane->batch_bytes);
	atomic_fetch_sub(&lane->held_bytes, lane->batch_bytes);
	atomic_fetch_add(&lane->writes, lane->n_batch);
	lane->n_batch = 0;
	lane->batch_bytes = 0;
	return 0;
}

static bool slice_usable(struct lanes *lanes, unsigned slice)
{
	return atomic_load(&lanes->slice_ready[slice]) == (SLICE_SOURCE | SLICE_DESTINATION);
}

/* Wait until a slice is registered on both sides. -ECANCELED when the lane is to stop. */
static int await_slice(struct lane *lane, unsigned slice)
{
	struct lanes *lanes = lane->lanes;
	int ret;

	if (slice_usable(lanes, slice))
		return 0;
	ret = flush(lane);
	if (ret)
		return ret;
	pthread_mutex_lock(&lanes->lock);
	while (!slice_usable(lanes, slice) && !stopping(lanes))
		pthread_cond_wait(&lanes->changed, &lanes->lock);
	pthread_mutex_unlock(&lanes->lock);
	return stopping(lanes) ? -ECANCELED : 0;
}

/*
 * Strike those pages of zeros from bits that have never been sent: the destination's fresh memory
 * holds them already. The stripe's word of `seen` is this lane's alone, as the stripe is.
 */
static uint64_t without_zeros(struct lane *lane, uint64_t stripe, const char *hva, uint64_t bits)
{
	uint64_t *seen = &lane->lanes->seen[stripe];
	uint64_t candidates = bits & ~*seen;
	unsigned n = 0;

	*seen |= bits;

	for (unsigned page; bit_next(&candidates, &page);) {
		if (page_is_zero(hva + (uint64_t)page * RAMLIFT_PAGE_BYTES)) {
			bits &= ~(1ull << page);
			n++;
		}
	}
	atomic_fetch_add(&lane->zero_pages, n);
	return bits;
}

/* Post the dirty pages of one stripe, which has just lost its bits: from here on they must go out.
 */
static int send_stripe(struct lane *lane, uint64_t stripe, uint64_t bits)
{
	struct lanes *lanes = lane->lanes;
	struct stripe_place place;
	unsigned first, n;
	int ret;

	ram_locate(lanes->config.ram, stripe, &place);
	ret = await_slice(lane, place.slice);
	if (ret)
		return ret;
	if (lanes->seen)
		bits = without_zeros(lane, stripe, place.hva, bits);
	atomic_fetch_add(&lane->held_bytes,
			 (uint64_t)__builtin_popcountll(bits) * RAMLIFT_PAGE_BYTES);
	while (dirty_run_next(&bits, &first, &n)) {
		struct transport_write *write = &lane->batch[lane->n_batch++];

		write->slice = place.slice;
		write->offset_bytes = place.offset_bytes + (uint64_t)first * RAMLIFT_PAGE_BYTES;
		write->length_bytes = n * RAMLIFT_PAGE_BYTES;
		lane->batch_bytes += write->length_bytes;
		if (lane->n_batch == TRANSPORT_MAX_BATCH || lane->batch_bytes >= BATCH_BYTES) {
			ret = flush(lane);
			if (ret)
				return ret;
		}
	}
	return 0;
}

/* Go once through the lane's stripes of one bitmap. *found: there was something. */
static int sweep(struct lane *lane, struct dirty_bitmap *bitmap, bool *found)
{
	*found = false;
	for (uint64_t s = 0; s < bitmap->n_summary; s++) {
		uint64_t stripes = dirty_bitmap_claim(bitmap, s, own_stripes(lane, s));

		for (unsigned i; bit_next(&stripes, &i);) {
			uint64_t bits = dirty_bitmap_take(bitmap, s * 64 + i);
			int ret;

			if (!bits)
				continue;
			*found = true;
			ret = send_stripe(lane, s * 64 + i, bits);
			if (ret)
				return ret;
		}
		if (stopping(lane->lanes))
			return -ECANCELED;
	}
	return flush(lane);
}

/* Quiet pages first; those written a moment ago only when there is nothing else. */
static int sweep_set(struct lane *lane, bool *found)
{
	struct ramlift_dirty_sink *set = lane->lanes->config.set;
	uint64_t begin_ns = clock_now_ns() - lane->paced_ns;
	int ret;

	ret = sweep(lane, &set->quiet, found);
	if (!ret && !*found)
		ret = sweep(lane, &set->recent, found);
	if (*found)
		atomic_fetch_add(&lane->busy_ns, clock_now_ns() - lane->paced_ns - begin_ns);
	if (!ret && (*found || !atomic_load(&lane->sweeps)))
		atomic_fetch_add(&lane->sweeps, 1);
	return ret;
}

/* Sleep until there has been a wake since `seen`, or the state changes. */
static void await_work(struct lanes *lanes, uint64_t seen)
{
	pthread_mutex_lock(&lanes->lock);
	while (lanes->work == seen && atomic_load(&lanes->state) == RUNNING)
		pthread_cond_wait(&lanes->changed, &lanes->lock);
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

	for (;;) {
		/* Read before the sweep: only a sweep that began after FINISHING and found nothing
		 * is the last. */
		bool last = atomic_load(&lanes->state) == FINISHING;
		uint64_t seen = work_seen(lanes);
		bool found;
		int ret;

		ret = sweep_set(lane, &found);
		if (ret)
			return ret;
		if (stopping(lanes))
			return -ECANCELED;
		if (found)
			continue;
		if (last)
			break;
		ret = lanes->config.transport->drain(lanes->config.endpoint, lane->index,
						     &lane->error);
		if (ret)
			return ret;
		await_work(lanes, seen);
	}
	return lanes->config.transport->token(lanes->config.endpoint, lane->index, lanes->token,
					      &lane->error);
}

static void *lane_thread(void *argument)
{
	struct lane *lane = argument;
	struct lanes *lanes = lane->lanes;
	int ret = run(lane);

	pthread_mutex_lock(&lanes->lock);
	lanes->n_done++;
	if (ret && !lanes->failed) {
		if (!lane->error.code)
			error_set(&lane->error, ret, "lane %u was stopped", lane->index);
		lanes->failed = lane;
	}
	pthread_cond_broadcast(&lanes->changed);
	pthread_mutex_unlock(&lanes->lock);
	return NULL;
}

static int start_threads(struct lanes *lanes)
{
	for (unsigned i = 0; i < lanes->config.n_lanes; i++) {
		struct lane *lane = &lanes->lane[i];
		int ret;

		lane->lanes = lanes;
		lane->index = i;
		ret = pthread_create(&lane->thread, NULL, lane_thread, lane);
		if (ret)
			return -ret;
		lanes->n_started++;
	}
	return 0;
}

static int allocate_tables(struct lanes *lanes)
{
	const struct ram *ram = lanes->config.ram;

	lanes->slice_ready = calloc(ram->n_slices, sizeof(*lanes->slice_ready));
	if (!lanes->slice_ready)
		return -ENOMEM;
	if (!lanes->config.skip_zeros)
		return 0;
	lanes->seen = calloc(ram->n_stripes, sizeof(*lanes->seen));
	if (lanes->seen)
		return 0;
	free(lanes->slice_ready);
	return -ENOMEM;
}

int lanes_start(const struct lanes_config *config, struct lanes **result,
		struct ramlift_error *error)
{
	struct lanes *lanes;
	int ret;

	lanes = calloc(1, sizeof(*lanes) + config->n_lanes * sizeof(lanes->lane[0]));
	if (!lanes)
		return error_set(error, -ENOMEM, "no memory for %u lanes", config->n_lanes);
	lanes->config = *config;
	ret = allocate_tables(lanes);
	if (ret) {
		free(lanes);
		return error_set(error, ret, "no memory for the lanes' tables of %u slices",
				 config->ram->n_slices);
	}
	for (unsigned i = 0; i < 64; i += config->n_lanes)
		lanes->every_nth |= 1ull << i;
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

void lanes_slice_ready(struct lanes *lanes, unsigned slice, enum slice_side side)
{
	atomic_fetch_or(&lanes->slice_ready[slice], (uint8_t)side);
	broadcast(lanes);
}

bool lanes_slice_has(struct lanes *lanes, unsigned slice, enum slice_side side)
{
	return atomic_load(&lanes->slice_ready[slice]) & side;
}

void lanes_wake(struct lanes *lanes)
{
	broadcast(lanes);
}

void lanes_finish(struct lanes *lanes, uint64_t token)
{
	lanes->token = token;
	atomic_store(&lanes->state, FINISHING);
	broadcast(lanes);
}

int lanes_wait(struct lanes *lanes, uint64_t deadline_ns, struct ramlift_error *error)
{
	int failed, ret = 0;

	pthread_mutex_lock(&lanes->lock);
	while (lanes->n_done < lanes->config.n_lanes && !lanes->failed && ret != ETIMEDOUT)
		ret = clock_wait(&lanes->changed, &lanes->lock, deadline_ns);
	ret = lanes->n_done < lanes->config.n_lanes ? -ETIMEDOUT : 0;
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
	for (unsigned i = 0; i < lanes->config.ram->n_slices; i++) {
		if (!slice_usable(lanes, i))
			return false;
	}
	for (unsigned i = 0; i < lanes->config.n_lanes; i++) {
		if (!atomic_load(&lanes->lane[i].sweeps))
			return false;
	}
	return true;
}

uint64_t lanes_in_flight_bytes(struct lanes *lanes)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < lanes->config.n_lanes; i++)
		bytes += lanes->config.transport->in_flight_bytes(lanes->config.endpoint, i);
	return bytes;
}

uint64_t lanes_held_bytes(struct lanes *lanes)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < lanes->config.n_lanes; i++)
		bytes += atomic_load(&lanes->lane[i].held_bytes);
	return bytes;
}

uint64_t lanes_done_bytes(struct lanes *lanes)
{
	uint64_t in_flight = lanes_in_flight_bytes(lanes);
	uint64_t bytes = 0;

	for (unsigned i = 0; i < lanes->config.n_lanes; i++)
		bytes += atomic_load(&lanes->lane[i].bytes_sent) +
			 atomic_load(&lanes->lane[i].zero_pages) * RAMLIFT_PAGE_BYTES;
	return bytes > in_flight ? bytes - in_flight : 0;
}

void lanes_stats(struct lanes *lanes, unsigned index, struct ramlift_lane_stats *stats)
{
	struct lane *lane = &lanes->lane[index];

	stats->bytes_sent = atomic_load(&lane->bytes_sent);
	stats->writes = atomic_load(&lane->writes);
	stats->zero_pages = atomic_load(&lane->zero_pages);
	stats->sweeps = atomic_load(&lane->sweeps);
	stats->busy_ns = atomic_load(&lane->busy_ns);
}

void lanes_free(struct lanes *lanes)
{
	if (!lanes)
		return;
	atomic_store(&lanes->state, STOPPING);
	if (lanes->n_started)
		lanes->config.transport->abort(lanes->config.endpoint);
	broadcast(lanes);
	for (unsigned i = 0; i < lanes->n_started; i++)
		pthread_join(lanes->lane[i].thread, NULL);
	pthread_cond_destroy(&lanes->changed);
	pthread_mutex_destroy(&lanes->lock);
	free(lanes->seen);
	free(lanes->slice_ready);
	free(lanes);
}
