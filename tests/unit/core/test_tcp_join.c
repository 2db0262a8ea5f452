/* SPDX-License-Identifier: Apache-2.0 */
/* Who may have a TCP lane: the source of the session, once, and nobody else, however many try. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/tcp_strangers.h"
#include "tcp_rig.h"

/* Turned away: closed, without a welcome. */
static void assert_turned_away(struct pair *pair, const struct hello *hello)
{
	struct stream *stream = send_hello(pair, hello);
	char byte;

	assert_int_equal(stream_receive(stream, &byte, 1, LONG_NS, -1), -ECONNRESET);
	stream_free(stream);
}

static void test_strangers_are_turned_away(void **unused)
{
	struct stream *stream;
	struct hello hello;
	struct pair pair;
	int fd;

	(void)unused;
	pair_listen(&pair, 2);
	accept_begin(&pair);
	for (unsigned i = 0; i < SESSION_ID_BYTES; i++) {
		hello = right_hello(&pair, 0);
		hello.session_id[i] ^= 1;
		assert_turned_away(&pair, &hello);
	}
	hello = right_hello(&pair, 0);
	hello.magic ^= htobe32(1);
	assert_turned_away(&pair, &hello);
	hello = right_hello(&pair, 2); /* of lanes 0 and 1 */
	assert_turned_away(&pair, &hello);
	hello = right_hello(&pair, 0xffff);
	assert_turned_away(&pair, &hello);
	hello = right_hello(&pair, 0);
	hello.n_lanes = htobe16(3);
	assert_turned_away(&pair, &hello);
	fd = connect_bare(&pair); /* comes and goes */
	close(fd);
	stream = connect_raw(&pair); /* says half of it */
	send_raw(stream, &hello, sizeof(hello) / 2);
	stream_free(stream);
	fd = connect_bare(&pair); /* says nothing, and stays */
	connect_source(&pair);	  /* and still the real ones get in */
	assert_int_equal(accept_end(&pair), 0);
	close(fd);
	fill(&pair.source, 3);
	post_all(&pair);
	send_tokens(&pair, TOKEN);
	assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
	assert_same_memory(&pair);
	pair_fini(&pair);
}

static void test_a_lane_joins_once(void **unused)
{
	struct pair pair;
	struct hello hello;
	struct stream *first, *second;

	(void)unused;
	pair_listen(&pair, 2);
	accept_begin(&pair);
	first = join_raw(&pair, 1);
	hello = right_hello(&pair, 1);
	assert_turned_away(&pair, &hello);
	second = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	stream_free(first);
	stream_free(second);
	pair_fini(&pair);
}

static void test_accept_ends(void **unused)
{
	uint64_t one = 1;
	struct pair pair;
	struct stream *stream;

	(void)unused;
	pair_listen(&pair, 2); /* at its deadline */
	pair.accept_deadline_ns = clock_now_ns() + 50 * NS_PER_MS;
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), -ETIMEDOUT);
	assert_true(pair.accept_error.text[0]);
	stream_free(stream);
	pair_fini(&pair);

	pair_listen(&pair, 2); /* interrupted */
	accept_begin(&pair);
	stream = join_raw(&pair, 1);
	assert_int_equal(write(pair.destination.interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(accept_end(&pair), -ECANCELED);
	stream_free(stream);
	pair_fini(&pair);
}

/* Not even a crowd of strangers keeps it beyond its deadline for long. */
static void test_accept_ends_among_strangers(void **unused)
{
	enum { STRANGERS = 10 };
	uint64_t begin_ns = clock_now_ns();
	int fds[STRANGERS];
	struct pair pair;

	(void)unused;
	pair_listen(&pair, 1);
	for (unsigned i = 0; i < STRANGERS; i++)
		fds[i] = connect_bare(&pair);
	pair.accept_deadline_ns = clock_now_ns() + 50 * NS_PER_MS;
	accept_begin(&pair);
	assert_int_equal(accept_end(&pair), -ETIMEDOUT);
	assert_true(clock_now_ns() - begin_ns < 10 * NS_PER_S);
	for (unsigned i = 0; i < STRANGERS; i++)
		close(fds[i]);
	pair_fini(&pair);
}

/* Some say nothing, some a part of it, and stay: the real ones do not wait for them. */
static void test_the_silent_cost_no_time(void **unused)
{
	enum { STRANGERS = 40 };
	uint64_t begin_ns;
	struct pair pair;
	int fds[STRANGERS];

	(void)unused;
	pair_listen(&pair, 2);
	for (unsigned i = 0; i < STRANGERS; i++) {
		fds[i] = connect_bare(&pair);
		assert_int_equal(send(fds[i], "RLL1", i % 5, MSG_NOSIGNAL), i % 5);
	}
	begin_ns = clock_now_ns();
	accept_begin(&pair);
	connect_source(&pair);
	assert_int_equal(accept_end(&pair), 0);
	assert_true(clock_now_ns() - begin_ns < 2 * NS_PER_S); /* one of them would take that */
	for (unsigned i = 0; i < STRANGERS; i++)
		close(fds[i]);
	pair_fini(&pair);
}

/* More than can wait: the first of them go, and the real ones get in. */
static void test_a_crowd_pushes_out_its_own(void **unused)
{
	enum { STRANGERS = STRANGERS_MAX + 20 };
	struct pair pair;
	int fds[STRANGERS];
	char byte;

	(void)unused;
	pair_listen(&pair, 1);
	accept_begin(&pair);
	for (unsigned i = 0; i < STRANGERS; i++)
		fds[i] = connect_bare(&pair);
	connect_source(&pair);
	assert_int_equal(accept_end(&pair), 0);
	for (unsigned i = 0; i < STRANGERS; i++) { /* nobody is left in there */
		assert_int_equal(wait_for_fd(fds[i], POLLIN, LONG_NS, -1), 0);
		assert_int_equal(recv(fds[i], &byte, 1, 0), 0);
		close(fds[i]);
	}
	pair_fini(&pair);
}

static void *interrupt_soon(void *argument)
{
	struct side *side = argument;
	uint64_t one = 1;

	usleep(100000);
	if (write(side->interrupt_fd, &one, sizeof(one)) != sizeof(one))
		abort();
	return NULL;
}

static void test_waits_are_interrupted(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	pthread_t thread;

	(void)unused;
	pair_init(&pair, 2);
	assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, &pair.destination), 0);
	assert_int_equal(tcp()->await_tokens(pair.destination.endpoint, on_all_lanes(TOKEN),
					     clock_now_ns() + 5 * NS_PER_S, &error),
			 -ECANCELED);
	pthread_join(thread, NULL);
	pair_fini(&pair);

	pair_listen(&pair, 2);
	pair.accept_deadline_ns = clock_now_ns() + 5 * NS_PER_S;
	accept_begin(&pair);
	tcp()->abort(pair.destination.endpoint);
	assert_int_equal(accept_end(&pair), -ECANCELED);
	pair_fini(&pair);
}

