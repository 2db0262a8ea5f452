/* SPDX-License-Identifier: Apache-2.0 */
/* What each tick measures: how fast the guest dirties, how fast the lanes send, how long a
 * switchover would take. */
#include "core/clock.h"
#include "core/source.h"

#define FIXED_COST_FLOOR_NS                                                                        \
	(1 * NS_PER_MS)		/* pausing, saving and loading, even for a small guest */
#define HAND_OVER_ROUND_TRIPS 3 /* tokens, FINAL and PREPARED, COMMIT and STARTED */

static void smooth(double *average, double sample)
{
	*average += (sample - *average) * (*average ? 0.2 : 1.0);
}

/* Bytes that have arrived, as far as the lanes know; never counts back. */
static uint64_t bytes_completed(struct ramlift_source *source)
{
	uint64_t before = source->rates.last_bytes_sent;
	uint64_t bytes = 0, in_flight;

	for (unsigned i = 0; i < source_n_lanes(&source->config); i++) {
		struct ramlift_lane_stats lane;

		lanes_stats(source->lanes, i, &lane);
		bytes += lane.bytes_sent;
	}
	in_flight = lanes_in_flight_bytes(source->lanes); /* after them: see lanes_done_bytes() */
	return bytes >= before + in_flight ? bytes - in_flight : before;
}

static void update_rates(struct ramlift_source *source, uint64_t new_dirty_bytes,
			 uint64_t dirty_bytes)
{
	struct source_rates *rates = &source->rates;
	uint64_t now_ns = clock_now_ns();
	uint64_t sent;
	double seconds = (double)(now_ns - rates->last_ns) / (double)NS_PER_S;
	double rate;

	if (dirty_bytes < rates->least_dirty_bytes || !rates->least_ns) {
		rates->least_dirty_bytes = dirty_bytes;
		rates->least_ns = now_ns;
	}
	rates->new_dirty_bytes += new_dirty_bytes;
	/* A tick that was hastened is too short to tell a rate: its bytes count with the next. */
	if (now_ns - rates->last_ns < source->config.tick_ns / 2)
		return;
	sent = bytes_completed(source);
	rate = (double)(sent - rates->last_bytes_sent) / seconds;
	smooth(&rates->dirty_rate, (double)rates->new_dirty_bytes / seconds);
	smooth(&rates->send_rate, rate);
	/* Only a tick in which the lanes never ran dry tells what the link can do; a faster one
	 * tells in any case. */
	if (rate > rates->link_rate)
		rates->link_rate = rate;
	else if (dirty_bytes && rates->last_dirty_bytes)
		smooth(&rates->link_rate, rate);
	rates->new_dirty_bytes = 0;
	rates->last_ns = now_ns;
	rates->last_bytes_sent = sent;
}

static int harvest(struct ramlift_source *source, struct ramlift_error *error)
{
	uint64_t begin_ns = clock_now_ns();
	int ret;

	ret = source->config.dirty_source_ops->harvest(source->config.dirty_source, error);
	smooth(&source->rates.harvest_ns, (double)(clock_now_ns() - begin_ns));
	return ret;
}

uint64_t source_remaining_bytes(struct ramlift_source *source)
{
	uint64_t done_bytes = lanes_done_bytes(source->lanes);
	uint64_t added_bytes = dirty_set_added_bytes(&source->set);

	return added_bytes > done_bytes ? added_bytes - done_bytes : 0;
}

/* What a limit left in the dirty source: it comes with the last harvest, all at once. */
static uint64_t backlog_bytes(const struct ramlift_source *source)
{
	const struct ramlift_source_config *config = &source->config;

	if (!config->dirty_source_ops->backlog)
		return 0;
	return config->dirty_source_ops->backlog(config->dirty_source) * RAMLIFT_PAGE_BYTES;
}

/*
 * Once every lane has been through its stripes, and what was wanted at first has been usable. It
 * stays so: a guest that keeps touching new memory, or a budget that is too small for what it
 * writes, must not keep the policy from being applied.
 */
static bool first_pass_done(struct ramlift_source *source, bool settled)
{
	struct source_rates *rates = &source->rates;

	rates->settled |= settled;
	return rates->settled && lanes_first_pass_done(source->lanes);
}

int source_tick(struct ramlift_source *source, struct decision_input *input,
		struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	struct source_rates *rates = &source->rates;
	uint64_t new_pages, dirty_bytes;
	bool settled = pins_settled(source->pins);
	int ret;

	ret = harvest(source, error);
	if (ret)
		return ret;
	new_pages = dirty_set_fold(&source->set);
	dirty_bitmap_tidy(&source->set.dirty); /* here, and not in the downtime */
	dirty_bytes = source_remaining_bytes(source);
	if (dirty_bytes)
		lanes_wake(source->lanes);
	dirty_bytes += backlog_bytes(source);
	update_rates(source, new_pages * RAMLIFT_PAGE_BYTES, dirty_bytes);

	*input = (struct decision_input){
		.first_pass_done = first_pass_done(source, settled),
		.settled = settled || !pins_are_kept(source->pins),
		.dirty_bytes = dirty_bytes,
		.link_rate = (uint64_t)rates->link_rate,
		.fixed_cost_ns = FIXED_COST_FLOOR_NS + (uint64_t)rates->harvest_ns +
				 rates->journal_ns +
				 HAND_OVER_ROUND_TRIPS * channel_rtt_ns(source->session.channel),
		.elapsed_ns = clock_now_ns() - source->session.begin_ns,
		.stuck_ns = clock_now_ns() - rates->least_ns,
		.can_slow_down = !source->cannot_limit,
		.max_downtime_ns = config->max_downtime_ns,
		.max_total_ns = config->max_total_ns,
		.on_divergence = config->on_divergence,
	};
	rates->last_dirty_bytes = dirty_bytes;
	source->session.stats.bytes_remaining = dirty_bytes;
	return 0;
}

void source_collect_stats(struct ramlift_source *source)
{
	struct ramlift_stats *stats = &source->session.stats;
	uint64_t streaming_ns = clock_now_ns() - source->stream_begin_ns;
	uint64_t passes = UINT64_MAX;

	stats->n_lanes = source_n_lanes(&source->config);
	stats->bytes_sent = 0;
	stats->zero_pages = 0;
	for (unsigned i = 0; i < stats->n_lanes; i++) {
		struct ramlift_lane_stats *lane = &stats->lanes[i];

		lanes_stats(source->lanes, i, lane);
		lane->rate_bytes_per_s = (uint64_t)((double)lane->bytes_sent * (double)NS_PER_S /
						    (double)streaming_ns);
		stats->bytes_sent += lane->bytes_sent;
		stats->zero_pages += lane->zero_pages;
		if (!lane->lost && lane->sweeps < passes)
			passes = lane->sweeps;
	}
	stats->zero_pages += atomic_load(&source->zero_pages);
	if (!source->carried) { /* else they are the carrier's to know */
		stats->passes = passes == UINT64_MAX ? 0 : passes;
		stats->dirty_rate_bytes_per_s = (uint64_t)source->rates.dirty_rate;
	}
	stats->send_rate_bytes_per_s = (uint64_t)source->rates.send_rate;
	stats->throttled = source->limit_pages_per_s != 0;
}
