/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's way through a session:
 *
 *   preflight   connect, OFFER, wait for ACCEPT
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
#include "core/rails.h"
#include "core/source.h"

#define IO_TIMEOUT_NS	  (5 * NS_PER_S)
#define CARRIED_START_NS  (5 * NS_PER_MS)
#define LEAST_LIMIT_PAGES 256 /* a guest that is slowed down still dirties 1 MiB a second */

/* The offered transports that this host can use towards the peer; refuse when none is left. */
static int usable_transports(struct ramlift_source *source, struct offer *offer,
			     struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	int ret = 0;

	for (unsigned i = 0; i < config->n_transports; i++) {
		const struct ramlift_transport *transport = config->transports[i];

		ret = transport->probe(NULL, (struct sockaddr *)&source->peer.socket, error);
		if (!ret)
			strncpy(offer->transports[offer->n_transports++], transport->name,
				WIRE_MAX_TRANSPORT_NAME - 1);
	}
	if (!offer->n_transports)
		return ret;
	error->code = 0; /* those that cannot do not matter */
	return 0;
}

static int send_offer(struct ramlift_source *source, struct offer *offer,
		      struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	uint32_t length;
	void *payload;

	memcpy(offer->session_id, source->session.id, SESSION_ID_BYTES);
	offer->generation = source->session.generation;
	offer->verify = config->verify;
	offer->n_rails = (uint8_t)source_n_rails(config);
	offer->n_lanes = (uint16_t)source_n_lanes(config);
	offer->slice_bytes = config->slice_bytes;
	strcpy(offer->name, config->guest_name);
	offer->n_regions = config->n_regions;
	memcpy(offer->regions, config->regions, config->n_regions * sizeof(offer->regions[0]));
	offer->machine = config->machine;
	offer->machine_bytes = (uint32_t)config->machine_bytes;
	payload = offer_encode(offer, &length);
	return channel_send_owned(source->session.channel, MESSAGE_OFFER, payload, length, error);
}

static const struct ramlift_transport *find_transport(const struct ramlift_source_config *config,
						      const char *name)
{
	for (unsigned i = 0; i < config->n_transports; i++) {
		if (!strcmp(config->transports[i]->name, name))
			return config->transports[i];
	}
	return NULL;
}

static int await_accept(struct ramlift_source *source, const struct offer *offer,
			struct accept *accept, struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + source->config.timeouts.prepare_ns;
	struct message *message;
	int ret;

	ret = session_receive(&source->session, deadline_ns, "preparing the destination", &message,
			      error);
	if (ret)
		return ret;
	ret = accept_decode(message->payload, message->length_bytes, accept);
	free(message);
	if (ret || accept->transport >= offer->n_transports)
		return error_set(error, -EPROTO, "the destination's ACCEPT makes no sense");
	source->transport = find_transport(&source->config, offer->transports[accept->transport]);
	source->session.stats.transport = source->transport->name;
	return 0;
}

static int preflight(struct ramlift_source *source, struct accept *accept,
		     struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + source->config.timeouts.connect_ns;
	struct offer offer = { 0 };
	int fd, ret;

	session_enter(&source->session, RAMLIFT_PHASE_PREFLIGHT);
	ret = usable_transports(source, &offer, error);
	if (ret)
		return ret;
	ret = address_connect(&source->peer, deadline_ns, source->session.cancel_fd, &fd, error);
	if (ret == -ECONNREFUSED)
		error_set(error, ret,
			  "%s refused the connection: is 'ramlift %sreceive' running there, on "
			  "that port?",
			  source->peer.text, source->carried ? "qemu " : "");
	if (ret)
		return ret;
	ret = channel_open(fd, source->config.timeouts.heartbeat_ns, &source->session.channel,
			   error);
	if (ret)
		return ret;
	ret = send_offer(source, &offer, error);
	if (ret)
		return ret;
	return await_accept(source, &offer, accept, error);
}

static int slice_registered(void *context, unsigned slice, const struct slice_key *key,
			    struct ramlift_error *error)
{
	struct ramlift_source *source = context;

	(void)key;
	(void)error;
	lanes_slice_ready(source->lanes, slice, SLICE_SOURCE);
	return 0;
}

static int start_dirty_source(struct ramlift_source *source, struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	int ret = config->dirty_source_ops->start(config->dirty_source, &source->set, error);

	source->tracking = !ret;
	return ret;
}

/*
 * The order matters: writes are tracked before pages are marked as present, so that a page that
 * comes into being meanwhile is seen by one of the two. A carried program names the pages itself;
 * it begins once all slices are usable, for it may stop its guest at any time from then on, and
 * nothing of registration may fall into the downtime.
 */
static int start_streaming(struct ramlift_source *source, bool fresh, struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	struct lanes_config lanes = {
		.ram = &source->ram,
		.set = &source->set,
		.transport = source->transport,
		.endpoint = source->endpoint,
		.n_lanes = source_n_lanes(config),
		.skip_zeros = fresh && !source->carried, /* its program has looked */
		.bandwidth_bytes_per_s = config->bandwidth_bytes_per_s,
	};
	struct registrar_config registrar = {
		.transport = source->transport,
		.endpoint = source->endpoint,
		.n_slices = source->ram.n_slices,
		.n_threads = config->register_threads,
		.ready = slice_registered,
		.context = source,
	};
	int ret;

	if (!source->carried) {
		ret = start_dirty_source(source, error);
		if (ret)
			return ret;
		dirty_set_mark_present(&source->set, fresh);
	}
	ret = lanes_start(&lanes, &source->lanes, error);
	if (!ret)
		ret = registrar_start(&registrar, &source->registrar, error);
	return ret;
}