static void test_nobody_admits_the_source(void **unused)
{
	struct ramlift_error error = { 0 };
	uint64_t one = 1;
	struct pair pair;

	(void)unused;
	pair_listen(&pair, 1); /* listens, but does not accept */
	assert_int_equal(tcp()->connect(&pair.source.params, &pair.address.socket,
					clock_now_ns() + 50 * NS_PER_MS, &pair.source.endpoint,
					&error),
			 -ETIMEDOUT);
	assert_null(pair.source.endpoint);
	assert_non_null(strstr(error.text, "lane 0"));
	assert_int_equal(write(pair.source.interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(tcp()->connect(&pair.source.params, &pair.address.socket, LONG_NS,
					&pair.source.endpoint, &error),
			 -ECANCELED);
	tcp()->close(pair.destination.endpoint);
	pair.destination.endpoint = NULL;
	assert_int_equal(read(pair.source.interrupt_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(tcp()->connect(&pair.source.params, &pair.address.socket, LONG_NS,
					&pair.source.endpoint, &error),
			 -ECONNREFUSED);
	assert_null(pair.source.endpoint);
	pair_fini(&pair);
}

/* Lanes of a session that is encrypted are nobody's else, and none of them is plain. */
static void test_no_lane_without_the_secret(void **unused)
{
	static const uint8_t other[STREAM_SECRET_BYTES] = "of somebody else";
	const uint8_t *const wrong[] = { NULL, other, some_secret };
	struct ramlift_error error;
	struct pair pair;

	(void)unused;
	for (unsigned i = 0; i < 3; i++) {
		if (wrong[i] == secret)
			continue;
		pair_listen(&pair, 1);
		accept_begin(&pair);
		pair.source.params.lane_secret = wrong[i];
		error.code = 0;
		assert_true(tcp()->connect(&pair.source.params, &pair.address.socket,
					   clock_now_ns() + NS_PER_S, &pair.source.endpoint,
					   &error) < 0);
		assert_non_null(strstr(error.text, "lane 0 was not admitted"));
		pair.source.params.lane_secret = secret;
		connect_source(&pair);
		assert_int_equal(accept_end(&pair), 0);
		pair_fini(&pair);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strangers_are_turned_away),
		cmocka_unit_test(test_a_lane_joins_once),
		cmocka_unit_test(test_accept_ends),
		cmocka_unit_test(test_accept_ends_among_strangers),
		cmocka_unit_test(test_the_silent_cost_no_time),
		cmocka_unit_test(test_a_crowd_pushes_out_its_own),
		cmocka_unit_test(test_waits_are_interrupted),
		cmocka_unit_test(test_nobody_admits_the_source),
		cmocka_unit_test(test_no_lane_without_the_secret),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, lanes_plain, NULL);

	return failed + cmocka_run_group_tests_name("TLS", tests, lanes_under_tls, NULL);
}
