/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's way through a session:
 *
 *   preflight   connect, OFFER, wait for ACCEPT                       source_prepare.c
 *   prepare     connect the lanes, start to track, mark what is present, register, send
 *   stream      each tick: harvest, fold, decide            source_rates.c, controller.c
 *   switchover  pause, send the rest, hand over             source_switch.c
 *
 * and, whatever happened, the way back: a guest that still belongs here runs again before anything
 * is cleaned up.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/source.h"

#define LEAST_TICK_NS	  (2 * NS_PER_MS)
#define CARRIED_START_NS  (5 * NS_PER_MS)
#define LEAST_LIMIT_PAGES 256 /* a guest that is slowed down still dirties 1 MiB a second */

int source_take_slice_key(struct ramlift_source *source, const struct message *message,
			  struct ramlift_error *error)
{
	struct slice_key_message slice;

	if (slice_key_decode(message->payload, message->length_bytes, &slice) ||
	    slice.slice >= source->ram.n_slices)
		return error_set(error, -EPROTO, "the destination announced a slice that is none");
	/* Lanes read the keys of slices that are usable. */
	if (!pins_await_peer(source->pins, slice.slice))
		return error_set(error, -EPROTO,
				 "the destination announced slice %u, which was not asked for",
				 slice.slice);
	source->transport->set_peer_key(source->endpoint, slice.slice, &slice.key);
	return pins_peer_ready(source->pins, slice.slice, error);
}

/* Take messages until the tick is due, or lanes have run dry: then it comes early, but not at once
 * after the one before. */
static int receive_until(struct ramlift_source *source, uint64_t tick_ns,
			 struct ramlift_error *error)
{
	uint64_t soonest_ns = clock_now_ns() + LEAST_TICK_NS;

	for (;;) {
		struct message *message;
		int ret = session_receive(&source->session, tick_ns, NULL, &message, error);

		if (ret == -ETIMEDOUT && clock_now_ns() < soonest_ns && soonest_ns < tick_ns) {
			tick_ns = soonest_ns;
			continue;
		}
		if (ret == -ETIMEDOUT)
			return 0;
		if (ret)
			return ret;
		/* This phase allows no others. */
		if (message->type == MESSAGE_LANE_FENCED)
			ret = source_take_lane_fenced(source, message, error);
		else
			ret = source_take_slice_key(source, message, error);
		free(message);
		if (ret)
			return ret;
	}
}

/* Harvest at less than the link's pace: the rings fill, and a full ring stops its vCPU. */
static int slow_down(struct ramlift_source *source, const struct decision_input *input,
		     struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	uint64_t limit = source->limit_pages_per_s ? source->limit_pages_per_s / 2
						   : input->link_rate / 2 / RAMLIFT_PAGE_BYTES;
	int ret = -EOPNOTSUPP;

	if (limit < LEAST_LIMIT_PAGES)
		limit = LEAST_LIMIT_PAGES;
	if (config->dirty_source_ops->limit)
		ret = config->dirty_source_ops->limit(config->dirty_source, limit, error);
	if (ret == -EOPNOTSUPP) {
		source->cannot_limit = true;
		return 0;
	}
	source->limit_pages_per_s = limit;
	source->rates.least_ns = 0; /* give it time to show */
	return ret;
}

static int give_up(const struct ramlift_source *source, const struct decision_input *input,
		   struct ramlift_error *error)
{
	if (input->max_total_ns && input->elapsed_ns >= input->max_total_ns)
		return error_set(error, -ETIMEDOUT,
				 "not done within the time limit of %" PRIu64
				 " s: allow more time, lanes or "
				 "bandwidth",
				 source->config.max_total_ns / NS_PER_S);
	if (input->fixed_cost_ns > input->max_downtime_ns)
		return error_set(error, -ETIMEDOUT,
				 "the switchover alone takes about %" PRIu64
				 " ms here: allow a longer downtime",
				 input->fixed_cost_ns / NS_PER_MS + 1);
	return error_set(error, -ETIMEDOUT,
			 "the guest dirties memory faster than the link sends it: allow a longer "
			 "downtime, or throttling");
}

/* What could keep the session from ever getting on: a lane, a registration, on either side. */
static int check_progress(struct ramlift_source *source, struct ramlift_error *error)
{
	int ret = lanes_check(source->lanes, error);

	if (!ret)
		ret = source_replace_lanes(source, error);
	if (ret)
		return ret;
	ret = pins_check(source->pins, source->config.timeouts.prepare_ns, error);
	return ret ? session_checked(&source->session, "memory", ret, error) : 0;
}

/* A carried program decides for itself; what is left to judge is the time limit. */
static int carried_decision(struct ramlift_source *source, const struct decision_input *input,
			    enum decision *decision, struct ramlift_error *error)
{
	struct carried_tick tick = {
		.link_rate = input->link_rate,
		.backlog_bytes = source_remaining_bytes(source),
		.stats = &source->session.stats,
	};
	int ret = 0;

	if (source->tracking)
		ret = source->carried->tick(source->carrier, &tick, error);
	else if (input->first_pass_done) /* of nothing: all slices are usable */
		ret = source_start_tracking(source, error);
	if (ret)
		return ret;
	*decision = DECISION_GO_ON;
	if (tick.complete)
		*decision = DECISION_SWITCH_OVER;
	else if (input->max_total_ns && input->elapsed_ns >= input->max_total_ns)
		*decision = DECISION_GIVE_UP;
	source->stopped_ns = tick.stopped_ns;
	return 0;
}

