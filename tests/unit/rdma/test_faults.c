/* SPDX-License-Identifier: Apache-2.0 */
/* What happens when something does not work: full queues, dead peers, broken devices and lanes. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "fake_device.h"
#include "pair.h"
#include "rdma/endpoint.h"
#include "rdma/lane.h"

struct poster {
	struct pair *pair;
	pthread_t thread;
	unsigned batches;
	int ret;
};

static void *post_batches(void *argument)
{
	struct transport_write writes[TRANSPORT_MAX_BATCH];
	struct poster *poster = argument;
	struct pair *pair = poster->pair;

	for (unsigned i = 0; i < TRANSPORT_MAX_BATCH; i++)
		writes[i] = (struct transport_write){ .length_bytes = 4096,
						      .offset_bytes = i * 4096ull };
	for (unsigned i = 0; i < poster->batches && !poster->ret; i++)
		poster->ret = transport->post(pair->source, 0, writes, TRANSPORT_MAX_BATCH,
					      &pair->source_error);
	return NULL;
}

/* A thread that posts more than the queue holds, and stands still. */
static void start_blocked_poster(struct poster *poster, struct pair *pair)
{
	*poster = (struct poster){ .pair = pair, .batches = 20 };
	fake_hold_completions(true);
	assert_int_equal(pthread_create(&poster->thread, NULL, post_batches, poster), 0);
	while (fake_fullest_queue() < LANE_SEND_DEPTH)
		clock_sleep_until(pair_within_ms(1));
	clock_sleep_until(pair_within_ms(20));
	assert_int_equal(fake_fullest_queue(), LANE_SEND_DEPTH);
}

static void test_full_queue_blocks(void **state)
{
	struct poster poster;
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair_open(&pair);
	start_blocked_poster(&poster, &pair);
	fake_hold_completions(false);
	pthread_join(poster.thread, NULL);
	assert_int_equal(poster.ret, 0);
	assert_int_equal(transport->drain(pair.source, 0, &pair.source_error), 0);
	assert_memory_equal(pair.source_ram, pair.destination_ram, TRANSPORT_MAX_BATCH * 4096);
	pair_fini(&pair);
}

static void test_no_completion(void **state)
{
	struct poster poster;
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair.io_timeout_ns = 50 * NS_PER_MS;
	pair_open(&pair);
	start_blocked_poster(&poster, &pair);
	pthread_join(poster.thread, NULL);
	assert_int_equal(poster.ret, -ETIMEDOUT);
	assert_non_null(strstr(pair.source_error.text, "lane 0: no completion for 0.05 s"));
	pair_fini(&pair);
}

static void test_abort(void **state)
{
	struct transport_write write = { .length_bytes = 4096 };
	struct poster poster;
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair_open(&pair);
	start_blocked_poster(&poster, &pair);
	transport->abort(pair.source);
	pthread_join(poster.thread, NULL);
	assert_int_equal(poster.ret, -ECANCELED);
	assert_int_equal(transport->post(pair.source, 0, &write, 1, NULL), -ECANCELED);
	assert_int_equal(transport->drain(pair.source, 0, NULL), -ECANCELED);
	assert_int_equal(transport->token(pair.source, 0, 1, NULL), -ECANCELED);
	transport->abort(pair.destination);
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(1),
						 pair_within_ms(5000), NULL),
			 -ECANCELED);
	pair_fini(&pair);
}

static void test_interrupt(void **state)
{
	struct poster poster;
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair.interrupt_fd = eventfd(0, EFD_CLOEXEC);
	pair_open(&pair);
	start_blocked_poster(&poster, &pair);
	eventfd_write(pair.interrupt_fd, 1);
	pthread_join(poster.thread, NULL);
	assert_int_equal(poster.ret, -ECANCELED);
	close(pair.interrupt_fd);
	pair_fini(&pair);
}

static void test_abort_ends_accept(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair_listen(&pair);
	pair_start_accept(&pair);
	transport->abort(pair.destination);
	pthread_join(pair.acceptor, NULL);
	assert_int_equal(pair.accept_ret, -ECANCELED);
	pair_fini(&pair);
}

static void test_error_completion(void **state)
{
	struct transport_write write = { .slice = 1, .length_bytes = 4096 };
	struct ramlift_error again = { 0 };
	struct slice_key wrong;
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_open(&pair);
	wrong = pair.keys[1];
	wrong.rkeys[0] ^= 1;
	transport->set_peer_key(pair.source, 1, &wrong);
	assert_int_equal(transport->post(pair.source, 1, &write, 1, &pair.source_error), 0);
	assert_int_equal(transport->drain(pair.source, 1, &pair.source_error), -EIO);
	assert_non_null(strstr(pair.source_error.text, "lane 1: remote access error"));
	assert_int_equal(pair.destination_ram[PAIR_SLICE_BYTES], 0);
	/* The lane stays broken, the other one works. */
	transport->set_peer_key(pair.source, 1, &pair.keys[1]);
	assert_int_equal(transport->post(pair.source, 1, &write, 1, &again), -EIO);
	assert_string_equal(again.text, pair.source_error.text);
	assert_int_equal(transport->post(pair.source, 0, &write, 1, NULL), 0);
	assert_int_equal(transport->drain(pair.source, 0, NULL), 0);
	pair_fini(&pair);
}

