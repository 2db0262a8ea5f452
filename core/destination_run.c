/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's side of a session:
 *
 *   wait        for an OFFER                                           admission.c
 *   prepare     RECEIVE to the journal, create the guest, ACCEPT,      destination_journal.c
 *               let the lanes in                                       destination_prepare.c
 *   stream      pages arrive by themselves; register slices as the source asks; wait for FINAL
 *   hand-over   tokens, fence, digest, load, PREPARED; with COMMIT STARTED to the journal, run it,
 *               STARTED to the source
 *
 * Everything from the peer is checked before it is used. On failure what was made is undone and
 * nothing runs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/destination.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/fault_point.h"

#define STREAM_POLL_NS (200 * NS_PER_MS)

static int take_register(struct ramlift_destination *destination, const struct message *message,
			 struct ramlift_error *error)
{
	const struct ram *ram = &destination->ram;
	uint64_t budget_bytes = destination->offer.pin_budget_bytes;
	struct register_message asked;
	unsigned region;

	if (register_decode(message->payload, message->length_bytes, &asked) ||
	    asked.slice >= ram->n_slices || !asked.rails ||
	    asked.rails >> destination->offer.n_rails ||
	    atomic_load(&destination->slices[asked.slice]) != SLICE_NOT_REGISTERED)
		return error_set(error, -EPROTO, "the source's REGISTER makes no sense");
	destination->pinned_bytes += ram->slices[asked.slice].size_bytes;
	if (budget_bytes && destination->pinned_bytes > budget_bytes)
		return error_set(error, -EPROTO,
				 "the source asks for more pinned memory than it had said");
	atomic_store(&destination->slices[asked.slice], SLICE_ASKED);
	region = ram_region_of_slice(ram, asked.slice);
	registrar_request(destination->registrar, asked.slice, asked.rails,
			  ram->regions[region].numa_node);
	return 0;
}

static int take_retire(struct ramlift_destination *destination, const struct message *message,
		       struct ramlift_error *error)
{
	struct retire_message asked;

	if (retire_decode(message->payload, message->length_bytes, &asked) ||
	    asked.slice >= destination->ram.n_slices ||
	    atomic_load(&destination->slices[asked.slice]) != SLICE_REGISTERED)
		return error_set(error, -EPROTO, "the source's RETIRE makes no sense");
	destination->transport->deregister_slice(destination->endpoint, asked.slice);
	destination->pinned_bytes -= destination->ram.slices[asked.slice].size_bytes;
	atomic_store(&destination->slices[asked.slice], SLICE_NOT_REGISTERED);
	return 0;
}

/* The others go on; what this one has carried they will carry again. */
static int take_lane_lost(struct ramlift_destination *destination, const struct message *message,
			  struct ramlift_error *error)
{
	struct lane_message lost;
	uint32_t length;
	void *payload;
	int ret;

	if (lane_message_decode(message->payload, message->length_bytes, &lost) ||
	    lost.lane >= destination->offer.n_lanes || destination->lost_lanes >> lost.lane & 1)
		return error_set(error, -EPROTO, "the source's LANE_LOST makes no sense");
	ret = destination->transport->fence_lane(destination->endpoint, lost.lane, error);
	if (ret)
		return ret;
	destination->lost_lanes |= 1ull << lost.lane;
	payload = lane_message_encode(&lost, &length);
	return channel_send_owned(destination->session.channel, MESSAGE_LANE_FENCED, payload,
				  length, error);
}

static int take_stream_message(struct ramlift_destination *destination,
			       const struct message *message, struct ramlift_error *error)
{
	if (message->type == MESSAGE_REGISTER)
		return take_register(destination, message, error);
	if (message->type == MESSAGE_LANE_LOST)
		return take_lane_lost(destination, message, error);
	return take_retire(destination, message, error);
}

/* Pages arrive by themselves; slices are registered as the source asks. Returns with FINAL. */
static int stream(struct ramlift_destination *destination, struct message **final_message,
		  struct ramlift_error *error)
{
	uint64_t publish_ns = 0;

	session_enter(&destination->session, RAMLIFT_PHASE_STREAM);
	for (;;) {
		struct message *message = NULL;
		int ret = session_receive(&destination->session, clock_now_ns() + STREAM_POLL_NS,
					  NULL, &message, error);

		if (!ret && message->type == MESSAGE_FINAL) {
			*final_message = message;
			return session_checked(&destination->session, "memory", 0, error);
		}
		if (!ret)
			ret = take_stream_message(destination, message, error);
		else if (ret == -ETIMEDOUT) /* nothing came, that is all */
			ret = 0;
		free(message);
		if (!ret)
			ret = registrar_check(destination->registrar, error);
		if (ret)
			return session_checked(&destination->session, "memory", ret, error);
		FAULT_POINT("destination-streaming");
		if (clock_now_ns() >= publish_ns) {
			session_publish(&destination->session);
			publish_ns = clock_now_ns() + STREAM_POLL_NS;
		}
	}
}

