/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's way to the first page on the wire: agree with the destination, connect the lanes,
 * begin to track, mark what is present, ask for the slices that it lies in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/rails.h"
#include "core/source.h"

/* The offered transports that this host can use towards the peer; refuse when none is left. */
static int usable_transports(struct ramlift_source *source, struct offer *offer,
			     struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	const struct sockaddr *peer = (const struct sockaddr *)&source->peer.socket;

	for (unsigned i = 0; i < config->n_transports; i++) {
		const struct ramlift_transport *transport = config->transports[i];
		struct ramlift_error why;

		if (!rails_probe(transport, config->rails, config->n_rails, NULL, peer, &why))
			strncpy(offer->transports[offer->n_transports++], transport->name,
				WIRE_MAX_TRANSPORT_NAME - 1);
		else if (!error->code)
			*error = why; /* of the one that is preferred */
	}
	if (!offer->n_transports)
		return error->code;
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
	offer->pin_budget_bytes = source_pin_budget_bytes(config);
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
	source->rates.journal_ns += accept->journal_us * NS_PER_US;
	FAULT_POINT("source-accepted");
	return 0;
}

static int connect_to_destination(struct ramlift_source *source, struct ramlift_error *error)
{
	const struct ramlift_timeouts *timeouts = &source->config.timeouts;
	int cancel_fd = source->session.cancel_fd;
	struct stream *stream;
	int fd, ret;

	ret = address_connect(&source->peer, clock_now_ns() + timeouts->connect_ns, cancel_fd, &fd,
			      error);
	if (ret == -ECONNREFUSED)
		error_set(error, ret,
			  "%s refused the connection: is 'ramlift %sreceive' running there, on "
			  "that port?",
			  source->peer.text, source->carried ? "qemu " : "");
	if (ret)
		return ret;
	ret = stream_connect(fd, source->security, source->host,
			     clock_now_ns() + timeouts->authenticate_ns, cancel_fd, &stream, error);
	if (session_checked(&source->session, "security", ret, error))
		return ret;
	ret = channel_open(stream, timeouts->heartbeat_ns, &source->session.channel, error);
	if (!ret)
		session_introduce(&source->session, source->config.guest_name);
	return ret;
}

int source_preflight(struct ramlift_source *source, struct accept *accept,
		     struct ramlift_error *error)
{
	struct offer offer = { 0 };
	int ret;

	ret = usable_transports(source, &offer, error);
	if (!session_checked(&source->session, "transport", ret, error))
		ret = connect_to_destination(source, error);
	if (ret)
		return ret;
	FAULT_POINT("source-connected");
	ret = send_offer(source, &offer, error);
	if (ret)
		return ret;
	FAULT_POINT("source-offered");
	ret = await_accept(source, &offer, accept, error);
	return session_checked(&source->session, "protocol", ret, error);
}

int source_start_tracking(struct ramlift_source *source, struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	int ret = config->dirty_source_ops->start(config->dirty_source, &source->set, error);

	source->tracking = !ret;
	return ret;
}

static int ask_for_slice(void *context, unsigned slice, unsigned rails, struct ramlift_error *error)
{
	struct ramlift_source *source = context;
	struct register_message message = { .slice = slice, .rails = rails };
	uint32_t length;
	void *payload = register_encode(&message, &length);

	return channel_send_owned(source->session.channel, MESSAGE_REGISTER, payload, length,
				  error);
}

static int retire_slice(void *context, unsigned slice, struct ramlift_error *error)
{
	struct ramlift_source *source = context;
	struct retire_message message = { .slice = slice };
	uint32_t length;
	void *payload = retire_encode(&message, &length);

	return channel_send_owned(source->session.channel, MESSAGE_RETIRE, payload, length, error);
}

static void slice_usable(void *context)
{
	struct ramlift_source *source = context;

	lanes_wake(source->lanes);
}

/* The session's thread waits for messages; so that it looks. */
static void look(void *context)
{
	struct ramlift_source *source = context;

	channel_wake(source->session.channel);
}

/* In the order in which lanes come to them: they begin with all regions at once, each from its
 * start. What is not wanted here a lane asks for when it finds a page of it. */
static void want_slices(struct ramlift_source *source)
{
	const struct ram *ram = &source->ram;
	bool all = source->config.pin == RAMLIFT_PIN_ALL;
	/* More than there is room for would drive out what has come in, before a lane finds it. */
	uint64_t budget_bytes = source_pin_budget_bytes(&source->config);
	uint64_t room = budget_bytes ? budget_bytes : UINT64_MAX;

	for (uint64_t offset = 0, left = ram->n_slices; left; offset += ram->slice_bytes) {
		for (unsigned i = 0; i < ram->n_regions; i++) {
			unsigned slice =
				ram->first_slice[i] + (unsigned)(offset / ram->slice_bytes);
			uint64_t size_bytes;

			if (offset >= ram->regions[i].size_bytes)
				continue;
			left--;
			size_bytes = ram->slices[slice].size_bytes; /* the last one's may be less */
			if (size_bytes > room ||
			    (!all &&
			     !dirty_set_has(&source->set,
					    ram->first_stripe[i] + offset / STRIPE_BYTES,
					    (size_bytes + STRIPE_BYTES - 1) / STRIPE_BYTES)))
				continue;
			room -= size_bytes;
			pins_want(source->pins, slice);
		}
	}
}