static void test_peer_goes(void **state)
{
	struct transport_write write = { .length_bytes = 4096 };
	struct pair pair;
	int ret = 0;

	(void)state;
	pair_init(&pair, 2);
	pair_open(&pair);
	transport->close(pair.source);
	pair.source = NULL;
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(5000), &pair.destination_error),
			 -EIO);
	assert_non_null(strstr(pair.destination_error.text, "closed the connection"));
	assert_int_equal(transport->fence(pair.destination, NULL), 0);
	pair_fini(&pair);

	pair_init(&pair, 2);
	pair_open(&pair);
	transport->close(pair.destination);
	pair.destination = NULL;
	for (unsigned i = 0; i < 1000 && !ret; i++) {
		ret = transport->post(pair.source, 0, &write, 1, &pair.source_error);
		clock_sleep_until(pair_within_ms(1));
	}
	assert_true(ret == -EIO || ret == -ETIMEDOUT);
	pair_fini(&pair);
}

static void test_port_down(void **state)
{
	struct poster poster;
	struct pair pair;

	(void)state;
	pair_init(&pair, 1);
	pair_open(&pair);
	watch_stop(pair.destination); /* it shares the device here: the events are the source's */
	start_blocked_poster(&poster, &pair);
	fake_async_event(0, IBV_EVENT_PORT_ERR, 2); /* not the lanes' port */
	clock_sleep_until(pair_within_ms(20));
	assert_int_equal(pthread_tryjoin_np(poster.thread, NULL), EBUSY);
	fake_async_event(0, IBV_EVENT_PORT_ERR, 1);
	pthread_join(poster.thread, NULL);
	assert_int_equal(poster.ret, -EIO);
	assert_non_null(strstr(pair.source_error.text, "RDMA device fake0: port error"));
	pair_fini(&pair);
}

static int post_one(struct pair *pair, unsigned lane, struct ramlift_error *error)
{
	struct transport_write write = { .slice = lane % PAIR_SLICES, .length_bytes = 4096 };

	return transport->post(pair->source, lane, &write, 1, error);
}

static void await_severed(struct lane *lane)
{
	while (!atomic_load(&lane->severed))
		clock_sleep_until(pair_within_ms(1));
}

/* Lane 1 has been lost, one way or another: lane 0 does the rest. */
static void finish_without_lane_1(struct pair *pair)
{
	const uint64_t tokens[] = { PAIR_TOKEN, 0 };

	transport->drop_lane(pair->source, 1);
	assert_int_equal(transport->fence_lane(pair->destination, 1, NULL), 0);
	assert_int_equal(pair->source->lanes[1].qp->state, IBV_QPS_ERR);
	assert_int_equal(pair->destination->lanes[1].qp->state, IBV_QPS_ERR);
	assert_int_equal(pair->destination->lanes[1].receives, 0);
	for (unsigned i = 0; i < PAIR_SLICES; i++) {
		struct transport_write write = { .slice = i, .length_bytes = PAIR_SLICE_BYTES };

		assert_int_equal(transport->post(pair->source, 0, &write, 1, NULL), 0);
	}
	assert_int_equal(transport->token(pair->source, 0, PAIR_TOKEN, NULL), 0);
	assert_int_equal(
		transport->await_tokens(pair->destination, tokens, pair_within_ms(5000), NULL), 0);
	assert_int_equal(transport->fence(pair->destination, NULL), 0);
	pair_assert_same_memory(pair);
	pair_fini(pair);
}

static void test_a_queue_pair_breaks(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_open(&pair);
	assert_int_equal(post_one(&pair, 1, NULL), 0);
	fake_qp_error(pair.source->lanes[1].qp);
	assert_int_equal(post_one(&pair, 1, NULL), 0); /* and is flushed */
	assert_int_equal(transport->drain(pair.source, 1, &pair.source_error), -EIO);
	assert_non_null(strstr(pair.source_error.text, "lane 1: "));
	assert_int_equal(post_one(&pair, 0, NULL), 0);
	finish_without_lane_1(&pair);
}

