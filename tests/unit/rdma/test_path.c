/* SPDX-License-Identifier: Apache-2.0 */
/* The whole way of a session's data: connect, register, post, token,
 * fence; and who may not join. */
#include <arpa/inet.h>
#include <errno.h>
#include <rdma/rdma_cma.h>
#include <string.h>

#include "core/clock.h"
#include "fake.h"
#include "pair.h"
#include "rdma/cm.h"

static void test_all_memory_arrives(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 4);
	pair_open(&pair);
	assert_int_equal(pair_send_all(&pair, 4096), 0);
	memset(pair.source_ram, 0x77, 5000);
	assert_int_equal(pair_send_all(&pair, 65536), 0);
	for (unsigned lane = 0; lane < pair.n_lanes; lane++)
		assert_int_equal(transport->drain(pair.source, lane, &pair.source_error), 0);
	assert_int_equal(pair_send_tokens(&pair, PAIR_TOKEN), 0);
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(5000), &pair.destination_error),
			 0);
	assert_int_equal(transport->fence(pair.destination, &pair.destination_error), 0);
	pair_assert_same_memory(&pair);
	pair_fini(&pair);
}

static void test_short_queues(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	fake_limit_queues(5);
	pair_open(&pair);
	assert_int_equal(pair_send_all(&pair, 4096), 0);
	assert_int_equal(pair_send_tokens(&pair, PAIR_TOKEN), 0);
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(5000), NULL),
			 0);
	pair_assert_same_memory(&pair);
	pair_fini(&pair);
}

/* The source lets nobody write or read; the destination exactly writes. Ordering is relaxed only
 * where the adapter reads. */
static void test_access(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair_open(&pair);
	assert_int_equal(fake_access_on(0, pair.source_ram), IBV_ACCESS_RELAXED_ORDERING);
	assert_int_equal(fake_access_on(0, pair.destination_ram),
			 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	pair_fini(&pair);
}

static void test_wrong_token(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_open(&pair);
	assert_int_equal(pair_send_tokens(&pair, PAIR_TOKEN + 1), 0);
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(5000), &pair.destination_error),
			 -EPROTO);
	assert_non_null(strstr(pair.destination_error.text, "lane 0"));
	pair_fini(&pair);
}

static void test_missing_token(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_open(&pair);
	assert_int_equal(transport->token(pair.source, 0, PAIR_TOKEN, NULL), 0);
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(50), &pair.destination_error),
			 -ETIMEDOUT);
	assert_non_null(strstr(pair.destination_error.text, "lane 1"));
	assert_non_null(strstr(pair.destination_error.text, "1 of 2"));
	pair_fini(&pair);
}

static void test_nothing_lands_after_the_fence(void **state)
{
	struct transport_write write = { .slice = 1, .length_bytes = 4096 };
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_open(&pair);
	assert_int_equal(transport->fence(pair.destination, &pair.destination_error), 0);
	assert_int_equal(transport->post(pair.source, 1, &write, 1, &pair.source_error), 0);
	assert_int_not_equal(transport->drain(pair.source, 1, &pair.source_error), 0);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(pair.destination_ram[PAIR_SLICE_BYTES + i], 0);
	pair_fini(&pair);
}

/* Each side may go once the tokens are through, and the other one does not call that a failure. */
static void test_orderly_ends(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 3);
	pair_open(&pair);
	assert_int_equal(pair_send_tokens(&pair, PAIR_TOKEN), 0);
	transport->close(pair.source);
	pair.source = NULL;
	clock_sleep_until(pair_within_ms(20));
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(5000), &pair.destination_error),
			 0);
	assert_int_equal(transport->fence(pair.destination, &pair.destination_error), 0);
	pair_fini(&pair);
}

