/* SPDX-License-Identifier: Apache-2.0 */
#include "data_lane.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/error.h"
#include "host.h"
#include "real.h"

static struct endpoint *endpoints;
static uint32_t last_rkey;

void data_path_begin(void)
{
	endpoints = NULL;
	data_lanes_begin();
	last_rkey = 0;
}

void data_path_end(void)
{
	data_lanes_end();
	while (endpoints) {
		struct endpoint *endpoint = endpoints;

		endpoints = endpoint->next;
		__real_free(endpoint->slices);
		__real_free(endpoint->registered);
		__real_free(endpoint->keys);
		__real_free(endpoint);
	}
}

void *data_zeroed(size_t n, size_t size)
{
	void *memory = __real_calloc(n ? n : 1, size);

	if (!memory)
		abort();
	return memory;
}

static struct endpoint *endpoint_new(const struct transport_params *params, bool at_source)
{
	struct endpoint *endpoint =
		data_zeroed(1, sizeof(*endpoint) + params->n_lanes * sizeof(endpoint->lanes[0]));

	endpoint->process = world.current->process;
	endpoint->at_source = at_source;
	endpoint->open = true;
	endpoint->params = *params;
	endpoint->slices = data_zeroed(params->n_slices, sizeof(*endpoint->slices));
	memcpy(endpoint->slices, params->slices, params->n_slices * sizeof(*endpoint->slices));
	endpoint->registered = data_zeroed(params->n_slices, sizeof(*endpoint->registered));
	endpoint->keys = data_zeroed(params->n_slices, sizeof(*endpoint->keys));
	endpoint->next = endpoints;
	endpoints = endpoint;
	return endpoint;
}

bool data_is_cancelled(const struct endpoint *endpoint)
{
	return endpoint->aborted || (endpoint->params.interrupt_fd >= 0 &&
				     !wait_for_fd(endpoint->params.interrupt_fd, POLLIN, 0, -1));
}

void data_wait_a_moment(const struct endpoint *endpoint)
{
	task_wait(endpoint, world.now_ns + 1 * NS_PER_MS);
}

static int probe(const struct sockaddr *local, const struct sockaddr *peer,
		 struct ramlift_error *error)
{
	(void)local;
	(void)peer;
	(void)error;
	return 0;
}

static int path_listen(const struct transport_params *params, const struct sockaddr *local,
		       struct endpoint **endpoint, struct sockaddr_storage *addresses,
		       struct ramlift_error *error)
{
	(void)local;
	(void)error;
	task_point();
	*endpoint = endpoint_new(params, false);
	for (unsigned i = 0; i < params->n_rails; i++)
		((struct sockaddr_in *)&addresses[i])->sin_family = AF_INET;
	return 0;
}

uint64_t data_world_deadline(uint64_t deadline_ns)
{
	uint64_t offset_ns = world.current->process->clock_offset_ns;

	return deadline_ns > offset_ns ? deadline_ns - offset_ns : 0;
}

static int path_accept(struct endpoint *endpoint, uint64_t deadline_ns, struct ramlift_error *error)
{
	uint64_t until_ns = data_world_deadline(deadline_ns);

	while (!endpoint->peer) {
		if (data_is_cancelled(endpoint))
			return error_set(error, -ECANCELED, "cancelled");
		if (world.now_ns >= until_ns)
			return error_set(error, -ETIMEDOUT, "no source connected its lanes");
		data_wait_a_moment(endpoint);
	}
	return 0;
}

static int path_connect(const struct transport_params *params, const struct sockaddr_storage *peers,
			uint64_t deadline_ns, struct endpoint **result, struct ramlift_error *error)
{
	(void)peers;
	(void)deadline_ns;
	pass_point("lane");
	task_sleep(random_below(2 * NS_PER_MS));
	for (struct endpoint *other = endpoints; other; other = other->next) {
		if (other->at_source || !other->open || other->peer || !other->process->alive ||
		    memcmp(other->params.session_id, params->session_id, SESSION_ID_BYTES) != 0)
			continue;
		*result = endpoint_new(params, true);
		(*result)->peer = other;
		other->peer = *result;
		task_wake(other);
		return 0;
	}
	return error_set(error, -ECONNREFUSED, "nobody listens for this session's lanes");
}

static int path_register(struct endpoint *endpoint, unsigned slice, unsigned rails,
			 struct slice_key *key, struct ramlift_error *error)
{
	struct slice_key fresh = { .address = slice * 4096ull };

