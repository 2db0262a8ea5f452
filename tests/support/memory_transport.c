/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/memory_transport.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/address.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/ram.h"
#include "core/ramlift.h"

#define HELD_BACK_PER_LANE 16u

struct held_write {
	struct held_write *next;
	struct transport_write write;
	unsigned char data[];
};

struct memory_lane {
	struct held_write *first, **last;
	unsigned n_held;
	uint64_t held_bytes;
	unsigned long posts;
	bool failed, dropped; /* at the source */
	bool has_token;	      /* at the destination, as the next */
	uint64_t token;
	bool fenced;
};

struct endpoint {
	struct endpoint *next; /* of the destinations that listen */
	struct endpoint *peer;
	struct transport_params params;
	struct memory_faults faults;
	_Atomic unsigned long posts, registers;
	atomic_bool aborted;
	bool fenced;
	struct memory_account *account;
	unsigned *registered;	 /* by slice: for which rails, as bits */
	struct slice_key *keys;	 /* by slice: a destination's own, what a source was told */
	unsigned char *carriers; /* source, by stripe: the lane that posted to it, + 1 */
	uint64_t *first_stripe;	 /* by slice */
	struct memory_lane lanes[];
};

/* One lock for everything: tests are small. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct endpoint *listening;
static struct memory_faults next_faults;
static unsigned long late_writes;
static int open_endpoints;
static uint32_t last_rkey; /* no registration has the key of another */
static int rail_nodes[RAMLIFT_MAX_RAILS] = { -1, -1, -1, -1, -1, -1, -1, -1 };
static struct memory_account source_account, destination_account;

void memory_transport_set_faults(const struct memory_faults *faults)
{
	next_faults = faults ? *faults : (struct memory_faults){ 0 };
}

unsigned long memory_transport_late_writes(void)
{
	return late_writes;
}

int memory_transport_open_endpoints(void)
{
	return open_endpoints;
}

void memory_transport_set_rail_nodes(const int *nodes, unsigned n_rails)
{
	for (unsigned i = 0; i < RAMLIFT_MAX_RAILS; i++)
		rail_nodes[i] = i < n_rails ? nodes[i] : -1;
}

void memory_transport_accounts(struct memory_account *source, struct memory_account *destination)
{
	pthread_mutex_lock(&lock);
	if (source)
		*source = source_account;
	if (destination)
		*destination = destination_account;
	pthread_mutex_unlock(&lock);
}

static int memory_probe(const struct sockaddr *local, const struct sockaddr *peer,
			struct ramlift_error *error)
{
	(void)local;
	(void)peer;
	(void)error;
	return 0;
}

static int memory_probe_rails(const char *const *rails, unsigned n_rails,
			      struct ramlift_error *error)
{
	for (unsigned i = 0; i < n_rails; i++) {
		if (strncmp(rails[i], "memory", 6))
			return error_set(error, -ENODEV, "there is no device %s", rails[i]);
	}
	return 0;
}

static void number_stripes(struct endpoint *endpoint)
{
	uint64_t n_stripes = 0;

	endpoint->first_stripe = calloc(endpoint->params.n_slices, sizeof(uint64_t));
	for (unsigned i = 0; i < endpoint->params.n_slices; i++) {
		endpoint->first_stripe[i] = n_stripes;
		n_stripes += endpoint->params.slices[i].size_bytes / STRIPE_BYTES + 1;
	}
	endpoint->carriers = calloc(n_stripes, 1);
}

static struct endpoint *endpoint_new(const struct transport_params *params,
				     struct memory_account *account)
{
	struct endpoint *endpoint =
		calloc(1, sizeof(*endpoint) + params->n_lanes * sizeof(endpoint->lanes[0]));

	if (!endpoint)
		abort();
	endpoint->params = *params;
	endpoint->faults = next_faults;
	if (params->n_slices > MEMORY_MAX_SLICES)
		abort();
	memset(account, 0, sizeof(*account));
	endpoint->account = account;
	endpoint->registered = calloc(params->n_slices, sizeof(*endpoint->registered));
	endpoint->keys = calloc(params->n_slices, sizeof(*endpoint->keys));
	number_stripes(endpoint);
	for (unsigned i = 0; i < params->n_lanes; i++)
		endpoint->lanes[i].last = &endpoint->lanes[i].first;
	open_endpoints++;
	return endpoint;
}

static int memory_listen(const struct transport_params *params, const struct sockaddr *local,
			 struct endpoint **endpoint, struct sockaddr_storage *addresses,
			 struct ramlift_error *error)
{
	(void)local;
	(void)error;
	pthread_mutex_lock(&lock);
	*endpoint = endpoint_new(params, &destination_account);
	(*endpoint)->next = listening;
	listening = *endpoint;
	for (unsigned i = 0; i < params->n_rails; i++)
		((struct sockaddr_in *)&addresses[i])->sin_family = AF_INET;
	pthread_mutex_unlock(&lock);
	return 0;
}