static int prepare(struct ramlift_source *source, const struct accept *accept,
		   struct ramlift_error *error)
{
	struct transport_params params = {
		.rails = source->config.n_rails ? source->config.rails : NULL,
		.n_rails = source_n_rails(&source->config),
		.n_lanes = source_n_lanes(&source->config),
		.on_demand_paging = source->config.on_demand_paging,
		.slices = source->ram.slices,
		.n_slices = source->ram.n_slices,
		.interrupt_fd = source->session.cancel_fd,
		.io_timeout_ns = IO_TIMEOUT_NS,
	};
	struct sockaddr_storage peers[RAMLIFT_MAX_RAILS];
	int ret;

	session_enter(&source->session, RAMLIFT_PHASE_PREPARE);
	if (accept->n_rails != params.n_rails)
		return error_set(error, -EPROTO, "the destination answers for %u rails of %u",
				 accept->n_rails, params.n_rails);
	if (source->carried && !accept->fresh)
		return error_set(error, -EPROTO,
				 "the destination's memory is not fresh, and zeros would be lost");
	memcpy(params.session_id, source->session.id, SESSION_ID_BYTES);
	for (unsigned i = 0; i < params.n_rails; i++)
		rail_address_unpack(&accept->rails[i], &source->peer.socket, &peers[i]);
	ret = source->transport->connect(&params, peers,
					 clock_now_ns() + source->config.timeouts.connect_ns,
					 &source->endpoint, error);
	if (ret)
		return ret;
	return start_streaming(source, accept->fresh, error);
}

static int take_slice_key(struct ramlift_source *source, const struct message *message,
			  struct ramlift_error *error)
{
	struct slice_key_message slice;

	if (slice_key_decode(message->payload, message->length_bytes, &slice) ||
	    slice.slice >= source->ram.n_slices)
		return error_set(error, -EPROTO, "the destination announced a slice that is none");
	if (lanes_slice_has(source->lanes, slice.slice, SLICE_DESTINATION))
		return error_set(error, -EPROTO, "the destination announced slice %u twice",
				 slice.slice);
	source->n_keys++;
	source->key_ns = clock_now_ns();
	source->transport->set_peer_key(source->endpoint, slice.slice, &slice.key);
	lanes_slice_ready(source->lanes, slice.slice, SLICE_DESTINATION);
	return 0;
}

/* Take messages until the tick is due. */
static int receive_until(struct ramlift_source *source, uint64_t tick_ns,
			 struct ramlift_error *error)
{
	for (;;) {
		struct message *message;
		int ret = session_receive(&source->session, tick_ns, NULL, &message, error);

		if (ret == -ETIMEDOUT)
			return 0;
		if (ret)
			return ret;
		ret = take_slice_key(source, message,
				     error); /* the one type that this phase allows */
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
		ret = registrar_check(source->registrar, error);
	if (!ret && source->n_keys < source->ram.n_slices &&
	    clock_now_ns() - source->key_ns > source->config.timeouts.prepare_ns)
		ret = error_set(error, -ETIMEDOUT,
				"the destination no longer registers memory: see its log");
	return ret;
}

/* A carried program decides for itself; what is left to judge is the time limit. */
static int carried_decision(struct ramlift_source *source, const struct decision_input *input,
			    enum decision *decision, struct ramlift_error *error)
{
	struct carried_tick tick = {
		.link_rate = input->link_rate,
		.backlog_bytes = source_backlog_bytes(source),
		.stats = &source->session.stats,
	};
	int ret = 0;

	if (source->tracking)
		ret = source->carried->tick(source->carrier, &tick, error);
	else if (input->first_pass_done) /* of nothing: all slices are usable */
		ret = start_dirty_source(source, error);
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
	source->key_ns = tick_ns;
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
		if (decision == DECISION_SWITCH_OVER)
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

	ret = preflight(source, &accept, error);
	if (!ret)
		ret = prepare(source, &accept, error);
	if (!ret)
		ret = stream(source, error);
	if (!ret)
		ret = source_switch_over(source, error);
	return ret;
}

/* Registration, dirty tracking and lanes end here: after the guest runs, never inside the downtime.
 */
static void clean_up(struct ramlift_source *source)
{
	/* Their threads call into the lanes. */
	registrar_free(source->registrar);
	if (source->tracking)
		source->config.dirty_source_ops->stop(source->config.dirty_source);
	if (source->lanes)
		source_collect_stats(source);
	lanes_free(source->lanes);
	if (source->endpoint)
		source->transport->close(source->endpoint);
	channel_close(source->session.channel);
	source->lanes = NULL;
	source->registrar = NULL;
	source->tracking = false;
	source->endpoint = NULL;
	source->session.channel = NULL;
}

/* The guest belongs here: let it run, then tell the peer. */
static void take_back(struct ramlift_source *source, struct ramlift_error *error)
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
	if (outcome == RAMLIFT_PHASE_FAILED)
		take_back(source, &error);
	clean_up(source);
	session_enter(&source->session, outcome);
	if (ret && caller_error)
		*caller_error = error;
	return ret;
}