	(void)error;
	task_sleep(random_below(one_in(8) ? 20 * NS_PER_MS : NS_PER_MS / 2));
	pass_point("register");
	if (!rails || rails >> endpoint->params.n_rails || endpoint->registered[slice])
		violated("slice %u is registered twice, or for no rail that there is", slice);
	for (unsigned i = 0; i < endpoint->params.n_rails; i++)
		fresh.rkeys[i] = rails >> i & 1 ? ++last_rkey : 0;
	endpoint->registered[slice] = rails;
	if (!endpoint->at_source)
		endpoint->keys[slice] = fresh;
	if (key)
		*key = fresh;
	return 0;
}

static void path_deregister(struct endpoint *endpoint, unsigned slice)
{
	const struct endpoint *source = endpoint->at_source ? endpoint : endpoint->peer;

	if (!endpoint->registered[slice])
		violated("slice %u is deregistered, and is not registered", slice);
	if (source && data_is_being_written(source, slice))
		violated("slice %u is deregistered while it is written", slice);
	endpoint->registered[slice] = 0;
	task_point();
}

static void path_set_peer_key(struct endpoint *endpoint, unsigned slice,
			      const struct slice_key *key)
{
	endpoint->keys[slice] = *key;
}

static int path_fence(struct endpoint *endpoint, struct ramlift_error *error)
{
	(void)error;
	task_sleep(random_below(NS_PER_MS));
	endpoint->fenced = true;
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		endpoint->lanes[i].broken = true;
	return 0;
}

/* The source's end: what is on its way may arrive all the same. */
static void path_drop_lane(struct endpoint *endpoint, unsigned index)
{
	if (!endpoint->lanes[index].broken)
		violated("lane %u is dropped, and did not fail", index);
	task_point();
}

static int path_fence_lane(struct endpoint *endpoint, unsigned index, struct ramlift_error *error)
{
	(void)error;
	task_sleep(random_below(NS_PER_MS));
	endpoint->lanes[index].broken = true;
	return 0;
}

static void path_abort(struct endpoint *endpoint)
{
	endpoint->aborted = true;
	task_wake(endpoint);
}

static void shut(struct endpoint *endpoint)
{
	endpoint->open = false;
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		endpoint->lanes[i].broken = true;
}

static void path_close(struct endpoint *endpoint)
{
	if (!endpoint)
		return;
	task_point();
	shut(endpoint);
}

void data_path_forget(const struct process *process)
{
	for (struct endpoint *endpoint = endpoints; endpoint; endpoint = endpoint->next) {
		if (endpoint->process == process)
			shut(endpoint);
	}
}

/* Preferably one that has something on its way. */
static unsigned choose_lane(const struct endpoint *endpoint)
{
	unsigned chosen = (unsigned)random_below(endpoint->params.n_lanes), n = 0;

	for (unsigned i = 0; i < endpoint->params.n_lanes; i++) {
		if (endpoint->lanes[i].n_queued && !random_below(++n))
			chosen = i;
	}
	return chosen;
}

void data_path_break_lane(void)
{
	for (struct endpoint *endpoint = endpoints; endpoint; endpoint = endpoint->next) {
		unsigned lane;

		if (!endpoint->at_source || !endpoint->open || !endpoint->process->alive)
			continue;
		lane = choose_lane(endpoint);
		happened(20, "lane %u breaks", lane);
		endpoint->lanes[lane].broken = true;
		task_wake(endpoint);
		return;
	}
}

unsigned data_path_endpoints(const struct process *process)
{
	unsigned n = 0;

	for (struct endpoint *endpoint = endpoints; endpoint; endpoint = endpoint->next)
		n += endpoint->process == process && endpoint->open;
	return n;
}

unsigned data_path_registered(const struct process *process)
{
	unsigned n = 0;

	for (struct endpoint *endpoint = endpoints; endpoint; endpoint = endpoint->next) {
		for (unsigned i = 0; i < endpoint->params.n_slices; i++)
			n += endpoint->process == process && endpoint->open &&
			     endpoint->registered[i];
	}
	return n;
}

bool data_path_fenced(const struct process *process)
{
	for (struct endpoint *endpoint = endpoints; endpoint; endpoint = endpoint->next) {
		if (endpoint->process == process && endpoint->open && !endpoint->fenced)
			return false;
	}
	return true;
}

const struct ramlift_transport *data_path(void)
{
	static const struct ramlift_transport transport = {
		.name = "memory",
		.probe = probe,
		.listen = path_listen,
		.accept = path_accept,
		.connect = path_connect,
		.register_slice = path_register,
		.deregister_slice = path_deregister,
		.set_peer_key = path_set_peer_key,
		.post = data_post,
		.in_flight_bytes = data_in_flight,
		.drain = data_drain,
		.token = data_token,
		.await_tokens = data_await_tokens,
		.fence = path_fence,
		.drop_lane = path_drop_lane,
		.fence_lane = path_fence_lane,
		.abort = path_abort,
		.close = path_close,
	};

	return &transport;
}
