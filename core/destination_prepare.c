/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's way from the OFFER to the first page: choose the transport, create the guest,
 * let the lanes in. What comes from the peer is checked before it is used.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "core/clock.h"
#include "core/destination.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/rails.h"

static int probe(struct ramlift_destination *destination, const struct ramlift_transport *transport,
		 const struct sockaddr *local, struct ramlift_error *error)
{
	const struct ramlift_destination_config *config = &destination->config;
	unsigned n_rails = config->n_rails ? config->n_rails : 1;

	if (destination->offer.n_rails != n_rails)
		return error_set(error, -EINVAL,
				 "the source has %u rails, this side %u: name as many with --rails "
				 "on both sides",
				 destination->offer.n_rails, n_rails);
	return rails_probe(transport, config->rails, config->n_rails, local, NULL, error);
}

/* The source's first choice that this side has, and can be reached by. */
static int choose_transport(struct ramlift_destination *destination, const struct sockaddr *local,
			    uint8_t *choice, struct ramlift_error *error)
{
	const struct ramlift_destination_config *config = &destination->config;
	const struct offer *offer = &destination->offer;
	struct ramlift_error why;
	bool common = false;

	error_set(error, -EPROTONOSUPPORT,
		  "the destination allows none of the offered transports: "
		  "choose the same --transport on both sides");
	for (unsigned i = 0; i < offer->n_transports; i++) {
		for (unsigned j = 0; j < config->n_transports; j++) {
			if (strcmp(config->transports[j]->name, offer->transports[i]))
				continue;
			if (probe(destination, config->transports[j], local, &why)) {
				if (!common)
					*error = why; /* of the one that is preferred */
				common = true;
				continue;
			}
			destination->transport = config->transports[j];
			destination->session.stats.transport = destination->transport->name;
			*choice = (uint8_t)i;
			error->code = 0; /* those that cannot do not matter */
			return 0;
		}
	}
	return error->code;
}

static int create_guest(struct ramlift_destination *destination, struct ramlift_error *error)
{
	const struct ramlift_destination_config *config = &destination->config;
	struct offer *offer = &destination->offer;
	struct ramlift_guest_offer guest_offer = {
		.name = offer->name,
		.machine = offer->machine,
		.machine_bytes = offer->machine_bytes,
		.regions = offer->regions,
		.n_regions = offer->n_regions,
	};
	struct ramlift_region regions[RAMLIFT_MAX_REGIONS];
	int ret;

	memcpy(regions, offer->regions, sizeof(regions));
	ret = config->guest_ops->create(config->guest, &guest_offer, regions, error);
	if (ret)
		return ret;
	destination->has_guest = true;
	FAULT_POINT("destination-created");
	for (unsigned i = 0; i < offer->n_regions; i++) {
		if (!regions[i].hva || regions[i].gpa != offer->regions[i].gpa ||
		    regions[i].size_bytes != offer->regions[i].size_bytes)
			return error_set(error, -EINVAL,
					 "region %u was created with another place or size", i);
	}
	ret = ram_init(&destination->ram, regions, offer->n_regions, offer->slice_bytes);
	if (ret)
		return error_set(error, ret, "no memory for the table of slices");
	destination->has_ram = true;
	destination->session.stats.ram_bytes = destination->ram.bytes;
	return 0;
}