static int start_pins(struct ramlift_source *source, struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	struct pins_config pins = {
		.ram = &source->ram,
		.transport = source->transport,
		.endpoint = source->endpoint,
		.region_rails = source->region_rails,
		.n_threads = config->register_threads,
		.budget_bytes = source_pin_budget_bytes(config),
		.ask = ask_for_slice,
		.retire = retire_slice,
		.usable = slice_usable,
		.context = source,
	};

	return pins_start(&pins, &source->pins, error);
}

static int start_lanes(struct ramlift_source *source, bool fresh, struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	struct lanes_config lanes = {
		.ram = &source->ram,
		.set = &source->set,
		.pins = source->pins,
		.transport = source->transport,
		.endpoint = source->endpoint,
		.n_rails = source_n_rails(config),
		.n_lanes = source_n_lanes(config),
		.region_rails = source->region_rails,
		.skip_holes = fresh,
		.named = source->carried ? &source->named : NULL,
		.skip_zeros = fresh && !source->carried, /* its program has looked */
		.bandwidth_bytes_per_s = config->bandwidth_bytes_per_s,
		.ended = look,
		.lost = look,
		.dry = source->carried ? NULL : look, /* its program decides, not the tick */
		.context = source,
	};

	return lanes_start(&lanes, &source->lanes, error);
}

/*
 * The order matters: writes are tracked before pages are marked as present, so that a page that
 * comes into being meanwhile is seen by one of the two. A carried program names the pages itself;
 * it begins once all slices are usable, for it may stop its guest at any time from then on, and
 * nothing of registration may fall into the downtime.
 */
static int start_streaming(struct ramlift_source *source, bool fresh, struct ramlift_error *error)
{
	int ret;

	if (!source->carried) {
		ret = source_start_tracking(source, error);
		if (ret)
			return ret;
		dirty_set_mark_present(&source->set, fresh);
	}
	ret = start_pins(source, error);
	if (!ret)
		ret = start_lanes(source, fresh, error);
	if (!ret)
		want_slices(source);
	return ret;
}

/* A region goes over the rails of its own NUMA node. */
static void assign_rails(struct ramlift_source *source)
{
	const struct ramlift_transport *transport = source->transport;
	unsigned n_rails = source_n_rails(&source->config);
	int nodes[RAMLIFT_MAX_RAILS];

	for (unsigned i = 0; i < n_rails; i++)
		nodes[i] = transport->rail_node ? transport->rail_node(source->endpoint, i) : -1;
	for (unsigned i = 0; i < source->ram.n_regions; i++)
		source->region_rails[i] =
			rails_of_node(source->ram.regions[i].numa_node, nodes, n_rails);
}

/* One for each lane, none of them 0. */
static int draw_tokens(struct ramlift_source *source, struct ramlift_error *error)
{
	for (unsigned i = 0; i < RAMLIFT_MAX_LANES; i++) {
		uint64_t *token = &source->tokens[i];

		if (getrandom(token, sizeof(*token), 0) != sizeof(*token))
			return error_set(error, -EIO, "the kernel gives no random numbers");
		*token = *token << 8 | (i + 1);
	}
	return 0;
}

static int connect_lanes(struct ramlift_source *source, struct transport_params *params,
			 const struct sockaddr_storage *peers, struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + source->config.timeouts.connect_ns;
	uint8_t secret[STREAM_SECRET_BYTES];
	int ret;

	ret = channel_lane_secret(source->session.channel, secret, &params->lane_secret, error);
	if (!ret)
		ret = source->transport->connect(params, peers, deadline_ns, &source->endpoint,
						 error);
	explicit_bzero(secret, sizeof(secret));
	return ret;
}

int source_prepare(struct ramlift_source *source, const struct accept *accept,
		   struct ramlift_error *error)
{
	struct transport_params params = {
		.rails = source->config.n_rails ? source->config.rails : NULL,
		.n_rails = source_n_rails(&source->config),
		.n_lanes = source_n_lanes(&source->config),
		.on_demand_paging = source->config.on_demand_paging,
		.pin_budget_bytes = source_pin_budget_bytes(&source->config),
		.slices = source->ram.slices,
		.n_slices = source->ram.n_slices,
		.interrupt_fd = source->session.cancel_fd,
		.io_timeout_ns = source->config.timeouts.io_ns,
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
	ret = draw_tokens(source, error);
	if (ret)
		return ret;
	memcpy(params.session_id, source->session.id, SESSION_ID_BYTES);
	for (unsigned i = 0; i < params.n_rails; i++)
		rail_address_unpack(&accept->rails[i], &source->peer.socket, &peers[i]);
	ret = connect_lanes(source, &params, peers, error);
	if (session_checked(&source->session, "lanes", ret, error))
		return ret;
	FAULT_POINT("source-lanes-up");
	assign_rails(source);
	return start_streaming(source, accept->fresh, error);
}
