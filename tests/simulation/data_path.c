/* SPDX-License-Identifier: Apache-2.0 */
#include "data_path.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/error.h"
#include "host.h"
#include "real.h"

#define QUEUE_WRITES 24u /* of a lane; posting blocks while they are on their way */

/*
 * A write or a token on its way. The adapter reads memory at any time before the completion; when
 * that comes the other side's adapter has the write, and its memory will have it soon (rule 5).
 */
struct on_lane {
	struct endpoint *source;
	unsigned lane;
	bool is_token, completed, lost;
	uint64_t token;
	struct transport_write write;
	struct on_lane *next; /* all of them */
	unsigned char data[];
};

struct data_lane {
	unsigned n_queued;
	uint64_t queued_bytes, last_ns, last_landing_ns;
	bool broken;	/* the queue pair is in the error state */
	bool has_token; /* at the destination; at the source: nothing may follow */
	uint64_t token;
};

/* The devices' half of an endpoint: kept until the world ends. */
struct endpoint {
	struct endpoint *next;
	struct process *process;
	struct endpoint *peer; /* NULL: none yet, or gone */
	bool at_source, open, aborted, fenced;
	struct transport_params params;
	struct slice *slices;
	unsigned *registered;
	struct slice_key *keys;
	struct data_lane lanes[];
};

static struct endpoint *endpoints;
static struct on_lane *writes;
static uint32_t last_rkey;

void data_path_begin(void)
{
	endpoints = NULL;
	writes = NULL;
	last_rkey = 0;
}

void data_path_end(void)
{
	while (writes) {
		struct on_lane *write = writes;

		writes = write->next;
		__real_free(write);
	}
	while (endpoints) {
		struct endpoint *endpoint = endpoints;

		endpoints = endpoint->next;
		__real_free(endpoint->slices);
		__real_free(endpoint->registered);
		__real_free(endpoint->keys);
		__real_free(endpoint);
	}
}

static void *zeroed(size_t n, size_t size)
{
	void *memory = __real_calloc(n ? n : 1, size);

	if (!memory)
		abort();
	return memory;
}

static struct endpoint *endpoint_new(const struct transport_params *params, bool at_source)
{
	struct endpoint *endpoint =
		zeroed(1, sizeof(*endpoint) + params->n_lanes * sizeof(endpoint->lanes[0]));

	endpoint->process = world.current->process;
	endpoint->at_source = at_source;
	endpoint->open = true;
	endpoint->params = *params;
	endpoint->slices = zeroed(params->n_slices, sizeof(*endpoint->slices));
	memcpy(endpoint->slices, params->slices, params->n_slices * sizeof(*endpoint->slices));
	endpoint->registered = zeroed(params->n_slices, sizeof(*endpoint->registered));
	endpoint->keys = zeroed(params->n_slices, sizeof(*endpoint->keys));
	endpoint->next = endpoints;
	endpoints = endpoint;
	return endpoint;
}

static bool is_cancelled(const struct endpoint *endpoint)
{
	return endpoint->aborted || (endpoint->params.interrupt_fd >= 0 &&
				     !wait_for_fd(endpoint->params.interrupt_fd, POLLIN, 0, -1));
}

/* Until a task of the process changes something, or for a moment. */
static void wait_a_moment(const struct endpoint *endpoint)
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

static uint64_t world_deadline(uint64_t deadline_ns)
{
	uint64_t offset_ns = world.current->process->clock_offset_ns;

	return deadline_ns > offset_ns ? deadline_ns - offset_ns : 0;
}

