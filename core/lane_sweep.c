/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One lane's way from dirty bits to posted writes:
 *
 *   sweep        regions -> summary words -> own stripes, quiet ones first
 *   send_stripe  a slice that is usable, without pages of zeros, runs of pages into the batch
 *   flush        pace, one call of the transport for the batch
 *
 * A page lost its dirty bit before it is read here; a write that comes later sets it again. No
 * lock, no allocation and no system call for a page, while slices are usable and the transport has
 * room.
 */
#include <errno.h>

#include "core/clock.h"
#include "core/lane.h"
#include "core/zero.h"

/* A batch that is worth its doorbell, and waking up for its end; more would only be in flight for
 * longer. Under a limit it is a fiftieth of a second's worth, or nothing would flow evenly. */
#define BATCH_BYTES	   (4u << 20)
#define BATCH_LEAST_BYTES  (64u << 10)
#define BATCHES_PER_SECOND 50u

/* After so many pages without one of zeros, only one stripe in so many is still looked at. */
#define DRY_PAGES	 4096u
#define DRY_LOOK_STRIPES 16u

/* With a bandwidth limit: take the batch's share of time from all lanes' common clock, and sleep
 * until it is due. */
static void pace(struct lane *lane, uint64_t bytes)
{
	struct lanes *lanes = lane->lanes;
	uint64_t limit = lanes->config.bandwidth_bytes_per_s;
	uint64_t begin_ns, due_ns, now_ns, cost_ns;

	if (!limit || atomic_load(&lanes->state) != RUNNING)
		return;
	cost_ns = (uint64_t)((double)bytes * (double)NS_PER_S / (double)limit);
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

static bool is_full(const struct lane *lane, const struct batch *batch)
{
	uint64_t limit = lane->lanes->config.bandwidth_bytes_per_s;
	uint64_t most = BATCH_BYTES;

	if (limit && limit / BATCHES_PER_SECOND < most)
		most = limit / BATCHES_PER_SECOND;
	if (most < BATCH_LEAST_BYTES)
		most = BATCH_LEAST_BYTES;
	return batch->n == TRANSPORT_MAX_BATCH || batch->bytes >= most;
}

static int flush(struct lane *lane, struct batch *batch)
{
	const struct lanes_config *config = &lane->lanes->config;
	int ret;

	if (!batch->n)
		return 0;
	pace(lane, batch->bytes);
	ret = config->transport->post(config->endpoint, lane->index, batch->writes, batch->n,
				      &lane->error);
	if (ret)
		return ret;
	atomic_fetch_add(&lane->bytes_sent, batch->bytes);
	atomic_fetch_add(&lane->writes, batch->n);
	batch->n = 0;
	batch->bytes = 0;
	return 0;
}

void lane_release_slice(struct lane *lane)
{
	if (lane->held_slice != NO_SLICE)
		pins_release(lane->lanes->config.pins, lane->held_slice);
	lane->held_slice = NO_SLICE;
}

/* Wait until a slice can be posted to. -ECANCELED when the lane is to stop. */
static int await_slice(struct lane *lane, unsigned slice)
{
	struct lanes *lanes = lane->lanes;
	struct pins *pins = lanes->config.pins;
	uint64_t seen;

	pins_reserve(pins, slice);
	lane->held_slice = slice;
	pthread_mutex_lock(&lanes->lock);
	while (!pins_usable(pins, slice) && !lanes_stopping(lanes)) {
		/* Asking may take a moment: not under the lock, so look whether it was missed. */
		seen = lanes->work;
		pthread_mutex_unlock(&lanes->lock);
		pins_want(pins, slice);
		pthread_mutex_lock(&lanes->lock);
		if (lanes->work == seen && !pins_usable(pins, slice) && !lanes_stopping(lanes))
			pthread_cond_wait(&lanes->changed, &lanes->lock);
	}
	pthread_mutex_unlock(&lanes->lock);
	if (!pins_usable(pins, slice)) {
		lane_release_slice(lane);
		return -ECANCELED;
	}
	return 0;
}

/* Go over to another slice: nothing may be on its way to the one before when that is let go. */
static int change_slice(struct lane *lane, struct batch *batch, unsigned slice)
{
	const struct lanes_config *config = &lane->lanes->config;
	bool usable = pins_hold(config->pins, slice);
	int ret = 0;

	if (!usable || !pins_are_kept(config->pins))
		ret = flush(lane, batch);
	if (!ret && !pins_are_kept(config->pins))
		ret = config->transport->drain(config->endpoint, lane->index, &lane->error);
	if (ret) {
		if (usable)
			pins_release(config->pins, slice);
		return ret;
	}
	lane_release_slice(lane);
	if (!usable)
		return await_slice(lane, slice);
	lane->held_slice = slice;
	return 0;
}

/* Is it worth looking for pages of zeros in this stripe? Once in its life, and less often where
 * none were found for long: a page of data costs a cache line, for nothing. */
static bool worth_a_look(struct lane *lane, uint64_t stripe)
{
	_Atomic uint64_t *seen = lane->lanes->seen;
	uint64_t flag = 1ull << (stripe % 64);

	if (!seen || atomic_load_explicit(&seen[stripe / 64], memory_order_relaxed) & flag)
		return false;
	atomic_fetch_or_explicit(&seen[stripe / 64], flag, memory_order_relaxed);
	return lane->dry_pages < DRY_PAGES || lane->dry_stripes++ % DRY_LOOK_STRIPES == 0;
}

/*
 * Strike those pages of zeros from the bits of a stripe of which nothing has ever been sent: the
 * destination's fresh memory holds them already.
 */
static uint64_t without_zeros(struct lane *lane, uint64_t stripe, const char *hva, uint64_t bits)
{
	uint64_t zeros;

	if (!worth_a_look(lane, stripe))
		return bits;
	zeros = zero_pages(hva, bits);
	atomic_fetch_add(&lane->zero_pages, (unsigned)__builtin_popcountll(zeros));
	lane->dry_pages = zeros ? 0 : lane->dry_pages + (unsigned)__builtin_popcountll(bits);
	return bits & ~zeros;
}

/* Post the dirty pages of one stripe, which has just lost its bits: from
 * here on they must go out. */
static int send_stripe(struct lane *lane, struct batch *batch, uint64_t stripe, uint64_t bits)
{
	struct stripe_place place;
	unsigned first, n;

	ram_locate(lane->lanes->config.ram, stripe, &place);
	bits = without_zeros(lane, stripe, place.hva, bits);
	if (bits && place.slice != lane->held_slice) {
		int ret = change_slice(lane, batch, place.slice);

		if (ret)
			return ret;
	}
	while (dirty_run_next(&bits, &first, &n)) {
		struct transport_write *write = &batch->writes[batch->n++];

		write->slice = place.slice;
		write->offset_bytes = place.offset_bytes + (uint64_t)first * RAMLIFT_PAGE_BYTES;
		write->length_bytes = n * RAMLIFT_PAGE_BYTES;
		batch->bytes += write->length_bytes;
		if (is_full(lane, batch)) {
			int ret = flush(lane, batch);

			if (ret)
				return ret;
		}
	}
	return 0;
}

/* Of the 64 stripes that a summary word speaks for, those of the lane. */
static uint64_t own_stripes(const struct lane_share *share, uint64_t summary)
{
	uint64_t numbers = atomic_load_explicit(&share->numbers, memory_order_acquire);
	uint64_t stripes = 0;

	if (numbers == ~0ull >> (64 - share->n))
		return ~0ull;
	for (unsigned number; bit_next(&numbers, &number);) {
		uint64_t i = (number + share->n - summary * 64 % share->n) % share->n;

		for (; i < 64; i += share->n)
			stripes |= 1ull << i;
	}
	return stripes;
}

/* The lane's part of one region, without what is hot if quiet_only. */
static int sweep_region(struct lane *lane, struct batch *batch, unsigned region, bool quiet_only,
			bool *found)
{
	const struct lanes_config *config = &lane->lanes->config;
	struct dirty_bitmap *dirty = &config->set->dirty;
	uint64_t first = config->ram->first_stripe[region] / 64;
	uint64_t end = first + (ram_region_stripes(config->ram, region) + 63) / 64;

	for (uint64_t s = dirty_bitmap_next(dirty, first, end); s < end;
	     s = dirty_bitmap_next(dirty, s + 1, end)) {
		uint64_t own = own_stripes(&lane->shares[region], s);
		uint64_t wait = quiet_only ? dirty_set_hot(config->set, s) : 0;
		uint64_t stripes = dirty_bitmap_claim(dirty, s, own & ~wait);

		for (unsigned i; bit_next(&stripes, &i);) {
			uint64_t bits = dirty_bitmap_take(dirty, s * 64 + i);
			int ret;

			if (!bits)
				continue;
			*found = true;
			lane->taken_pages += (unsigned)__builtin_popcountll(bits);
			ret = send_stripe(lane, batch, s * 64 + i, bits);
			if (ret) {
				dirty_bitmap_unclaim(dirty, s, stripes);
				return ret;
			}
		}
		if (lanes_stopping(lane->lanes))
			return -ECANCELED;
	}
	return 0;
}

static int sweep(struct lane *lane, struct batch *batch, bool quiet_only, bool *found)
{
	int ret = 0;

	*found = false;
	for (unsigned i = 0; i < lane->lanes->config.ram->n_regions && !ret; i++) {
		if (lane->shares[i].n)
			ret = sweep_region(lane, batch, i, quiet_only, found);
	}
	return ret ? ret : flush(lane, batch);
}

int lane_sweep(struct lane *lane, struct batch *batch, bool *found)
{
	uint64_t begin_ns = clock_now_ns() - lane->paced_ns;
	int ret = sweep(lane, batch, true, found);

	if (!ret && !*found)
		ret = sweep(lane, batch, false, found);
	if (*found)
		atomic_fetch_add(&lane->busy_ns, clock_now_ns() - lane->paced_ns - begin_ns);
	if (!ret && (*found || !atomic_load(&lane->sweeps)))
		atomic_fetch_add(&lane->sweeps, 1);
	return ret;
}
