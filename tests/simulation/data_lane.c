/* SPDX-License-Identifier: Apache-2.0 */
#include "data_lane.h"

#include <errno.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "host.h"
#include "real.h"

#define QUEUE_WRITES 24u /* of a lane; posting blocks while they are on their way */

static struct on_lane *writes;
static uint64_t pace_ns; /* of a write, in most cases */

void data_lanes_begin(void)
{
	writes = NULL;
	pace_ns = one_in(8) ? 5 * NS_PER_MS : 50 * NS_PER_US;
}

void data_lanes_end(void)
{
	while (writes) {
		struct on_lane *write = writes;

		writes = write->next;
		__real_free(write);
	}
}

bool data_is_being_written(const struct endpoint *source, unsigned slice)
{
	for (const struct on_lane *write = writes; write; write = write->next) {
		if (write->source == source && !write->completed && !write->is_token &&
		    write->write.slice == slice && !source->lanes[write->lane].broken)
			return true;
	}
	return false;
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
	uint64_t late_ns = one_in(2) ? 10 * NS_PER_MS : NS_PER_S / 2;
	uint64_t land_ns = world.now_ns + random_below(lane->broken ? late_ns : most_ns);

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
	struct on_lane *write = data_zeroed(1, sizeof(*write) + (to ? to->length_bytes : 0));
	uint64_t complete_ns = world.now_ns + random_below(one_in(20) ? 5 * NS_PER_MS : pace_ns);

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
		if (data_is_cancelled(endpoint))
			return error_set(error, -ECANCELED, "stopped");
		data_wait_a_moment(endpoint);
	}
	if (endpoint->aborted)
		return error_set(error, -ECANCELED, "stopped");
	if (lane->broken)
		return error_set(error, -EIO, "lane %u broke", index);
	return 0;
}

int data_post(struct endpoint *endpoint, unsigned index, const struct transport_write *posted,
	      unsigned n_writes, struct ramlift_error *error)
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

uint64_t data_in_flight(struct endpoint *endpoint, unsigned index)
{
	return endpoint->lanes[index].queued_bytes;
}

int data_drain(struct endpoint *endpoint, unsigned index, struct ramlift_error *error)
{
	pass_point("lane");
	return await_room(endpoint, index, 0, error);
}

int data_token(struct endpoint *endpoint, unsigned index, uint64_t token,
	       struct ramlift_error *error)
{
	int ret = await_room(endpoint, index, QUEUE_WRITES - 1, error);

	pass_point("lane");
	if (ret)
		return ret;
	put_on_lane(endpoint, index, NULL, token);
	return data_drain(endpoint, index, error);
}

int data_await_tokens(struct endpoint *endpoint, const uint64_t *tokens, uint64_t deadline_ns,
		      struct ramlift_error *error)
{
	uint64_t until_ns = data_world_deadline(deadline_ns);

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
		if (data_is_cancelled(endpoint))
			return error_set(error, -ECANCELED, "stopped");
		if (world.now_ns >= until_ns)
			return error_set(error, -ETIMEDOUT, "the token of lane %u did not come", i);
		data_wait_a_moment(endpoint);
	}
	return 0;
}
