/* SPDX-License-Identifier: Apache-2.0 */
#include "pair.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "fake.h"
#include "rdma/cm.h"

const struct ramlift_transport *transport;

uint64_t pair_within_ms(uint64_t ms)
{
	return clock_now_ns() + ms * NS_PER_MS;
}

struct sockaddr *pair_address(uint16_t port)
{
	static _Thread_local union {
		struct sockaddr_storage storage;
		struct sockaddr any;
		struct sockaddr_in v4;
	} address;

	address.v4.sin_family = AF_INET;
	address.v4.sin_addr.s_addr = inet_addr(FAKE_ADDRESS);
	address.v4.sin_port = htons(port);
	return &address.any;
}

void pair_init(struct pair *pair, unsigned n_lanes)
{
	size_t bytes = PAIR_SLICES * PAIR_SLICE_BYTES;

	transport = ramlift_transport_rdma();
	fake_reset();
	memset(pair, 0, sizeof(*pair));
	pair->n_rails = 1;
	pair->n_lanes = n_lanes;
	for (unsigned i = 0; i < PAIR_SLICES; i++)
		pair->carriers[i] = 1;
	pair->io_timeout_ns = 2 * NS_PER_S;
	pair->interrupt_fd = -1;
	memset(pair->session_id, 0x5a, sizeof(pair->session_id));
	pair->source_ram = malloc(bytes);
	pair->destination_ram = calloc(1, bytes);
	for (size_t i = 0; i < bytes; i++)
		pair->source_ram[i] = (uint8_t)random();
	for (unsigned i = 0; i < PAIR_SLICES; i++) {
		pair->source_slices[i] = (struct slice){
			.hva = pair->source_ram + (size_t)i * PAIR_SLICE_BYTES,
			.size_bytes = PAIR_SLICE_BYTES,
		};
		pair->destination_slices[i] = (struct slice){
			.hva = pair->destination_ram + (size_t)i * PAIR_SLICE_BYTES,
			.size_bytes = PAIR_SLICE_BYTES,
		};
	}
}

void pair_name_rails(struct pair *pair, unsigned n_rails)
{
	static const char *const forward[] = { "fake0", "fake1" };
	static const char *const backward[] = { "fake1", "fake0" };

	fake_plug(n_rails);
	pair->n_rails = n_rails;
	pair->destination_rails = forward;
	pair->source_rails = n_rails > 1 ? backward : forward;
	for (unsigned i = 0; i < PAIR_SLICES; i++)
		pair->carriers[i] = (1u << n_rails) - 1;
}

void pair_assert_same_memory(const struct pair *pair)
{
	assert_memory_equal(pair->source_ram, pair->destination_ram,
			    PAIR_SLICES * PAIR_SLICE_BYTES);
}

void pair_fini(struct pair *pair)
{
	fake_hold_completions(false);
	transport->close(pair->source);
	transport->close(pair->destination);
	free(pair->source_ram);
	free(pair->destination_ram);
	assert_int_equal(fake_live(), 0);
}

struct transport_params pair_params(const struct pair *pair, const struct slice *slices)
{
	struct transport_params params = {
		.rails = slices == pair->source_slices ? pair->source_rails
						       : pair->destination_rails,
		.n_rails = pair->n_rails,
		.on_demand_paging = pair->on_demand_paging,
		.n_lanes = pair->n_lanes,
		.slices = slices,
		.n_slices = PAIR_SLICES,
		.interrupt_fd = slices == pair->source_slices ? pair->interrupt_fd : -1,
		.io_timeout_ns = pair->io_timeout_ns,
	};

	memcpy(params.session_id, pair->session_id, SESSION_ID_BYTES);
	return params;
}

void pair_listen(struct pair *pair)
{
	struct transport_params params = pair_params(pair, pair->destination_slices);

	assert_int_equal(transport->listen(&params, pair_address(1), &pair->destination,
					   pair->bound, &pair->destination_error),
			 0);
	for (unsigned i = 0; i < PAIR_SLICES; i++)
		assert_int_equal(transport->register_slice(pair->destination, i, pair->carriers[i],
							   &pair->keys[i],
							   &pair->destination_error),
				 0);
}

static void *accept_lanes(void *argument)
{
	struct pair *pair = argument;

	pair->accept_ret = transport->accept(pair->destination, pair_within_ms(5000),
					     &pair->destination_error);
	return NULL;
}