static void test_strangers_are_turned_away(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_listen(&pair);
	pair_start_accept(&pair);
	assert_int_equal(pair_knock(&pair, 0, 0, 2, 1), RDMA_CM_EVENT_REJECTED);
	assert_int_equal(pair_knock(&pair, 0, 2, 2, 0), RDMA_CM_EVENT_REJECTED);
	assert_int_equal(pair_knock(&pair, 0, 0xffff, 2, 0), RDMA_CM_EVENT_REJECTED);
	assert_int_equal(pair_knock(&pair, 0, 0, 3, 0), RDMA_CM_EVENT_REJECTED);
	assert_int_equal(pair_knock_with(&pair, 0, NULL, 0), RDMA_CM_EVENT_REJECTED);
	assert_int_equal(pair_knock_with(&pair, 0, "hello", 5), RDMA_CM_EVENT_REJECTED);
	pair_connect(&pair);
	pair_finish_accept(&pair);
	/* All lanes are taken: not even the session itself may join again. */
	assert_int_equal(pair_knock(&pair, 0, 1, 2, 0), RDMA_CM_EVENT_REJECTED);
	assert_int_equal(pair_send_all(&pair, 4096), 0);
	assert_int_equal(pair_send_tokens(&pair, PAIR_TOKEN), 0);
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(5000), NULL),
			 0);
	pair_assert_same_memory(&pair);
	pair_fini(&pair);
}

static void test_wrong_session_at_the_source(void **state)
{
	struct transport_params params;
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_listen(&pair);
	pair_start_accept(&pair);
	params = pair_params(&pair, pair.source_slices);
	params.session_id[3] ^= 1;
	assert_int_equal(transport->connect(&params, pair.bound, pair_within_ms(5000), &pair.source,
					    &pair.source_error),
			 -ECONNREFUSED);
	assert_non_null(strstr(pair.source_error.text, "another session"));
	assert_null(pair.source);
	pair_connect(&pair);
	pair_finish_accept(&pair);
	pair_fini(&pair);
}

static void test_nobody_listens(void **state)
{
	struct transport_params params;
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	params = pair_params(&pair, pair.source_slices);
	assert_int_equal(transport->connect(&params,
					    (const struct sockaddr_storage *)pair_address(9),
					    pair_within_ms(5000), &pair.source, &pair.source_error),
			 -ECONNREFUSED);
	pair_fini(&pair);
}

static void test_nobody_comes(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_listen(&pair);
	assert_int_equal(
		transport->accept(pair.destination, pair_within_ms(30), &pair.destination_error),
		-ETIMEDOUT);
	assert_non_null(strstr(pair.destination_error.text, "0 of 2 lanes"));
	pair_fini(&pair);
}

static void test_probe(void **state)
{
	struct sockaddr_in loopback = { .sin_family = AF_INET,
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in any = { .sin_family = AF_INET };
	struct ramlift_error error = { 0 };
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	assert_int_equal(transport->probe(pair_address(0), NULL, &error), 0);
	assert_int_equal(transport->probe(NULL, pair_address(0), &error), 0);
	assert_int_equal(transport->probe((struct sockaddr *)&any, NULL, &error), 0);
	assert_int_equal(transport->probe((struct sockaddr *)&loopback, NULL, &error), -ENODEV);
	assert_non_null(strstr(error.text, "no RDMA device serves 127.0.0.1: use --transport tcp"));
	assert_int_equal(transport->probe(NULL, (struct sockaddr *)&loopback, &error), -ENODEV);
	pair_fini(&pair);
}

/* A wildcard address means the only device there is. */
static void test_listen_anywhere(void **state)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	struct transport_params params;
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	params = pair_params(&pair, pair.destination_slices);
	assert_int_equal(transport->listen(&params, (struct sockaddr *)&any, &pair.destination,
					   pair.bound, &pair.destination_error),
			 0);
	assert_int_equal(transport->register_slice(pair.destination, 0, 1, &pair.keys[0], NULL), 0);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_memory_arrives),
		cmocka_unit_test(test_short_queues),
		cmocka_unit_test(test_access),
		cmocka_unit_test(test_wrong_token),
		cmocka_unit_test(test_missing_token),
		cmocka_unit_test(test_nothing_lands_after_the_fence),
		cmocka_unit_test(test_orderly_ends),
		cmocka_unit_test(test_strangers_are_turned_away),
		cmocka_unit_test(test_wrong_session_at_the_source),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_nobody_comes),
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_listen_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
