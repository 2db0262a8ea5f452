/* SPDX-License-Identifier: Apache-2.0 */
/* Devices by name: where they are reached, what is registered with
 * which, what the device cannot. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "core/clock.h"
#include "fake.h"
#include "pair.h"
#include "rdma/endpoint.h"

static struct sockaddr_storage address_of(const char *text)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_storage address = { 0 };

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
		memcpy(&address, &v4, sizeof(v4));
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
		memcpy(&address, &v6, sizeof(v6));
	}
	return address;
}

static void assert_address(const struct sockaddr_storage *address, const char *expected)
{
	struct sockaddr_in6 v6;
	struct sockaddr_in v4;
	char text[64];

	memcpy(&v4, address, sizeof(v4));
	memcpy(&v6, address, sizeof(v6));
	if (address->ss_family == AF_INET6)
		inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
	else
		inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
	assert_string_equal(text, expected);
	assert_int_not_equal(v4.sin_port, 0);
}

static void send_and_finish(struct pair *pair)
{
	assert_int_equal(pair_send_all(pair, 4096), 0);
	assert_int_equal(pair_send_tokens(pair, PAIR_TOKEN), 0);
	assert_int_equal(transport->await_tokens(pair->destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(5000), &pair->destination_error),
			 0);
	assert_int_equal(transport->fence(pair->destination, &pair->destination_error), 0);
	pair_assert_same_memory(pair);
}

static void test_two_rails(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 4);
	pair_name_rails(&pair, 2);
	pair_open(&pair);
	assert_address(&pair.bound[0], FAKE_ADDRESS);
	assert_address(&pair.bound[1], FAKE_ADDRESS_1);
	assert_int_equal(transport->rail_node(pair.source, 1), 0);
	for (unsigned device = 0; device < 2; device++) {
		assert_int_not_equal(fake_access_on(device, pair.source_ram), -1);
		assert_int_not_equal(fake_access_on(device, pair.destination_ram), -1);
	}
	send_and_finish(&pair);
	pair_fini(&pair);
}

static void test_one_rail_with_a_name(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_name_rails(&pair, 1);
	pair_open(&pair);
	send_and_finish(&pair);
	pair_fini(&pair);
}

/* Rail 0 is fake0 at the destination and fake1 at the source. */
static void test_slices_on_their_rails(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_name_rails(&pair, 2);
	pair.carriers[0] = 1;
	pair.carriers[1] = 2;
	pair_open(&pair);
	assert_int_not_equal(pair.keys[0].rkeys[0], 0);
	assert_int_equal(pair.keys[0].rkeys[1], 0);
	assert_int_equal(pair.keys[1].rkeys[0], 0);
	assert_int_not_equal(pair.keys[1].rkeys[1], 0);
	assert_int_not_equal(fake_access_on(0, pair.destination_ram), -1);
	assert_int_equal(fake_access_on(1, pair.destination_ram), -1);
	assert_int_not_equal(fake_access_on(1, pair.source_ram), -1);
	assert_int_equal(fake_access_on(0, pair.source_ram), -1);
	assert_int_equal(fake_access_on(0, pair.destination_ram + PAIR_SLICE_BYTES), -1);
	assert_int_not_equal(fake_access_on(1, pair.destination_ram + PAIR_SLICE_BYTES), -1);
	send_and_finish(&pair);
	pair_fini(&pair);
}

static void test_slices_go_and_come_back(void **state)
{
	struct transport_write write = { .length_bytes = 4096 };
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_name_rails(&pair, 2);
	pair_open(&pair);
	transport->deregister_slice(pair.destination, 0);
	transport->deregister_slice(pair.source, 0);
	transport->deregister_slice(pair.source, 0); /* there is none: nothing to do */
	for (unsigned device = 0; device < 2; device++) {
		assert_int_equal(fake_access_on(device, pair.source_ram), -1);
		assert_int_equal(fake_access_on(device, pair.destination_ram), -1);
		assert_int_not_equal(fake_access_on(device, pair.source_ram + PAIR_SLICE_BYTES),
				     -1);
	}
	assert_int_equal(transport->register_slice(pair.source, 0, pair.carriers[0], NULL, NULL),
			 0);
	assert_int_equal(transport->register_slice(pair.destination, 0, pair.carriers[0],
						   &pair.keys[0], NULL),
			 0);
	transport->set_peer_key(pair.source, 0, &pair.keys[0]);
	send_and_finish(&pair);
	pair_fini(&pair);

	/* A key from before is worth nothing. */
	pair_init(&pair, 1);
	pair_open(&pair);
	transport->deregister_slice(pair.destination, 0);
	assert_int_equal(transport->register_slice(pair.destination, 0, 1, &pair.keys[0], NULL), 0);
	assert_int_equal(transport->post(pair.source, 0, &write, 1, NULL), 0);
	assert_int_equal(transport->drain(pair.source, 0, &pair.source_error), -EIO);
	assert_non_null(strstr(pair.source_error.text, "remote access error"));
	pair_fini(&pair);
}

