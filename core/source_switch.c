/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switchover as the source sees it, which is the guest's downtime. Each step is timed; none
 * does work in proportion to the guest's size, but for the digest that --verify asks for.
 *
 *   pause, last harvest, [save state | lanes drain, tokens], FINAL -> PREPARED, journal,
 *   COMMIT -> STARTED
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/source.h"

#define LISTEN_EVERY_NS	  (50 * NS_PER_MS) /* to see that a registration failed */
#define CARRY_OUT_POLL_NS (1 * NS_PER_MS)

/* Rule 4: only when every vCPU is out of its run does the last harvest count. */
static int pause_and_harvest(struct ramlift_source *source, uint64_t *clock_ns,
			     struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	struct ramlift_stats *stats = &source->session.stats;
	int ret;

	source->paused = true;
	ret = config->guest_ops->pause(config->guest, error);
	stats->downtime.pause_ns = clock_lap_ns(clock_ns);
	if (ret)
		return ret;
	FAULT_POINT("source-paused");
	if (source->limit_pages_per_s)
		ret = config->dirty_source_ops->limit(config->dirty_source, 0, error);
	if (!ret)
		ret = config->dirty_source_ops->harvest(config->dirty_source, error);
	if (ret)
		return ret;
	dirty_set_fold(&source->set);
	stats->residual_bytes = source_remaining_bytes(source);
	stats->downtime.harvest_ns = clock_lap_ns(clock_ns);
	return 0;
}

/* Until every lane has delivered its token. A slice that was first written just now may still have
 * to be registered; a cancel is heard, and that the peer is gone. */
static int await_lanes(struct ramlift_source *source, uint64_t deadline_ns,
		       struct ramlift_error *error)
{
	for (;;) {
		uint64_t now_ns = clock_now_ns();
		struct message *message;
		int ret = lanes_check(source->lanes, error);

		if (ret) /* which may be a lane's -ETIMEDOUT, too */
			return ret;
		ret = lanes_wait(source->lanes, now_ns, error);
		/* A SLICE_KEY must not come later than this: nobody would wait for it. */
		if (!ret && !pins_settled(source->pins))
			ret = -ETIMEDOUT;
		if (ret != -ETIMEDOUT)
			return ret;
		if (now_ns >= deadline_ns)
			return error_set(error, ret, "the rest of memory took too long");
		error->code = 0;
		ret = pins_check(source->pins, source->config.timeouts.prepare_ns, error);
		if (ret)
			return ret;
		/* The lanes wake this thread when they have ended. */
		ret = session_receive(&source->session, now_ns + LISTEN_EVERY_NS, NULL, &message,
				      error);
		if (ret == -ETIMEDOUT)
			continue;
		if (!ret) {
			ret = source_take_slice_key(source, message, error);
			free(message);
		}
		if (ret)
			return ret;
	}
}

static int stop_and_copy(struct ramlift_source *source, struct final *final, void **state,
			 uint64_t *clock_ns, struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	struct ramlift_downtime *downtime = &source->session.stats.downtime;
	size_t state_bytes = 0;
	int ret;

	ret = pause_and_harvest(source, clock_ns, error);
	if (ret)
		return ret;
	final->n_lanes = source_n_lanes(config);
	memcpy(final->tokens, source->tokens, sizeof(final->tokens));
	lanes_finish(source->lanes, final->tokens);
	ret = config->guest_ops->save_state(config->guest, state, &state_bytes, error);
	downtime->save_ns = clock_lap_ns(clock_ns);
	if (ret)
		return ret;
	if (state_bytes > WIRE_MAX_STATE_BYTES)
		return error_set(error, -E2BIG, "the guest's state is over 16 MiB");
	final->state = *state;
	final->state_bytes = (uint32_t)state_bytes;
	ret = await_lanes(source, *clock_ns + config->timeouts.hand_over_ns, error);
	session_checked(&source->session, "tokens", ret, error);
	downtime->drain_ns = clock_lap_ns(clock_ns);
	if (ret)
		return ret;
	if (config->verify) {
		final->verify = true;
		final->digest = digest_ram(&source->ram);
		downtime->verify_ns = clock_lap_ns(clock_ns);
	}
	return 0;
}

static int await_prepared(struct ramlift_source *source, const struct final *final,
			  struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + source->config.timeouts.hand_over_ns;
	struct ramlift_stats *stats = &source->session.stats;
	struct prepared prepared;
	struct message *message;
	int ret;

	ret = session_receive(&source->session, deadline_ns, "loading the guest at the destination",
			      &message, error);
	if (ret)
		return ret;
	ret = prepared_decode(message->payload, message->length_bytes, &prepared);
	free(message);
	if (ret)
		return error_set(error, ret, "the destination's PREPARED makes no sense");
	if (final->verify && prepared.digest != final->digest)
		ret = error_set(error, -EBADMSG,
				"the destination's memory differs from the source's");
	if (final->verify)
		session_checked(&source->session, "digest", ret, error);
	if (ret)
		return ret;
	stats->verified = final->verify;
	stats->digest = final->digest;
	stats->downtime.fence_ns = prepared.fence_ns;
	stats->downtime.load_ns = prepared.load_ns;
	stats->downtime.verify_ns += prepared.verify_ns;
	FAULT_POINT("source-prepared");
	return 0;
}

/* From here on the guest is the destination's, unless the destination
 * itself says that it is not. */
static int in_doubt(struct ramlift_source *source, const struct ramlift_error *why,
		    struct ramlift_error *error)
{
	return error_set(
		error, -EINPROGRESS,
		"IN DOUBT: the guest was handed to %s, which has not said that it runs (%.200s). "
		"It stays paused here until the destination, or 'ramlift resolve %s', says whose "
		"it is",
		source->peer.text, why->text, source->config.guest_name);
}