static int watch(struct ramlift_destination *destination, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(destination->interrupt_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

/* The waits of lanes end with a cancel and, for as long as they connect, with the source's end. */
static int make_interrupt(struct ramlift_destination *destination, struct ramlift_error *error)
{
	int ret;

	destination->interrupt_fd = epoll_create1(EPOLL_CLOEXEC);
	ret = destination->interrupt_fd < 0 ? -errno : 0;
	if (!ret)
		ret = watch(destination, destination->session.cancel_fd);
	if (!ret)
		ret = watch(destination, channel_over_fd(destination->session.channel));
	return ret ? error_set(error, ret, "cannot watch the connection: %s", strerror(-ret)) : 0;
}

/* Until the lanes are there, or the source has given up, which the channel tells in words. */
static int accept_lanes(struct ramlift_destination *destination, struct ramlift_error *error)
{
	struct session *session = &destination->session;
	struct message *message;
	uint64_t now_ns = clock_now_ns();
	int ret;

	ret = destination->transport->accept(
		destination->endpoint, now_ns + destination->config.timeouts.connect_ns, error);
	if (!wait_for_fd(channel_over_fd(session->channel), POLLIN, 0, -1) && ret) {
		ret = session_receive(session, now_ns + NS_PER_S, "the source's last word",
				      &message, error);
		if (!ret) {
			free(message);
			ret = error_set(error, -EPROTO, "the source broke off");
		}
	}
	epoll_ctl(destination->interrupt_fd, EPOLL_CTL_DEL, channel_over_fd(session->channel),
		  NULL);
	return ret;
}

static int listen_for_lanes(struct ramlift_destination *destination, const struct address *local,
			    const uint8_t *lane_secret, struct accept *accept,
			    struct ramlift_error *error)
{
	const struct ramlift_destination_config *config = &destination->config;
	struct sockaddr_storage addresses[RAMLIFT_MAX_RAILS];
	struct transport_params params = {
		.lane_secret = lane_secret,
		.rails = config->n_rails ? config->rails : NULL,
		.n_rails = destination->offer.n_rails,
		.on_demand_paging = config->on_demand_paging,
		.pin_budget_bytes = destination->offer.pin_budget_bytes,
		.n_lanes = destination->offer.n_lanes,
		.slices = destination->ram.slices,
		.n_slices = destination->ram.n_slices,
		.interrupt_fd = destination->interrupt_fd,
		.io_timeout_ns = config->timeouts.io_ns,
	};
	int ret;

	memcpy(params.session_id, destination->session.id, SESSION_ID_BYTES);
	destination->session.stats.n_lanes = params.n_lanes;
	ret = destination->transport->listen(&params, (const struct sockaddr *)&local->socket,
					     &destination->endpoint, addresses, error);
	if (ret)
		return ret;
	accept->n_rails = params.n_rails;
	for (unsigned i = 0; i < params.n_rails; i++)
		rail_address_pack(&addresses[i], config->n_rails, &accept->rails[i]);
	return 0;
}

/* On a registrar's thread. The source hears of it before anything else may happen to the slice. */
static int announce_slice(void *context, unsigned slice, const struct slice_key *key,
			  struct ramlift_error *error)
{
	struct ramlift_destination *destination = context;
	struct slice_key_message message = { .slice = slice, .key = *key };
	uint32_t length;
	void *payload = slice_key_encode(&message, &length);

	atomic_store(&destination->slices[slice], SLICE_REGISTERED);
	return channel_send_owned(destination->session.channel, MESSAGE_SLICE_KEY, payload, length,
				  error);
}

static int clear_slice(void *context, unsigned index, struct ramlift_error *error)
{
	struct ramlift_destination *destination = context;
	const struct slice *slice = &destination->ram.slices[index];

	return destination->carried->clear(destination->session.carrier, slice->hva,
					   slice->size_bytes, error);
}

/* Say to the source that it is accepted and where its lanes go, and let them in. */
static int accept_source(struct ramlift_destination *destination, const struct address *local,
			 struct accept *accept, struct ramlift_error *error)
{
	struct channel *channel = destination->session.channel;
	uint8_t secret[STREAM_SECRET_BYTES];
	const uint8_t *lane_secret;
	uint32_t length;
	void *payload;
	int ret;

	ret = channel_lane_secret(channel, secret, &lane_secret, error);
	if (!ret)
		ret = make_interrupt(destination, error);
	if (!ret)
		ret = listen_for_lanes(destination, local, lane_secret, accept, error);
	if (!ret) {
		payload = accept_encode(accept, &length);
		ret = channel_send_owned(channel, MESSAGE_ACCEPT, payload, length, error);
	}
	if (!ret)
		ret = accept_lanes(destination, error);
	explicit_bzero(secret, sizeof(secret));
	return ret;
}

int destination_prepare(struct ramlift_destination *destination, struct ramlift_error *error)
{
	struct registrar_config registrar = {
		.n_slices = 0,
		.before = destination->carried && destination->carried->clear ? clear_slice : NULL,
		.n_threads = destination->config.register_threads,
		.ready = announce_slice,
		.context = destination,
	};
	uint64_t journal_us = destination->journal_ns / NS_PER_US;
	struct accept accept = {
		.fresh = true, /* create() or clear() promise zeros */
		.journal_us = journal_us < UINT32_MAX ? (uint32_t)journal_us : UINT32_MAX,
	};
	struct session *session = &destination->session;
	struct address local;
	int ret;

	session_enter(session, RAMLIFT_PHASE_PREPARE);
	ret = channel_local_address(destination->session.channel, &local);
	if (ret)
		return error_set(error, ret, "the connection broke: %s", strerror(-ret));
	ret = choose_transport(destination, (struct sockaddr *)&local.socket, &accept.transport,
			       error);
	session_checked(session, "transport", ret, error);
	if (!ret)
		ret = session_checked(session, "machine", create_guest(destination, error), error);
	if (!ret)
		ret = session_checked(session, "lanes",
				      accept_source(destination, &local, &accept, error), error);
	if (ret)
		return ret;
	FAULT_POINT("destination-lanes-up");
	registrar.transport = destination->transport;
	registrar.endpoint = destination->endpoint;
	registrar.n_slices = destination->ram.n_slices;
	destination->slices = calloc(destination->ram.n_slices, sizeof(*destination->slices));
	if (!destination->slices)
		return error_set(error, -ENOMEM, "no memory for an account of the slices");
	return registrar_start(&registrar, &destination->registrar, error);
}
