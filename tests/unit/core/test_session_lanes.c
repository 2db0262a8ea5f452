/* SPDX-License-Identifier: Apache-2.0 */
/* Whole sessions that lose lanes: in the middle, at the end, on one side or the other, over memory
 * and over TCP. The transport's table is wrapped by one that breaks a lane when it is told to. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"
#include "core/tcp_transport.h"
#include "session_pair.h"
#include "tests/support/cmocka_all.h"

#define HOT_PAGES 300
#define LIMIT	  (64ull << 20) /* so slow that a lane posts several times before the switchover */

static struct breaking {
	const struct ramlift_transport *base;
	struct ramlift_transport wrapped;
	struct endpoint *source, *destination; /* TCP's */
	unsigned lane;
	unsigned long at_post;	   /* its Nth post breaks the lane's end at the source */
	unsigned long far_at_post; /* or at the destination */
	int at_token;		   /* what this returns */
	_Atomic unsigned long posts;
} breaking;

static int breaking_listen(const struct transport_params *params, const struct sockaddr *local,
			   struct endpoint **endpoint, struct sockaddr_storage *addresses,
			   struct ramlift_error *error)
{
	int ret = breaking.base->listen(params, local, endpoint, addresses, error);

	breaking.destination = *endpoint;
	return ret;
}

static int breaking_connect(const struct transport_params *params,
			    const struct sockaddr_storage *peers, uint64_t deadline_ns,
			    struct endpoint **endpoint, struct ramlift_error *error)
{
	int ret = breaking.base->connect(params, peers, deadline_ns, endpoint, error);

	breaking.source = *endpoint;
	return ret;
}

/* As if the network had cut one side off. */
static void break_end(struct endpoint *endpoint)
{
	shutdown(endpoint->lanes[breaking.lane].fd, SHUT_RDWR);
}

static int breaking_post(struct endpoint *endpoint, unsigned lane,
			 const struct transport_write *writes, unsigned n_writes,
			 struct ramlift_error *error)
{
	unsigned long nth = lane == breaking.lane ? atomic_fetch_add(&breaking.posts, 1) + 1 : 0;

	if (nth && nth == breaking.at_post)
		break_end(breaking.source);
	if (nth && nth == breaking.far_at_post)
		break_end(breaking.destination);
	return breaking.base->post(endpoint, lane, writes, n_writes, error);
}

static int breaking_token(struct endpoint *endpoint, unsigned lane, uint64_t token,
			  struct ramlift_error *error)
{
	if (breaking.at_token && lane == breaking.lane)
		return error_set(error, breaking.at_token, "lane %u broke at its token", lane);
	return breaking.base->token(endpoint, lane, token, error);
}

static const struct ramlift_transport *breaking_transport(const struct ramlift_transport *base)
{
	memset(&breaking, 0, sizeof(breaking));
	breaking.base = base;
	breaking.lane = 1;
	breaking.wrapped = *base;
	breaking.wrapped.listen = breaking_listen;
	breaking.wrapped.connect = breaking_connect;
	breaking.wrapped.post = breaking_post;
	breaking.wrapped.token = breaking_token;
	return &breaking.wrapped;
}

/* These lanes are lost, and no others. */
static void assert_lost(const struct pair *pair, uint64_t lost)
{
	for (unsigned i = 0; i < pair->source_stats.n_lanes; i++)
		assert_int_equal(pair->source_stats.lanes[i].lost, lost >> i & 1);
}

static void lose_in_memory(const struct memory_faults *faults, uint64_t lost, bool budget)
{
	struct pair pair;
	int ret;

	memory_transport_set_faults(faults);
	pair_init(&pair, memory_transport());
	pair.source_config.bandwidth_bytes_per_s = LIMIT;
	if (budget) {
		pair.source_config.pin = RAMLIFT_PIN_BUDGET;
		pair.source_config.pin_budget_bytes = 16 << 20;
	}
	fake_guest_start_writer(&pair.source_guest, HOT_PAGES, 10);
	ret = pair_run(&pair);
	memory_transport_set_faults(NULL);
	pair_assert_moved(&pair, ret);
	assert_lost(&pair, lost);
	pair_fini(&pair);
}

static void test_lanes_are_lost_in_memory(void **unused)
{
	(void)unused;
	for (unsigned long post = 1; post < 6; post += 2)
		lose_in_memory(&(struct memory_faults){ .fail_lane_post = { 0, post } }, 2, false);
	lose_in_memory(&(struct memory_faults){ .fail_lane_post = { 2, 0, 1, 3 } }, 13, false);
	lose_in_memory(&(struct memory_faults){ .fail_lane_post = { 1, 1, 0, 1 } }, 11, true);
}