static int memory_accept(struct endpoint *endpoint, uint64_t deadline_ns,
			 struct ramlift_error *error)
{
	int ret = 0;

	if (endpoint->faults.fail_accept)
		return error_set(error, -EIO, "accept fails as it was told to");
	pthread_mutex_lock(&lock);
	while (!endpoint->peer && !ret) {
		struct timespec soon;

		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec += 1000000;
		if (soon.tv_nsec >= 1000000000) {
			soon.tv_sec++;
			soon.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&changed, &lock, &soon);
		if (clock_now_ns() > deadline_ns)
			ret = error_set(error, -ETIMEDOUT, "no source connected");
		if (endpoint->params.interrupt_fd >= 0 &&
		    !wait_for_fd(endpoint->params.interrupt_fd, POLLIN, 0, -1))
			ret = error_set(error, -ECANCELED, "cancelled");
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static int memory_connect(const struct transport_params *params,
			  const struct sockaddr_storage *peers, uint64_t deadline_ns,
			  struct endpoint **result, struct ramlift_error *error)
{
	struct endpoint *destination;
	int ret = -ECONNREFUSED;

	(void)peers;
	(void)deadline_ns;
	if (next_faults.fail_connect)
		return error_set(error, -EIO, "connect fails as it was told to");
	pthread_mutex_lock(&lock);
	for (destination = listening; destination; destination = destination->next) {
		if (!memcmp(destination->params.session_id, params->session_id, SESSION_ID_BYTES) &&
		    !destination->peer)
			break;
	}
	if (destination) {
		*result = endpoint_new(params, &source_account);
		(*result)->peer = destination;
		destination->peer = *result;
		pthread_cond_broadcast(&changed);
		ret = 0;
	}
	pthread_mutex_unlock(&lock);
	return ret ? error_set(error, ret, "nobody listens for this session") : 0;
}

static int memory_rail_node(const struct endpoint *endpoint, unsigned rail)
{
	(void)endpoint;
	return rail_nodes[rail];
}

/* Under the lock. */
static void count_registration(struct endpoint *endpoint, unsigned slice)
{
	struct memory_account *account = endpoint->account;

	account->n_registrations++;
	account->ever[slice] = true;
	account->bytes += endpoint->params.slices[slice].size_bytes;
	if (account->bytes > account->most_bytes)
		account->most_bytes = account->bytes;
}

static int memory_register_slice(struct endpoint *endpoint, unsigned slice, unsigned rails,
				 struct slice_key *key, struct ramlift_error *error)
{
	struct slice_key fresh = { .address = slice * 4096ull };

	usleep(endpoint->faults.register_us);
	if (atomic_fetch_add(&endpoint->registers, 1) + 1 == endpoint->faults.fail_register)
		return error_set(error, -ENOMEM, "registration fails as it was told to");
	pthread_mutex_lock(&lock);
	if (!rails || rails >> endpoint->params.n_rails || endpoint->registered[slice])
		abort(); /* for no rail that there is, or twice: a bug of the engine */
	for (unsigned i = 0; i < endpoint->params.n_rails; i++)
		fresh.rkeys[i] = rails >> i & 1 ? ++last_rkey : 0;
	endpoint->registered[slice] = rails;
	if (endpoint->account == &destination_account)
		endpoint->keys[slice] = fresh;
	count_registration(endpoint, slice);
	pthread_mutex_unlock(&lock);
	if (key)
		*key = fresh;
	return 0;
}

/* Under the lock. */
static bool in_flight_to(const struct endpoint *source, unsigned slice)
{
	for (unsigned i = 0; i < source->params.n_lanes; i++) {
		for (const struct held_write *held = source->lanes[i].first; held;
		     held = held->next) {
			if (held->write.slice == slice)
				return true;
		}
	}
	return false;
}

static void memory_deregister_slice(struct endpoint *endpoint, unsigned slice)
{
	bool at_source = endpoint->account == &source_account;
	const struct endpoint *source;

	pthread_mutex_lock(&lock);
	source = at_source ? endpoint : endpoint->peer;
	if (!endpoint->registered[slice] || (source && in_flight_to(source, slice)))
		abort(); /* not there, or still being written: a bug of the engine */
	endpoint->registered[slice] = 0;
	endpoint->account->n_deregistrations++;
	endpoint->account->bytes -= endpoint->params.slices[slice].size_bytes;
	pthread_mutex_unlock(&lock);
}

static void memory_set_peer_key(struct endpoint *endpoint, unsigned slice,
				const struct slice_key *key)
{
	pthread_mutex_lock(&lock);
	endpoint->keys[slice] = *key;
	pthread_mutex_unlock(&lock);
}

/* May the lane's rail write to the slice now? Under the lock. */
static bool is_ready(const struct endpoint *source, unsigned index, unsigned slice)
{
	const struct endpoint *destination = source->peer;
	unsigned rail = index / (source->params.n_lanes / source->params.n_rails);

	if (!(source->registered[slice] >> rail & 1))
		return false;
	return !destination ||
	       (destination->registered[slice] >> rail & 1 &&
		source->keys[slice].rkeys[rail] == destination->keys[slice].rkeys[rail]);
}

/* Under the lock. */
static void deliver_first(struct endpoint *source, struct memory_lane *lane)
{
	struct held_write *held = lane->first;
	struct endpoint *destination = source->peer;

	lane->first = held->next;
	if (!lane->first)
		lane->last = &lane->first;
	lane->n_held--;
	lane->held_bytes -= held->write.length_bytes;
	if (destination && (destination->fenced || destination->lanes[lane - source->lanes].fenced))
		late_writes++;
	else if (destination)
		memcpy((char *)destination->params.slices[held->write.slice].hva +
			       held->write.offset_bytes,
		       held->data, held->write.length_bytes);
	free(held);
}

/* Rule 2. Under the lock. */
static void check_carrier(struct endpoint *source, unsigned index,
			  const struct transport_write *write)
{
	uint64_t stripe = source->first_stripe[write->slice] + write->offset_bytes / STRIPE_BYTES;
	unsigned before = source->carriers[stripe];

	if (before && source->lanes[before - 1].failed &&
	    !(source->peer && source->peer->lanes[before - 1].fenced))
		abort(); /* an older copy may still land after this one: a bug of the engine */
	source->carriers[stripe] = (unsigned char)(index + 1);
}

/* Under the lock. */
static int check_lane(struct endpoint *source, unsigned index, struct ramlift_error *error)
{
	struct memory_lane *lane = &source->lanes[index];
	unsigned long fail_post = source->faults.fail_lane_post[index];

	if (lane->dropped)
		abort(); /* somebody else carries its pages: a bug of the engine */
	lane->failed = fail_post && ++lane->posts >= fail_post;
	if (lane->failed)
		return error_set(error, -EIO, "lane %u fails as it was told to", index);
	return 0;
}

static int memory_post(struct endpoint *endpoint, unsigned index,
		       const struct transport_write *writes, unsigned n_writes,
		       struct ramlift_error *error)
{
	struct memory_lane *lane = &endpoint->lanes[index];
	int ret = 0;

	if (atomic_fetch_add(&endpoint->posts, 1) + 1 == endpoint->faults.fail_post)
		return error_set(error, -EIO, "posting fails as it was told to");
	if (atomic_load(&endpoint->aborted))
		return error_set(error, -ECANCELED, "stopped");
	pthread_mutex_lock(&lock);
	ret = check_lane(endpoint, index, error);
	for (unsigned i = 0; i < n_writes && !ret; i++) {
		const struct transport_write *write = &writes[i];
		struct held_write *held = malloc(sizeof(*held) + write->length_bytes);

		if (!held || !is_ready(endpoint, index, write->slice))
			abort(); /* posted to a slice that is not ready: a bug of the engine */
		check_carrier(endpoint, index, write);
		held->next = NULL;
		held->write = *write;
		memcpy(held->data,
		       (char *)endpoint->params.slices[write->slice].hva + write->offset_bytes,
		       write->length_bytes);
		*lane->last = held;
		lane->last = &held->next;
		lane->n_held++;
		lane->held_bytes += write->length_bytes;
		if (lane->n_held > HELD_BACK_PER_LANE * index)
			deliver_first(endpoint, lane);
		if (!endpoint->peer)
			ret = error_set(error, -EIO, "the destination is gone");
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static uint64_t memory_in_flight_bytes(struct endpoint *endpoint, unsigned index)
{
	uint64_t bytes;

	pthread_mutex_lock(&lock);
	bytes = endpoint->lanes[index].held_bytes;
	pthread_mutex_unlock(&lock);
	return bytes;
}

static int memory_drain(struct endpoint *endpoint, unsigned index, struct ramlift_error *error)
{
	(void)error;
	pthread_mutex_lock(&lock);
	while (endpoint->lanes[index].n_held)
		deliver_first(endpoint, &endpoint->lanes[index]);
	pthread_mutex_unlock(&lock);
	return 0;
}

static int memory_token(struct endpoint *endpoint, unsigned index, uint64_t token,
			struct ramlift_error *error)
{
	int ret = memory_drain(endpoint, index, error);

	pthread_mutex_lock(&lock);
	if (!endpoint->peer) {
		ret = error_set(error, -EIO, "the destination is gone");
	} else if (!endpoint->faults.lose_tokens &&
		   !(endpoint->faults.lose_token_of >> index & 1)) {
		endpoint->peer->lanes[index].has_token = true;
		endpoint->peer->lanes[index].token = token;
		pthread_cond_broadcast(&changed);
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static int memory_await_tokens(struct endpoint *endpoint, const uint64_t *tokens,
			       uint64_t deadline_ns, struct ramlift_error *error)
{
	for (unsigned i = 0; i < endpoint->params.n_lanes;) {
		bool here, right;

		pthread_mutex_lock(&lock);
		here = endpoint->lanes[i].has_token || !tokens[i];
		right = endpoint->lanes[i].token == tokens[i];
		pthread_mutex_unlock(&lock);
		if (here && !right)
			return error_set(error, -EPROTO, "wrong token");
		if (here)
			i++;
		else if (clock_now_ns() > deadline_ns)
			return error_set(error, -ETIMEDOUT, "the token of lane %u did not come", i);
		else
			clock_sleep_until(clock_now_ns() + NS_PER_MS);
	}
	return 0;
}

static int memory_fence(struct endpoint *endpoint, struct ramlift_error *error)
{
	(void)error;
	pthread_mutex_lock(&lock);
	endpoint->fenced = true;
	pthread_mutex_unlock(&lock);
	return 0;
}

static void memory_drop_lane(struct endpoint *endpoint, unsigned index)
{
	pthread_mutex_lock(&lock);
	endpoint->lanes[index].dropped = true;
	pthread_mutex_unlock(&lock);
}

/* Under the lock. */
static void forget_held(struct memory_lane *lane)
{
	while (lane->first) {
		struct held_write *held = lane->first;

		lane->first = held->next;
		free(held);
	}
	lane->last = &lane->first;
	lane->n_held = 0;
	lane->held_bytes = 0;
}

static int memory_fence_lane(struct endpoint *endpoint, unsigned index, struct ramlift_error *error)
{
	struct endpoint *source = endpoint->peer;

	if (endpoint->faults.fail_fence_lane)
		return error_set(error, -ETIMEDOUT, "lane %u does not stop, as it was told to",
				 index);
	pthread_mutex_lock(&lock);
	if (source) {
		struct memory_lane *lane = &source->lanes[index];

		if (!lane->dropped || endpoint->lanes[index].fenced)
			abort(); /* it lives, or was fenced before: a bug of the engine */
		for (unsigned late = lane->n_held / 2; late; late--)
			deliver_first(source, lane);
		forget_held(lane);
	}
	endpoint->lanes[index].fenced = true;
	pthread_mutex_unlock(&lock);
	return 0;
}

static void memory_abort(struct endpoint *endpoint)
{
	atomic_store(&endpoint->aborted, true);
}

static void memory_close(struct endpoint *endpoint)
{
	if (!endpoint)
		return;
	pthread_mutex_lock(&lock);
	for (struct endpoint **link = &listening; *link; link = &(*link)->next) {
		if (*link == endpoint) {
			*link = endpoint->next;
			break;
		}
	}
	if (endpoint->peer)
		endpoint->peer->peer = NULL;
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		forget_held(&endpoint->lanes[i]);
	open_endpoints--;
	pthread_mutex_unlock(&lock);
	free(endpoint->registered);
	free(endpoint->keys);
	free(endpoint->carriers);
	free(endpoint->first_stripe);
	free(endpoint);
}

static const struct ramlift_transport transport = {
	.name = "memory",
	.probe = memory_probe,
	.listen = memory_listen,
	.accept = memory_accept,
	.connect = memory_connect,
	.rail_node = memory_rail_node,
	.register_slice = memory_register_slice,
	.deregister_slice = memory_deregister_slice,
	.set_peer_key = memory_set_peer_key,
	.post = memory_post,
	.in_flight_bytes = memory_in_flight_bytes,
	.drain = memory_drain,
	.token = memory_token,
	.await_tokens = memory_await_tokens,
	.fence = memory_fence,
	.drop_lane = memory_drop_lane,
	.fence_lane = memory_fence_lane,
	.abort = memory_abort,
	.close = memory_close,
};

const struct ramlift_transport *memory_transport(void)
{
	return &transport;
}

const struct ramlift_transport *memory_transport_with_rails(void)
{
	static struct ramlift_transport with_rails;

	with_rails = transport;
	with_rails.probe_rails = memory_probe_rails;
	return &with_rails;
}