/* What was registered on one rail goes again when the other one refuses. */
static void test_half_a_registration(void **state)
{
	struct rlimit before, limit = { 8 << 20, 0 };
	struct slice_key key = { .address = 77 };
	struct pair pair;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	if (before.rlim_max < limit.rlim_cur)
		skip();
	limit.rlim_max = before.rlim_max;
	pair_init(&pair, 2);
	pair_name_rails(&pair, 2);
	pair_open(&pair);
	transport->deregister_slice(pair.destination, 1);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	fake_fail_call(2);
	assert_int_equal(
		transport->register_slice(pair.destination, 1, 3, &key, &pair.destination_error),
		-ENOMEM);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
	assert_string_equal(pair.destination_error.text,
			    "cannot register 256 KiB of guest memory: locked-memory limit is 8 MiB "
			    "(ulimit -l), and memory counts once for each of its rails");
	assert_int_equal(key.address, 77);
	assert_int_equal(fake_access_on(0, pair.destination_ram + PAIR_SLICE_BYTES), -1);
	assert_int_equal(fake_access_on(1, pair.destination_ram + PAIR_SLICE_BYTES), -1);
	assert_int_equal(transport->register_slice(pair.destination, 1, 3, &pair.keys[1], NULL), 0);
	transport->set_peer_key(pair.source, 1, &pair.keys[1]);
	send_and_finish(&pair);
	pair_fini(&pair);
}

/* Where fake1 listens, given where the session's control connection is. */
static void assert_listens(const char *local, const char *expected)
{
	static const char *const names[] = { "fake1" };
	struct sockaddr_storage address = address_of(local);
	struct transport_params params;
	struct pair pair;

	pair_init(&pair, 1);
	pair_name_rails(&pair, 2);
	pair.n_rails = 1;
	pair.destination_rails = names;
	params = pair_params(&pair, pair.destination_slices);
	assert_int_equal(transport->listen(&params, (struct sockaddr *)&address, &pair.destination,
					   pair.bound, &pair.destination_error),
			 0);
	assert_address(&pair.bound[0], expected);
	pair_fini(&pair);
}

static void test_nearest_address(void **state)
{
	(void)state;
	assert_listens("192.168.7.1", FAKE_ADDRESS_1);
	assert_listens("0.0.0.0", FAKE_ADDRESS_1);
	assert_listens(FAKE_ADDRESS_1_VLAN, FAKE_ADDRESS_1_VLAN);
	assert_listens("10.2.0.200", FAKE_ADDRESS_1_VLAN);
	assert_listens("10.3.0.200", FAKE_ADDRESS_1);
	assert_listens("2001:db8::1", "fd00::1");
	assert_listens("fd00::1", "fd00::1");
}

static int connect_to(struct pair *pair, const char *peer)
{
	struct transport_params params = pair_params(pair, pair->source_slices);
	struct sockaddr_storage peers[2] = { address_of(peer), address_of(peer) };

	return transport->connect(&params, peers, pair_within_ms(1000), &pair->source,
				  &pair->source_error);
}

static void test_source_needs_the_family(void **state)
{
	static const char *const names[] = { "fake0" };
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair.source_rails = names;
	assert_int_equal(connect_to(&pair, "fd00::1"), -ENODEV);
	assert_string_equal(pair.source_error.text,
			    "RDMA device fake0 has no IPv6 address: give its network interface one "
			    "and bring it up (ip address add ADDRESS dev INTERFACE)");
	pair_fini(&pair);
}

static void test_ipv6(void **state)
{
	static const char *const names[] = { "fake1" };
	struct sockaddr_storage local = address_of("::");
	struct transport_params params;
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair_name_rails(&pair, 2);
	pair.n_rails = 1;
	pair.carriers[0] = pair.carriers[1] = 1;
	pair.source_rails = pair.destination_rails = names;
	params = pair_params(&pair, pair.destination_slices);
	assert_int_equal(transport->listen(&params, (struct sockaddr *)&local, &pair.destination,
					   pair.bound, &pair.destination_error),
			 0);
	for (unsigned i = 0; i < PAIR_SLICES; i++)
		assert_int_equal(
			transport->register_slice(pair.destination, i, 1, &pair.keys[i], NULL), 0);
	pair_start_accept(&pair);
	pair_connect(&pair);
	pair_finish_accept(&pair);
	send_and_finish(&pair);
	pair_fini(&pair);
}

static void assert_probe(int expected, const char *words, unsigned n, const char *one,
			 const char *other)
{
	const char *const names[] = { one, other };
	struct ramlift_error error = { .text = "" };

	assert_int_equal(transport->probe_rails(names, n, &error), expected);
	assert_string_equal(error.text, words);
	assert_int_equal(fake_live(), 0);
}