/* The guest runs here whether this can be written or not; but nobody should wonder later. */
static void note_refused(struct ramlift_source *source, struct ramlift_error *error)
{
	struct ramlift_error first = *error, why;

	if (source_note(source, JOURNAL_REFUSED, &why))
		error_set(
			error, first.code,
			"%.200s; the guest runs on here, but its journal says that it is in doubt "
			"(%.120s): once that can be written, 'ramlift resolve %s --source --yes'",
			first.text, why.text, source->config.guest_name);
}

static int await_started(struct ramlift_source *source, struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + source->config.timeouts.hand_over_ns;
	struct ramlift_error why = { 0 };
	struct message *message;
	struct started started;
	int ret;

	ret = session_receive(&source->session, deadline_ns, "starting the guest there", &message,
			      &why);
	if (ret == -EREMOTEIO) {
		/* Its own word: the guest has not run there and never will. So it is ours again. */
		*error = why;
		note_refused(source, error);
		return ret;
	}
	if (ret)
		return in_doubt(source, &why, error);
	FAULT_POINT("source-started");
	ret = started_decode(message->payload, message->length_bytes, &started);
	free(message);
	if (!ret)
		source->session.stats.downtime.start_ns = started.start_ns;
	return 0; /* whatever its figures say, STARTED was said */
}

static int commit(struct ramlift_source *source, struct ramlift_error *error)
{
	struct commit commit = { .generation = source->session.generation };
	struct ramlift_error why = { 0 };
	uint32_t length;
	void *payload;
	int ret;

	memcpy(commit.session_id, source->session.id, SESSION_ID_BYTES);
	payload = commit_encode(&commit, &length);
	if (!payload)
		return error_set(error, -ENOMEM, "no memory for the message COMMIT");
	ret = session_commit(&source->session, error);
	if (!ret) {
		FAULT_POINT("source-before-commit");
		ret = source_note(source, JOURNAL_COMMIT, error);
		session_checked(&source->session, "journal", ret, error);
		if (ret) /* the line may be there all the same, and the guest stays here */
			source_note(source, JOURNAL_REFUSED, NULL);
	}
	if (ret) {
		free(payload);
		return ret;
	}
	session_enter(&source->session, RAMLIFT_PHASE_COMMITTED);
	FAULT_POINT("source-after-commit");
	if (channel_send_owned(source->session.channel, MESSAGE_COMMIT, payload, length, &why))
		return in_doubt(source, &why, error);
	FAULT_POINT("source-commit-sent");
	return await_started(source, error);
}

/* RAM is fenced at the destination: the rest of the carried stream goes, and its program hands its
 * guest over in its own way. */
static int carry_out(struct ramlift_source *source, struct ramlift_error *error)
{
	uint64_t clock_ns = clock_now_ns();
	uint64_t deadline_ns = clock_ns + source->config.timeouts.hand_over_ns;
	int ret = source->carried->release(source->carrier, error);

	while (!ret) {
		struct message *message;

		ret = source->carried->released(source->carrier, error);
		if (ret != -EAGAIN)
			break;
		/* In this phase nothing is left to come but pieces and an ABORT. */
		ret = session_receive(&source->session, clock_now_ns() + CARRY_OUT_POLL_NS, NULL,
				      &message, error);
		if (!ret) {
			free(message);
			return error_set(error, -EPROTO, "the destination said PREPARED twice");
		}
		if (ret == -ETIMEDOUT)
			ret = clock_now_ns() < deadline_ns
				      ? 0
				      : error_set(error, ret,
						  "loading the guest's devices took too long");
	}
	source->session.stats.downtime.load_ns += clock_lap_ns(&clock_ns);
	return ret;
}

static int hand_over(struct ramlift_source *source, const struct final *final,
		     struct ramlift_error *error)
{
	uint32_t length;
	void *payload;
	int ret;

	session_enter(&source->session, RAMLIFT_PHASE_HAND_OVER);
	payload = final_encode(final, &length);
	ret = channel_send_owned(source->session.channel, MESSAGE_FINAL, payload, length, error);
	FAULT_POINT("source-final-sent");
	if (!ret)
		ret = await_prepared(source, final, error);
	if (!ret && source->carried)
		ret = carry_out(source, error);
	if (!ret)
		ret = commit(source, error);
	return ret;
}

int source_switch_over(struct ramlift_source *source, struct ramlift_error *error)
{
	struct ramlift_downtime *downtime = &source->session.stats.downtime;
	struct final final = { 0 };
	uint64_t begin_ns, clock_ns, parts_ns;
	void *state = NULL;
	int ret;

	session_enter(&source->session, RAMLIFT_PHASE_STOP_AND_COPY);
	begin_ns = source->carried ? source->stopped_ns : clock_now_ns();
	clock_ns = begin_ns;
	ret = stop_and_copy(source, &final, &state, &clock_ns, error);
	if (!ret)
		ret = hand_over(source, &final, error);
	free(state);
	if (ret)
		return ret;
	downtime->total_ns = clock_now_ns() - begin_ns;
	parts_ns = downtime->pause_ns + downtime->harvest_ns + downtime->save_ns +
		   downtime->drain_ns + downtime->verify_ns + downtime->fence_ns +
		   downtime->load_ns + downtime->start_ns;
	downtime->commit_ns = downtime->total_ns > parts_ns ? downtime->total_ns - parts_ns : 0;
	source->session.stats.bytes_remaining = 0;
	source_note(source, JOURNAL_STARTED, NULL); /* for the record only: the guest runs there */
	return 0;
}