void pair_start_accept(struct pair *pair)
{
	assert_int_equal(pthread_create(&pair->acceptor, NULL, accept_lanes, pair), 0);
}

void pair_finish_accept(struct pair *pair)
{
	pthread_join(pair->acceptor, NULL);
	assert_int_equal(pair->accept_ret, 0);
}

void pair_connect(struct pair *pair)
{
	struct transport_params params = pair_params(pair, pair->source_slices);

	assert_int_equal(transport->connect(&params, pair->bound, pair_within_ms(5000),
					    &pair->source, &pair->source_error),
			 0);
	for (unsigned i = 0; i < PAIR_SLICES; i++) {
		assert_int_equal(transport->register_slice(pair->source, i, pair->carriers[i], NULL,
							   &pair->source_error),
				 0);
		transport->set_peer_key(pair->source, i, &pair->keys[i]);
	}
}

void pair_open(struct pair *pair)
{
	pair_listen(pair);
	pair_start_accept(pair);
	pair_connect(pair);
	pair_finish_accept(pair);
}

/* The next lane after this one that may carry the slice. */
static unsigned next_lane(const struct pair *pair, unsigned lane, unsigned slice)
{
	do {
		lane = (lane + 1) % pair->n_lanes;
	} while (!(pair->carriers[slice] >> lane / (pair->n_lanes / pair->n_rails) & 1));
	return lane;
}

int pair_send_all(struct pair *pair, uint32_t length_bytes)
{
	struct transport_write writes[TRANSPORT_MAX_BATCH];
	unsigned n = 0, lane = 0;
	int ret = 0;

	for (unsigned slice = 0; slice < PAIR_SLICES; slice++) {
		for (uint64_t offset = 0; offset < PAIR_SLICE_BYTES && !ret;
		     offset += length_bytes) {
			writes[n++] = (struct transport_write){
				.slice = slice,
				.length_bytes = length_bytes,
				.offset_bytes = offset,
			};
			if (n < TRANSPORT_MAX_BATCH && offset + length_bytes < PAIR_SLICE_BYTES)
				continue;
			lane = next_lane(pair, lane, slice);
			ret = transport->post(pair->source, lane, writes, n, &pair->source_error);
			n = 0;
		}
	}
	return ret;
}

const uint64_t *pair_tokens(uint64_t token)
{
	static _Thread_local uint64_t tokens[RAMLIFT_MAX_LANES];

	for (unsigned i = 0; i < RAMLIFT_MAX_LANES; i++)
		tokens[i] = token;
	return tokens;
}

int pair_send_tokens(struct pair *pair, uint64_t token)
{
	int ret = 0;

	for (unsigned lane = 0; lane < pair->n_lanes && !ret; lane++)
		ret = transport->token(pair->source, lane, token, &pair->source_error);
	return ret;
}

enum rdma_cm_event_type pair_knock_with(const struct pair *pair, unsigned rail, const void *data,
					unsigned n_bytes)
{
	struct rdma_conn_param param = { .private_data = data,
					 .private_data_len = (uint8_t)n_bytes };
	struct sockaddr_storage address = pair->bound[rail];
	struct rdma_event_channel *channel;
	struct rdma_cm_id *id;
	struct cm_event event;

	assert_int_equal(cm_channel_open(&channel, NULL), 0);
	assert_int_equal(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), 0);
	assert_int_equal(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 100), 0);
	assert_int_equal(rdma_connect(id, &param), 0);
	for (unsigned tries = 0; tries < 1000; tries++) {
		event.type = RDMA_CM_EVENT_TIMEWAIT_EXIT;
		if (!cm_channel_next(channel, &event) && event.type != RDMA_CM_EVENT_ADDR_RESOLVED)
			break;
		clock_sleep_until(pair_within_ms(1));
	}
	rdma_destroy_id(id);
	rdma_destroy_event_channel(channel);
	return event.type;
}

enum rdma_cm_event_type pair_knock(const struct pair *pair, unsigned rail, unsigned lane,
				   unsigned n_lanes, int session_change)
{
	struct cm_hello hello = { .lane = lane, .n_lanes = n_lanes };
	uint8_t bytes[CM_HELLO_BYTES];

	memcpy(hello.session_id, pair->session_id, SESSION_ID_BYTES);
	hello.session_id[SESSION_ID_BYTES - 1] ^= (uint8_t)session_change;
	cm_hello_pack(&hello, bytes);
	return pair_knock_with(pair, rail, bytes, sizeof(bytes));
}