/* Rules 5 and 6: this process has consumed every lane's token, and no lane can write any more. */
static int complete_ram(struct ramlift_destination *destination, const struct final *final,
			struct prepared *prepared, uint64_t *clock_ns, struct ramlift_error *error)
{
	uint64_t deadline_ns = *clock_ns + destination->config.timeouts.hand_over_ns;
	int ret;

	ret = destination->transport->await_tokens(destination->endpoint, final->tokens,
						   deadline_ns, error);
	session_checked(&destination->session, "tokens", ret, error);
	if (!ret)
		ret = destination->transport->fence(destination->endpoint, error);
	FAULT_POINT("destination-fenced");
	prepared->fence_ns = clock_lap_ns(clock_ns);
	if (ret || !final->verify)
		return ret;
	prepared->digest = digest_ram(&destination->ram);
	prepared->verify_ns = clock_lap_ns(clock_ns);
	if (prepared->digest != final->digest)
		ret = error_set(error, -EBADMSG,
				"the digest of guest memory is %016" PRIx64 " here and %016" PRIx64
				" at the source: pages were lost",
				prepared->digest, final->digest);
	if (session_checked(&destination->session, "digest", ret, error))
		return ret;
	destination->session.stats.verified = true;
	destination->session.stats.digest = prepared->digest;
	return 0;
}

/* A token for every lane, but for those that this side knows to be lost. */
static bool lanes_match(const struct ramlift_destination *destination, const struct final *final)
{
	uint64_t lost = 0;

	for (unsigned i = 0; i < final->n_lanes; i++)
		lost |= (uint64_t)!final->tokens[i] << i;
	return final->n_lanes == destination->offer.n_lanes && lost == destination->lost_lanes;
}

static int take_over(struct ramlift_destination *destination, const struct message *message,
		     struct prepared *prepared, struct ramlift_error *error)
{
	const struct ramlift_destination_config *config = &destination->config;
	uint64_t clock_ns = clock_now_ns();
	struct final final;
	int ret;

	FAULT_POINT("destination-final");
	if (final_decode(message->payload, message->length_bytes, &final) ||
	    !lanes_match(destination, &final))
		return error_set(error, -EPROTO, "the source's FINAL makes no sense");
	ret = complete_ram(destination, &final, prepared, &clock_ns, error);
	if (ret)
		return ret;
	ret = config->guest_ops->load_state(config->guest, final.state, final.state_bytes, error);
	prepared->load_ns = clock_lap_ns(&clock_ns);
	FAULT_POINT("destination-loaded");
	return ret;
}

static int await_commit(struct ramlift_destination *destination, struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + destination->config.timeouts.hand_over_ns;
	struct message *message;
	struct commit commit;
	int ret;

	ret = session_receive(&destination->session, deadline_ns, "waiting for COMMIT", &message,
			      error);
	if (ret)
		return ret;
	ret = commit_decode(message->payload, message->length_bytes, &commit);
	free(message);
	if (ret || commit.generation != destination->session.generation ||
	    memcmp(commit.session_id, destination->session.id, SESSION_ID_BYTES))
		return error_set(error, -EPROTO, "COMMIT is of another session");
	return session_commit(&destination->session, error);
}

static int start_guest(struct ramlift_destination *destination, struct ramlift_error *error)
{
	const struct ramlift_destination_config *config = &destination->config;
	uint64_t begin_ns = clock_now_ns();
	struct started started;
	uint32_t length;
	void *payload;
	int ret;

	session_enter(&destination->session, RAMLIFT_PHASE_COMMITTED);
	FAULT_POINT("destination-before-started");
	/* Rule 7: who asks later must hear of this guest before it does anything. */
	ret = destination_will_start(destination, error);
	FAULT_POINT("destination-after-started");
	if (!ret)
		ret = config->guest_ops->resume(config->guest, error);
	if (ret)
		return ret;
	FAULT_POINT("destination-running");
	started.start_ns = clock_now_ns() - begin_ns;
	payload = started_encode(&started, &length);
	/* The guest runs: whether the source hears of it or stays in doubt changes nothing here. */
	channel_send_owned(destination->session.channel, MESSAGE_STARTED, payload, length, NULL);
	return 0;
}

static int hand_over(struct ramlift_destination *destination, const struct message *final,
		     struct ramlift_error *error)
{
	struct prepared prepared = { 0 };
	uint32_t length;
	void *payload;
	int ret;

	session_enter(&destination->session, RAMLIFT_PHASE_HAND_OVER);
	ret = take_over(destination, final, &prepared, error);
	if (ret)
		return ret;
	destination->session.stats.downtime.fence_ns = prepared.fence_ns;
	destination->session.stats.downtime.load_ns = prepared.load_ns;
	destination->prepared = true;
	payload = prepared_encode(&prepared, &length);
	ret = channel_send_owned(destination->session.channel, MESSAGE_PREPARED, payload, length,
				 error);
	FAULT_POINT("destination-prepared");
	if (!ret)
		ret = await_commit(destination, error);
	FAULT_POINT("destination-committed");
	if (!ret)
		ret = start_guest(destination, error);
	return ret;
}