static void test_all_lanes_are_lost(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 1, 2, 3, 4 } };
	struct pair pair;

	(void)unused;
	memory_transport_set_faults(&faults);
	pair_init(&pair, memory_transport());
	fake_guest_start_writer(&pair.source_guest, HOT_PAGES, 10);
	assert_int_equal(pair_run(&pair), -EIO);
	memory_transport_set_faults(NULL);
	assert_non_null(strstr(pair.source_error.text, "as it was told to"));
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

/* What the destination cannot be sure of is not taken over. */
static void test_a_lane_that_cannot_be_fenced(void **unused)
{
	const struct memory_faults faults = { .fail_lane_post = { 0, 2 }, .fail_fence_lane = true };
	struct pair pair;

	(void)unused;
	memory_transport_set_faults(&faults);
	pair_init(&pair, memory_transport());
	pair.source_config.bandwidth_bytes_per_s = LIMIT;
	assert_int_not_equal(pair_run(&pair), 0);
	memory_transport_set_faults(NULL);
	assert_int_equal(pair.destination_ret, -ETIMEDOUT);
	assert_non_null(strstr(pair.source_error.text, "lane 1 does not stop"));
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

static void test_a_token_is_lost(void **unused)
{
	const struct memory_faults faults = { .lose_token_of = 1 << 2 };
	struct pair pair;

	(void)unused;
	memory_transport_set_faults(&faults);
	pair_init(&pair, memory_transport());
	pair.destination_config.timeouts.hand_over_ns = NS_PER_S / 2;
	assert_int_not_equal(pair_run(&pair), 0);
	memory_transport_set_faults(NULL);
	assert_non_null(strstr(pair.destination_error.text, "the token of lane 2 did not come"));
	pair_assert_stayed(&pair);
	pair_fini(&pair);
}

static void test_a_lane_is_lost_at_its_token(void **unused)
{
	const struct ramlift_transport *bases[] = { memory_transport(), ramlift_transport_tcp() };

	(void)unused;
	for (unsigned i = 0; i < 2; i++) {
		struct pair pair;

		/* A code of its own may not be mistaken for time that is left. */
		const int code = i ? -EPIPE : -ETIMEDOUT;

		pair_init(&pair, breaking_transport(bases[i]));
		breaking.at_token = code;
		fake_guest_start_writer(&pair.source_guest, HOT_PAGES, 10);
		assert_int_equal(pair_run(&pair), code);
		assert_non_null(strstr(pair.source_error.text, "broke at its token"));
		pair_assert_stayed(&pair);
		pair_fini(&pair);
	}
}

static void lose_over_tcp(unsigned long at_post, unsigned long far_at_post)
{
	struct pair pair;
	int ret;

	pair_init(&pair, breaking_transport(ramlift_transport_tcp()));
	pair.source_config.bandwidth_bytes_per_s = LIMIT;
	breaking.at_post = at_post;
	breaking.far_at_post = far_at_post;
	fake_guest_start_writer(&pair.source_guest, HOT_PAGES, 10);
	ret = pair_run(&pair);
	pair_assert_moved(&pair, ret);
	assert_lost(&pair, 2);
	pair_fini(&pair);
}

static void test_a_lane_is_lost_over_tcp(void **unused)
{
	(void)unused;
	lose_over_tcp(1, 0);
	lose_over_tcp(3, 0);
	lose_over_tcp(0, 1);
}

/* Only the destination's end, and the lane has nothing to send any more: that is found out when its
 * token does not come, at the latest. */
static void break_at_switchover(void *context, const struct ramlift_stats *stats)
{
	(void)context;
	if (stats->phase == RAMLIFT_PHASE_STOP_AND_COPY)
		break_end(breaking.destination);
}

static void test_an_idle_lane_is_lost(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, breaking_transport(ramlift_transport_tcp()));
	pair.source_config.progress = break_at_switchover;
	assert_int_not_equal(pair_run(&pair), 0);
	pair_assert_stayed(&pair);
	assert_true(pair.source_guest.pauses == 1);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lanes_are_lost_in_memory),
		cmocka_unit_test(test_all_lanes_are_lost),
		cmocka_unit_test(test_a_lane_that_cannot_be_fenced),
		cmocka_unit_test(test_a_token_is_lost),
		cmocka_unit_test(test_a_lane_is_lost_at_its_token),
		cmocka_unit_test(test_a_lane_is_lost_over_tcp),
		cmocka_unit_test(test_an_idle_lane_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