static void test_probe_rails(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	fake_plug(3);
	assert_probe(0, "", 2, "fake1", "fake0");
	assert_probe(-EINVAL, "RDMA device fake1 is named twice: name each once", 2, "fake1",
		     "fake1");
	assert_probe(-ENODEV, "this host has no RDMA device 'fake': it has fake0, fake1, fake2", 2,
		     "fake0", "fake");
	assert_probe(-ENODEV,
		     "RDMA device fake2 has no IP address: give its network interface one and "
		     "bring it up (ip address add ADDRESS dev INTERFACE)",
		     1, "fake2", "");
	fake_port_down(1);
	assert_probe(-ENODEV,
		     "RDMA device fake1 is down: check its cable, and bring its network interface "
		     "up",
		     2, "fake0", "fake1");
	fake_plug(0);
	assert_probe(-ENODEV,
		     "this host has no RDMA device 'fake0', and no other: use --transport tcp, or "
		     "set one up",
		     1, "fake0", "");
	pair_fini(&pair);
}

static void test_more_rails_than_names(void **state)
{
	struct transport_params params;
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair.n_rails = 2;
	params = pair_params(&pair, pair.destination_slices);
	assert_int_equal(transport->listen(&params, pair_address(1), &pair.destination, pair.bound,
					   &pair.destination_error),
			 -EINVAL);
	assert_non_null(strstr(pair.destination_error.text, "2 rails without names"));
	pair_fini(&pair);
}

/* Its own rail's device has its lanes' keys and receives, another one's has not. */
static void test_lane_at_the_wrong_rail(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 4);
	pair_name_rails(&pair, 2);
	pair_listen(&pair);
	pair_start_accept(&pair);
	assert_int_equal(pair_knock(&pair, 0, 2, 4, 0), RDMA_CM_EVENT_REJECTED);
	assert_int_equal(pair_knock(&pair, 1, 1, 4, 0), RDMA_CM_EVENT_REJECTED);
	pair_connect(&pair);
	pair_finish_accept(&pair);
	send_and_finish(&pair);
	pair_fini(&pair);
}

static void test_on_demand_paging(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_name_rails(&pair, 2);
	pair.on_demand_paging = true;
	fake_page_on_demand(0);
	fake_page_on_demand(1);
	pair_open(&pair);
	for (unsigned device = 0; device < 2; device++) {
		assert_int_equal(fake_access_on(device, pair.source_ram),
				 IBV_ACCESS_RELAXED_ORDERING | IBV_ACCESS_ON_DEMAND);
		assert_int_equal(fake_access_on(device, pair.destination_ram),
				 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
					 IBV_ACCESS_ON_DEMAND);
	}
	send_and_finish(&pair);
	pair_fini(&pair);
}

static void test_no_on_demand_paging(void **state)
{
	struct transport_params params;
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_name_rails(&pair, 2);
	pair.on_demand_paging = true;
	fake_page_on_demand(0);
	params = pair_params(&pair, pair.destination_slices);
	assert_int_equal(transport->listen(&params, pair_address(1), &pair.destination, pair.bound,
					   &pair.destination_error),
			 -EOPNOTSUPP);
	assert_string_equal(pair.destination_error.text,
			    "RDMA device fake1 cannot fault pages in on demand for RDMA writes: "
			    "migrate without on-demand paging");
	pair_fini(&pair);
}

/* Failures are watched for on every device, and named. */
static void assert_failure_seen(unsigned device, enum ibv_event_type type, const char *words)
{
	struct pair pair;

	pair_init(&pair, 2);
	pair_name_rails(&pair, 2);
	pair_open(&pair);
	watch_stop(pair.destination); /* it has the same devices here: events are the source's */
	fake_async_event(device, IBV_EVENT_PORT_ERR, 2); /* no rail's */
	fake_async_event(device, type, 1);
	while (!transport->drain(pair.source, 0, &pair.source_error))
		clock_sleep_until(pair_within_ms(1));
	assert_int_equal(pair.source_error.code, -EIO);
	assert_non_null(strstr(pair.source_error.text, words));
	pair_fini(&pair);
}

static void test_failing_devices(void **state)
{
	(void)state;
	assert_failure_seen(0, IBV_EVENT_DEVICE_FATAL, "RDMA device fake0: local catastrophic");
	assert_failure_seen(1, IBV_EVENT_DEVICE_FATAL, "RDMA device fake1: local catastrophic");
	assert_failure_seen(0, IBV_EVENT_PORT_ERR, "RDMA device fake0: port error");
	assert_failure_seen(1, IBV_EVENT_PORT_ERR, "RDMA device fake1: port error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_rails),
		cmocka_unit_test(test_one_rail_with_a_name),
		cmocka_unit_test(test_slices_on_their_rails),
		cmocka_unit_test(test_slices_go_and_come_back),
		cmocka_unit_test(test_half_a_registration),
		cmocka_unit_test(test_nearest_address),
		cmocka_unit_test(test_source_needs_the_family),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_probe_rails),
		cmocka_unit_test(test_more_rails_than_names),
		cmocka_unit_test(test_lane_at_the_wrong_rail),
		cmocka_unit_test(test_on_demand_paging),
		cmocka_unit_test(test_no_on_demand_paging),
		cmocka_unit_test(test_failing_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