static int receive_guest(struct ramlift_destination *destination, struct ramlift_error *error)
{
	const struct offer *offer = &destination->offer;
	struct session *session = &destination->session;
	struct message *final = NULL;
	int ret;

	ret = ram_check(offer->regions, offer->n_regions, offer->slice_bytes, error);
	session_checked(session, "regions", ret, error);
	if (!ret)
		ret = destination_receive_begins(destination, error);
	if (!ret)
		ret = destination_prepare(destination, error);
	if (!ret)
		ret = stream(destination, &final, error);
	if (!ret)
		ret = hand_over(destination, final, error);
	free(final);
	return ret;
}

/* All but the channel. Nothing is left to do when it is called again. */
static void release(struct ramlift_destination *destination, bool keep_guest)
{
	if (destination->endpoint)
		destination->transport->abort(destination->endpoint);
	registrar_free(destination->registrar);
	if (destination->endpoint)
		destination->transport->close(destination->endpoint);
	if (destination->interrupt_fd >= 0)
		close(destination->interrupt_fd);
	if (destination->has_ram)
		ram_fini(&destination->ram);
	free(destination->slices);
	if (destination->has_guest && !keep_guest)
		destination->config.guest_ops->discard(destination->config.guest);
	free(destination->offer_message);
	destination->endpoint = NULL;
	destination->interrupt_fd = -1;
	destination->registrar = NULL;
	destination->slices = NULL;
	destination->lost_lanes = 0;
	destination->pinned_bytes = 0;
	destination->has_ram = false;
	destination->has_guest = false;
	destination->offer_message = NULL;
}

/* An offer that can be read has been let in: the session begins. */
static int begin(struct ramlift_destination *destination, const struct newcomer *newcomer,
		 struct ramlift_error *error)
{
	struct session *session = &destination->session;
	struct message *message = newcomer->offer;
	int ret;

	session->channel = newcomer->channel;
	session_enter(session, RAMLIFT_PHASE_PREFLIGHT);
	/* Before the name of a guest is forgotten that was discarded without a line. */
	ret = destination_settle(destination, error);
	if (!ret && offer_decode(message->payload, message->length_bytes, &destination->offer))
		ret = error_set(error, -EPROTO, "the OFFER cannot be read");
	destination->offer_message = message;
	if (ret &&
	    destination->config.turned_away) /* nobody else tells of a session without a name */
		destination->config.turned_away(destination->config.progress_context,
						newcomer->peer, error);
	if (ret)
		return ret;
	strcpy(destination->peer, newcomer->peer);
	memcpy(session->id, destination->offer.session_id, SESSION_ID_BYTES);
	session->generation = destination->offer.generation;
	session_introduce(session, destination->offer.name);
	FAULT_POINT("destination-offered");
	session_checked(session, "security", 0, error);
	session_checked(session, "protocol", 0, error);
	return receive_guest(destination, error);
}

/*
 * Nothing runs here, and nothing will. Once PREPARED was sent the source may have let go, and takes
 * the guest back when it hears this: then the guest here is gone before, for good. Earlier than
 * that it is told at once, for its guest stands still.
 */
static void give_up(struct ramlift_destination *destination, const struct ramlift_error *error)
{
	if (!destination->prepared)
		session_send_abort(&destination->session, error);
	release(destination, false);
	destination_discarded(destination, NULL);
	if (destination->prepared)
		session_send_abort(&destination->session, error);
}

int ramlift_destination_run(struct ramlift_destination *destination,
			    struct ramlift_error *caller_error)
{
	struct session *session = &destination->session;
	struct ramlift_error error = { 0 };
	struct newcomer newcomer;
	bool cancelled;
	int ret;

	session_reset(session);
	destination->received = false;
	destination->prepared = false;
	ret = admission_await(destination->admission, session->cancel_fd, &newcomer, &error);
	if (!ret)
		ret = begin(destination, &newcomer, &error);
	if (ret && !error.code)
		error_set(&error, ret, "receiving failed: %s", strerror(-ret));
	/* A source that tries again at once waits until all is cleaned up here. */
	cancelled = atomic_load(&session->fate) == SESSION_CANCELLED;
	admission_done(destination->admission, !ret || cancelled);
	/* Rule 7: "it never runs" is only said when that is sure. Silence leaves the source in
	 * doubt, and the guest where it is. */
	if (ret && (ret != -EINPROGRESS || session->phase != RAMLIFT_PHASE_COMMITTED)) {
		give_up(destination, &error);
	} else {
		release(destination, true);
		destination_let_go(destination);
	}
	channel_close(session->channel);
	session->channel = NULL;
	if (ret)
		session_reopen(session);
	session_enter(session, ret ? RAMLIFT_PHASE_FAILED : RAMLIFT_PHASE_DONE);
	if (ret && caller_error)
		*caller_error = error;
	return ret;
}