/* What the device reports of one queue pair is no other lane's concern, on either side. */
static void test_a_queue_pair_is_reported(void **state)
{
	static const enum ibv_event_type types[] = { IBV_EVENT_QP_FATAL, IBV_EVENT_QP_REQ_ERR,
						     IBV_EVENT_QP_ACCESS_ERR };
	struct pair pair;

	(void)state;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		pair_init(&pair, 2);
		pair_open(&pair);
		watch_stop(pair.source); /* the events are the destination's */
		fake_queue_event(0, types[i], pair.destination->lanes[1].qp);
		await_severed(&pair.destination->lanes[1]);
		assert_int_equal(post_one(&pair, 0, NULL), 0);
		assert_int_equal(transport->drain(pair.source, 0, NULL), 0);
		/* The source finds out by itself, at its token at the latest. */
		assert_int_equal(transport->token(pair.source, 1, PAIR_TOKEN, &pair.source_error),
				 -ETIMEDOUT);
		assert_non_null(strstr(pair.source_error.text, "lane 1: "));
		assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
							 pair_within_ms(5000),
							 &pair.destination_error),
				 -EIO);
		assert_non_null(strstr(pair.destination_error.text, "lane 1: the adapter reports"));
		finish_without_lane_1(&pair);
	}

	pair_init(&pair, 2);
	pair_open(&pair);
	watch_stop(pair.destination);
	fake_queue_event(0, IBV_EVENT_QP_FATAL, pair.source->lanes[1].qp);
	await_severed(&pair.source->lanes[1]);
	assert_int_equal(post_one(&pair, 1, &pair.source_error), -EIO);
	assert_non_null(strstr(pair.source_error.text, "lane 1: the adapter reports"));
	finish_without_lane_1(&pair);
}

/* The other side closes one connection. */
static void test_a_connection_closes(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair_open(&pair);
	rdma_disconnect(pair.source->lanes[1].id);
	await_severed(&pair.destination->lanes[1]);
	assert_int_equal(transport->token(pair.source, 0, PAIR_TOKEN, NULL), 0);
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(5000), &pair.destination_error),
			 -EIO);
	assert_non_null(strstr(pair.destination_error.text, "lane 1: the peer closed"));
	pair_fini(&pair);

	pair_init(&pair, 2);
	pair_open(&pair);
	rdma_disconnect(pair.source->lanes[1].id);
	await_severed(&pair.destination->lanes[1]);
	finish_without_lane_1(&pair);

	pair_init(&pair, 2);
	pair_open(&pair);
	rdma_disconnect(pair.destination->lanes[1].id);
	await_severed(&pair.source->lanes[1]);
	assert_int_equal(transport->drain(pair.source, 1, &pair.source_error), -EIO);
	assert_non_null(strstr(pair.source_error.text, "lane 1: the peer closed"));
	assert_int_equal(transport->token(pair.source, 1, 1, NULL), -EIO);
	assert_int_equal(transport->drain(pair.source, 0, NULL), 0);
	finish_without_lane_1(&pair);
}

/* Whatever is waited for, it is not waited for longer than it may take. */
static void test_no_wait_is_endless(void **state)
{
	struct pair pair;

	(void)state;
	pair_init(&pair, 2);
	pair.io_timeout_ns = 50 * NS_PER_MS;
	pair_open(&pair);
	fake_hold_completions(true);
	assert_int_equal(post_one(&pair, 0, NULL), 0);
	assert_int_equal(transport->drain(pair.source, 0, &pair.source_error), -ETIMEDOUT);
	assert_non_null(strstr(pair.source_error.text, "lane 0: no completion for 0.05 s"));
	/* Its queue pair may be as well as ever; once it counts as lost it must not be. */
	assert_int_equal(pair.source->lanes[0].qp->state, IBV_QPS_RTS);
	transport->drop_lane(pair.source, 0);
	assert_int_equal(pair.source->lanes[0].qp->state, IBV_QPS_ERR);
	assert_int_equal(transport->token(pair.source, 1, PAIR_TOKEN, &pair.source_error),
			 -ETIMEDOUT);
	assert_non_null(strstr(pair.source_error.text, "lane 1: no completion for 0.05 s"));
	assert_int_equal(transport->await_tokens(pair.destination, pair_tokens(PAIR_TOKEN),
						 pair_within_ms(50), NULL),
			 -ETIMEDOUT);
	assert_int_equal(transport->fence_lane(pair.destination, 1, &pair.destination_error),
			 -ETIMEDOUT);
	assert_non_null(
		strstr(pair.destination_error.text, "lane 1: its queue pair does not stop"));
	assert_int_equal(transport->fence(pair.destination, NULL), -ETIMEDOUT);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_queue_blocks),
		cmocka_unit_test(test_no_completion),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_abort_ends_accept),
		cmocka_unit_test(test_error_completion),
		cmocka_unit_test(test_peer_goes),
		cmocka_unit_test(test_port_down),
		cmocka_unit_test(test_a_queue_pair_breaks),
		cmocka_unit_test(test_a_queue_pair_is_reported),
		cmocka_unit_test(test_a_connection_closes),
		cmocka_unit_test(test_no_wait_is_endless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