static int path_accept(struct endpoint *endpoint, uint64_t deadline_ns, struct ramlift_error *error)
{
	uint64_t until_ns = world_deadline(deadline_ns);

	while (!endpoint->peer) {
		if (is_cancelled(endpoint))
			return error_set(error, -ECANCELED, "cancelled");
		if (world.now_ns >= until_ns)
			return error_set(error, -ETIMEDOUT, "no source connected its lanes");
		wait_a_moment(endpoint);
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

static bool is_being_written(const struct endpoint *source, unsigned slice)
{
	for (const struct on_lane *write = writes; write; write = write->next) {
		if (write->source == source && !write->completed && !write->is_token &&
		    write->write.slice == slice && !source->lanes[write->lane].broken)
			return true;
	}
	return false;
}

static void path_deregister(struct endpoint *endpoint, unsigned slice)
{
	const struct endpoint *source = endpoint->at_source ? endpoint : endpoint->peer;

	if (!endpoint->registered[slice])
		violated("slice %u is deregistered, and is not registered", slice);
	if (source && is_being_written(source, slice))
		violated("slice %u is deregistered while it is written", slice);
	endpoint->registered[slice] = 0;
	task_point();
}

static void path_set_peer_key(struct endpoint *endpoint, unsigned slice,
			      const struct slice_key *key)
{
	endpoint->keys[slice] = *key;
}

/* The destination's end takes writes. */
static bool is_reachable(const struct endpoint *source, unsigned lane)
{
	const struct endpoint *destination = source->peer;

	return destination && destination->open && !destination->lanes[lane].broken;
}

static void check_slice(const struct endpoint *source, unsigned lane, unsigned slice)
{
	const struct endpoint *destination = source->peer;
	unsigned rail = lane / (source->params.n_lanes / source->params.n_rails);

	if (!(source->registered[slice] >> rail & 1))
		violated("slice %u is posted to, and is not registered here", slice);
	if (destination &&
	    (!(destination->registered[slice] >> rail & 1) ||
	     source->keys[slice].rkeys[rail] != destination->keys[slice].rkeys[rail]))
		violated("slice %u is posted to, and is not registered there", slice);
}

static void deliver(struct endpoint *source, struct on_lane *write)
{
	struct endpoint *destination = source->peer;
	const struct transport_write *to = &write->write;

	if (write->is_token) {
		destination->lanes[write->lane].has_token = true;
		destination->lanes[write->lane].token = write->token;
		task_wake(destination);
		return;
	}
	if (!destination->registered[to->slice])
		return; /* refused by the adapter */
	memcpy((char *)destination->slices[to->slice].hva + to->offset_bytes, write->data,
	       to->length_bytes);
}

/* On the scheduler: memory has it, unless a fence came before. */
static void land(void *context)
{
	struct on_lane *write = context;
	struct on_lane **link = &writes;

	while (*link != write)
		link = &(*link)->next;
	*link = write->next;
	if (!write->lost && is_reachable(write->source, write->lane))
		deliver(write->source, write);
	__real_free(write);
}

static void read_memory(struct on_lane *write)
{
	const struct transport_write *to = &write->write;
	const struct slice *slice = &write->source->slices[to->slice];

	if (slice->size_bytes < to->offset_bytes + to->length_bytes)
		violated("a write is outside of slice %u", to->slice);
	memcpy(write->data, (char *)slice->hva + to->offset_bytes, to->length_bytes);
}

/* It is on its way to memory, or never was. */
static bool has_left(struct on_lane *write)
{
	struct endpoint *source = write->source;
	const struct data_lane *lane = &source->lanes[write->lane];

	if (!is_reachable(source, write->lane))
		return false;
	if (!source->open || lane->broken) /* a write that has failed may have arrived */
		return one_in(2);
	if (!write->is_token) {
		check_slice(source, write->lane, write->write.slice);
		if (one_in(2))
			read_memory(write);
	}
	return true;
}

/* On the scheduler: a write completes, or the device has given up on it. */
static void complete(void *context)
{
	struct on_lane *write = context;
	struct endpoint *source = write->source;
	struct data_lane *lane = &source->lanes[write->lane];
	uint64_t most_ns = one_in(20) ? 5 * NS_PER_MS : 5 * NS_PER_US;
	uint64_t land_ns = world.now_ns + random_below(lane->broken ? 20 * most_ns : most_ns);

	write->completed = true;
	lane->n_queued--;
	lane->queued_bytes -= write->is_token ? 0 : write->write.length_bytes;
	if (!has_left(write)) {
		lane->broken = true;
		write->lost = true;
	}
	if (land_ns <= lane->last_landing_ns)
		land_ns = lane->last_landing_ns + 1;
	lane->last_landing_ns = land_ns;
	at(land_ns, land, write);
	task_wake(source);
}

static void put_on_lane(struct endpoint *endpoint, unsigned index, const struct transport_write *to,
			uint64_t token)
{
	struct data_lane *lane = &endpoint->lanes[index];
	struct on_lane *write = zeroed(1, sizeof(*write) + (to ? to->length_bytes : 0));
	uint64_t complete_ns =
		world.now_ns + random_below(one_in(20) ? 5 * NS_PER_MS : 50 * NS_PER_US);

	if (lane->has_token)
		violated("lane %u is posted to behind its token", index);
	lane->has_token = !to;
	write->source = endpoint;
	write->lane = index;
	write->is_token = !to;
	write->token = token;
	if (to) {
		write->write = *to;
		read_memory(write);
	}
	if (!is_reachable(endpoint, index)) /* it tries for a while */
		complete_ns += random_below(2 * NS_PER_S);
	if (complete_ns <= lane->last_ns)
		complete_ns = lane->last_ns + 1;
	lane->last_ns = complete_ns;
	lane->n_queued++;
	lane->queued_bytes += to ? to->length_bytes : 0;
	write->next = writes;
	writes = write;
	at(complete_ns, complete, write);
}

static int await_room(struct endpoint *endpoint, unsigned index, unsigned most,
		      struct ramlift_error *error)
{
	struct data_lane *lane = &endpoint->lanes[index];

	while (lane->n_queued > most && !lane->broken) {
		if (is_cancelled(endpoint))
			return error_set(error, -ECANCELED, "stopped");
		wait_a_moment(endpoint);
	}
	if (endpoint->aborted)
		return error_set(error, -ECANCELED, "stopped");
	if (lane->broken)
		return error_set(error, -EIO, "lane %u broke", index);
	return 0;
}

static int path_post(struct endpoint *endpoint, unsigned index,
		     const struct transport_write *posted, unsigned n_writes,
		     struct ramlift_error *error)
{
	task_point();
	pass_point("lane");
	for (unsigned i = 0; i < n_writes; i++) {
		int ret = await_room(endpoint, index, QUEUE_WRITES - 1, error);

		if (ret)
			return ret;
		check_slice(endpoint, index, posted[i].slice);
		put_on_lane(endpoint, index, &posted[i], 0);
	}
	return 0;
}

static uint64_t path_in_flight(struct endpoint *endpoint, unsigned index)
{
	return endpoint->lanes[index].queued_bytes;
}

static int path_drain(struct endpoint *endpoint, unsigned index, struct ramlift_error *error)
{
	pass_point("lane");
	return await_room(endpoint, index, 0, error);
}

static int path_token(struct endpoint *endpoint, unsigned index, uint64_t token,
		      struct ramlift_error *error)
{
	int ret = await_room(endpoint, index, QUEUE_WRITES - 1, error);

	pass_point("lane");
	if (ret)
		return ret;
	put_on_lane(endpoint, index, NULL, token);
	return path_drain(endpoint, index, error);
}

static int path_await_tokens(struct endpoint *endpoint, const uint64_t *tokens,
			     uint64_t deadline_ns, struct ramlift_error *error)
{
	uint64_t until_ns = world_deadline(deadline_ns);

	for (unsigned i = 0; i < endpoint->params.n_lanes;) {
		const struct data_lane *lane = &endpoint->lanes[i];

		pass_point("lane");
		if (tokens[i] && lane->has_token && lane->token != tokens[i])
			return error_set(error, -EPROTO, "wrong token");
		if (lane->has_token || !tokens[i]) {
			i++;
			continue;
		}
		if (lane->broken)
			return error_set(error, -EIO, "lane %u broke", i);
		if (is_cancelled(endpoint))
			return error_set(error, -ECANCELED, "stopped");
		if (world.now_ns >= until_ns)
			return error_set(error, -ETIMEDOUT, "the token of lane %u did not come", i);
		wait_a_moment(endpoint);
	}
	return 0;
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

bool data_path_break_lane(unsigned lane)
{
	for (struct endpoint *endpoint = endpoints; endpoint; endpoint = endpoint->next) {
		if (!endpoint->at_source || !endpoint->open || !endpoint->process->alive)
			continue;
		lane %= endpoint->params.n_lanes;
		happened(20, "lane %u breaks", lane);
		endpoint->lanes[lane].broken = true;
		task_wake(endpoint);
		return true;
	}
	return false;
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
		.post = path_post,
		.in_flight_bytes = path_in_flight,
		.drain = path_drain,
		.token = path_token,
		.await_tokens = path_await_tokens,
		.fence = path_fence,
		.drop_lane = path_drop_lane,
		.fence_lane = path_fence_lane,
		.abort = path_abort,
		.close = path_close,
	};

	return &transport;
}