static int decide(struct ramlift_source *source, const struct decision_input *input,
		  enum decision *decision, struct ramlift_error *error)
{
	if (source->carried)
		return carried_decision(source, input, decision, error);
	*decision = controller_decide(input);
	return 0;
}

/* A program that has not begun yet waits for the slices, not for ticks. */
static uint64_t next_tick_ns(const struct ramlift_source *source)
{
	uint64_t tick_ns = source->config.tick_ns;
	bool waits = source->carried && !source->tracking;

	return waits && tick_ns > CARRIED_START_NS ? CARRIED_START_NS : tick_ns;
}

/* Until it is time to switch over. */
static int stream(struct ramlift_source *source, struct ramlift_error *error)
{
	uint64_t tick_ns = clock_now_ns();

	session_enter(&source->session, RAMLIFT_PHASE_STREAM);
	source->stream_begin_ns = tick_ns;
	source->rates.last_ns = tick_ns;
	for (;;) {
		struct decision_input input;
		enum decision decision;
		int ret;

		tick_ns += next_tick_ns(source);
		ret = receive_until(source, tick_ns, error);
		if (!ret)
			ret = check_progress(source, error);
		if (!ret)
			ret = source_tick(source, &input, error);
		if (ret)
			return ret;
		tick_ns = clock_now_ns();
		source_collect_stats(source);
		ret = decide(source, &input, &decision, error);
		if (ret)
			return ret;
		session_publish(&source->session);
		FAULT_POINT("source-streaming");
		/* What a lost lane has carried would be missing. */
		if (decision == DECISION_SWITCH_OVER && !lanes_lost(source->lanes))
			return 0;
		if (decision == DECISION_GIVE_UP)
			return give_up(source, &input, error);
		if (decision == DECISION_SLOW_DOWN)
			ret = slow_down(source, &input, error);
		if (ret)
			return ret;
	}
}

static int attempt(struct ramlift_source *source, struct ramlift_error *error)
{
	struct accept accept;
	int ret;

	session_enter(&source->session, RAMLIFT_PHASE_PREFLIGHT);
	ret = source_begin(source, error);
	if (!ret)
		ret = source_preflight(source, &accept, error);
	if (!ret)
		ret = source_prepare(source, &accept, error);
	if (!ret)
		ret = stream(source, error);
	if (!ret)
		ret = source_switch_over(source, error);
	return ret;
}

/* Registration, dirty tracking and lanes end here: after the guest runs,
 * never inside the downtime. */
static void clean_up(struct ramlift_source *source)
{
	/* Lanes call the pins, whose threads wake the lanes. */
	lanes_stop(source->lanes);
	pins_free(source->pins);
	if (source->tracking)
		source->config.dirty_source_ops->stop(source->config.dirty_source);
	lanes_free(source->lanes);
	if (source->endpoint)
		source->transport->close(source->endpoint);
	channel_close(source->session.channel);
	source->lanes = NULL;
	source->pins = NULL;
	source->limit_pages_per_s = 0; /* went with the tracking */
	source->tracking = false;
	source->endpoint = NULL;
	source->session.channel = NULL;
}

void source_take_back(struct ramlift_source *source, struct ramlift_error *error)
{
	struct ramlift_error resume_error = { 0 };

	if (source->limit_pages_per_s)
		source->config.dirty_source_ops->limit(source->config.dirty_source, 0, NULL);
	source->limit_pages_per_s = 0;
	/* A carried program may have stopped its guest, or be about to. */
	if ((source->paused || (source->carried && source->tracking)) &&
	    source->config.guest_ops->resume(source->config.guest, &resume_error)) {
		struct ramlift_error first = *error;

		error_set(error, first.code, "%.200s; and the guest cannot be resumed: %.200s",
			  first.text, resume_error.text);
	}
	source->paused = false;
	session_send_abort(&source->session, error);
}

int ramlift_source_run(struct ramlift_source *source, struct ramlift_error *caller_error)
{
	struct ramlift_error error = { 0 };
	enum ramlift_phase outcome;
	int ret;

	ret = attempt(source, &error);
	if (ret && !error.code)
		error_set(&error, ret, "the migration failed: %s", strerror(-ret));
	if (!ret)
		outcome = RAMLIFT_PHASE_DONE;
	else if (ret == -EINPROGRESS && source->session.phase == RAMLIFT_PHASE_COMMITTED)
		outcome = RAMLIFT_PHASE_IN_DOUBT;
	else
		outcome = RAMLIFT_PHASE_FAILED;
	if (outcome == RAMLIFT_PHASE_FAILED) {
		if (ret == -EINPROGRESS) /* of a call of the guest: nothing is in doubt */
			ret = error.code = -EIO;
		source_take_back(source, &error);
	}
	if (source->lanes)
		source_collect_stats(source);
	/* It is over when the guest runs there; here what cannot be seen from outside goes on. A
	 * guest that is to run here again has failed to leave only once all is as before. */
	if (outcome == RAMLIFT_PHASE_DONE)
		session_enter(&source->session, outcome);
	clean_up(source);
	if (outcome != RAMLIFT_PHASE_IN_DOUBT)
		source_let_go(source);
	if (outcome != RAMLIFT_PHASE_DONE)
		session_enter(&source->session, outcome);
	if (ret && caller_error)
		*caller_error = error;
	return ret;
}
