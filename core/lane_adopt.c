/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a lane is lost: whether the others can do without it, and how its stripes come to them.
 *
 * What it had posted may have arrived, or arrive late, or never; so nobody else posts to its
 * stripes before the peer's end of it is dead (rule 2), and then all that it has ever carried goes
 * again.
 */
#include <errno.h>

#include "core/error.h"
#include "core/lane.h"

/* The lane that has the least of a region, among those that can carry it; NULL: there is none. */
static struct lane *find_heir(struct lanes *lanes, unsigned region)
{
	struct lane *heir = NULL;
	int least = 0;

	for (unsigned i = 0; i < lanes->config.n_lanes; i++) {
		struct lane_share *share = &lanes->lane[i].shares[region];
		int n = __builtin_popcountll(atomic_load(&share->numbers));

		if (!share->n || lane_is_lost(lanes, i) || (heir && n >= least))
			continue;
		heir = &lanes->lane[i];
		least = n;
	}
	return heir;
}

/* The first region of the lane's that no other can carry; n_regions: there is none such. */
static unsigned region_without_heir(struct lane *lane)
{
	struct lanes *lanes = lane->lanes;
	unsigned region = 0;

	while (region < lanes->config.ram->n_regions &&
	       (!lane->shares[region].n || find_heir(lanes, region)))
		region++;
	return region;
}

/* What was in flight was not sent; it may be part of a batch that does not count yet. */
static void uncount_in_flight(struct lane *lane)
{
	const struct lanes_config *config = &lane->lanes->config;
	uint64_t bytes = config->transport->in_flight_bytes(config->endpoint, lane->index);
	uint64_t sent = atomic_load(&lane->bytes_sent);

	atomic_store(&lane->bytes_sent, sent > bytes ? sent - bytes : 0);
}

void lane_lose(struct lane *lane, int ret)
{
	struct lanes *lanes = lane->lanes;

	if (!lane->error.code)
		error_set(&lane->error, ret, "lane %u was stopped", lane->index);
	if (lanes->failed)
		return;
	if (atomic_load(&lanes->state) != RUNNING || ret == -ECANCELED) {
		lanes->failed = lane;
		return;
	}
	/* First, so that it does not count as its own heir. */
	atomic_fetch_or(&lanes->lost, 1ull << lane->index);
	if (region_without_heir(lane) < lanes->config.ram->n_regions)
		lanes->failed = lane;
	uncount_in_flight(lane);
}

uint64_t lanes_lost(struct lanes *lanes)
{
	/* In this order: what is replaced was lost before. */
	uint64_t replaced = atomic_load(&lanes->replaced);

	return atomic_load(&lanes->lost) & ~replaced;
}

int lanes_loss(struct lanes *lanes, unsigned index, struct ramlift_error *error)
{
	int ret = 0;

	pthread_mutex_lock(&lanes->lock);
	if (lane_is_lost(lanes, index)) {
		ret = lanes->lane[index].error.code;
		if (error)
			*error = lanes->lane[index].error;
	}
	pthread_mutex_unlock(&lanes->lock);
	return ret;
}

/* Pages that were named for it, whatever has become of them. */
static void mark_named(struct lanes *lanes, unsigned region, const struct lane_share *share)
{
	const struct lanes_config *config = &lanes->config;
	uint64_t numbers = atomic_load(&share->numbers);
	uint64_t first = config->ram->first_stripe[region];
	uint64_t end = first + ram_region_stripes(config->ram, region);

	for (uint64_t i = first; i < end; i++) {
		if (numbers >> i % share->n & 1)
			dirty_set_add(config->set, i, atomic_load(&config->named->words[i]));
	}
}

static void mark_carried(struct lane *lane)
{
	struct lanes *lanes = lane->lanes;
	const struct lanes_config *config = &lanes->config;

	for (unsigned i = 0; i < config->ram->n_regions; i++) {
		struct lane_share *share = &lane->shares[i];

		if (!share->n)
			continue;
		if (config->named)
			mark_named(lanes, i, share);
		else
			dirty_set_mark_stripes(config->set, i, share->n,
					       atomic_load(&share->numbers), config->skip_holes);
	}
}

/* Under the lock, and there are heirs. */
static void deal_out(struct lane *lane, unsigned region)
{
	uint64_t numbers = atomic_load(&lane->shares[region].numbers);

	for (unsigned number; bit_next(&numbers, &number);) {
		struct lane *heir = find_heir(lane->lanes, region);

		atomic_fetch_or(&heir->shares[region].numbers, 1ull << number);
		atomic_fetch_add(&heir->given, 1);
	}
}

static int replace(struct lane *lane, struct ramlift_error *error)
{
	struct lanes *lanes = lane->lanes;
	unsigned orphan = region_without_heir(lane);

	if (orphan < lanes->config.ram->n_regions)
		return error_set(error, -EIO, "no lane is left that could carry region %u (%.200s)",
				 orphan, lane->error.text);
	for (unsigned i = 0; i < lanes->config.ram->n_regions; i++) {
		if (lane->shares[i].n)
			deal_out(lane, i);
	}
	atomic_fetch_or(&lanes->replaced, 1ull << lane->index);
	/* They may have gone to sleep while it was theirs to know nothing of. */
	lanes->work++;
	pthread_cond_broadcast(&lanes->changed);
	return 0;
}

int lanes_adopt(struct lanes *lanes, unsigned index, struct ramlift_error *error)
{
	struct lane *lane = &lanes->lane[index];
	int ret;

	/* Nothing of it is on its way any more. */
	lane_release_slice(lane);
	/* Dirty first: a lane that finds nothing in its new stripes goes to sleep. */
	mark_carried(lane);
	pthread_mutex_lock(&lanes->lock);
	ret = replace(lane, error);
	pthread_mutex_unlock(&lanes->lock);
	return ret;
}
