/* SPDX-License-Identifier: Apache-2.0 */
/* How TCP lanes end: by the fence, one without the others, by either side's death, by abort. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tcp_rig.h"

struct writer {
	struct pair *pair;
	struct stream *stream;
	_Atomic int stop;
};

/* Writes 1, 2, 3... over the last page until the connection breaks. */
static void *writer_thread(void *argument)
{
	struct writer *writer = argument;
	char frame[sizeof(struct header) + PAGE];
	struct header header = one_write(2, PAGE, 0);

	memcpy(frame, &header, sizeof(header));
	for (unsigned i = 1; !writer->stop; i++) {
		memset(frame + sizeof(header), (int)(i % 255 + 1), PAGE);
		if (stream_send(writer->stream, frame, sizeof(frame), LONG_NS, -1))
			break;
	}
	return NULL;
}

/* Rule 6: whatever the source still sends, after the fence memory stays as it is. */
static void test_nothing_is_written_after_the_fence(void **unused)
{
	(void)unused;
	for (unsigned round = 0; round < 20; round++) {
		unsigned char before[PAGE];
		struct writer writer = { 0 };
		struct pair pair;
		pthread_t thread;

		pair_listen(&pair, 1);
		accept_begin(&pair);
		writer.stream = join_raw(&pair, 0);
		assert_int_equal(accept_end(&pair), 0);
		assert_int_equal(pthread_create(&thread, NULL, writer_thread, &writer), 0);
		usleep(round * 500);
		assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
		memcpy(before, pair.destination.slices[2].hva, PAGE);
		usleep(5000);
		assert_memory_equal(pair.destination.slices[2].hva, before, PAGE);
		memset(pair.destination.slices[2].hva, 0, PAGE);
		usleep(5000);
		assert_memory_untouched(&pair);
		writer.stop = 1;
		pthread_join(thread, NULL);
		stream_free(writer.stream);
		pair_fini(&pair);
	}
}

/* One lane of two ends, at the source or at the destination or in a write; the other goes on. */
static void lose_lane(void (*lose)(struct pair *pair))
{
	uint64_t tokens[] = { 0, TOKEN };
	struct transport_write write = { 2, PAGE, 0 };
	struct ramlift_error error = { 0 };
	struct pair pair;

	pair_init(&pair, 2);
	fill(&pair.source, 3);
	assert_int_equal(tcp()->post(pair.source.endpoint, 0, &write, 1, NULL), 0);
	lose(&pair);
	for (uint64_t end_ns = LONG_NS; !error.code;) {
		tcp()->post(pair.source.endpoint, 0, &write, 1, &error);
		assert_true(clock_now_ns() < end_ns);
	}
	assert_non_null(strstr(error.text, "lane 0 broke"));
	tcp()->drop_lane(pair.source.endpoint, 0);
	assert_int_equal(tcp()->fence_lane(pair.destination.endpoint, 0, NULL), 0);
	pair.n_lanes = 1; /* what is left, by another number */
	for (unsigned i = 0; i < N_SLICES; i++) {
		for (uint64_t at = 0; at < slice_bytes[i]; at += write.length_bytes) {
			uint64_t left = slice_bytes[i] - at;

			write = (struct transport_write){
				i, left < WRITE_MAX ? (uint32_t)left : WRITE_MAX, at
			};
			assert_int_equal(tcp()->post(pair.source.endpoint, 1, &write, 1, NULL), 0);
		}
	}
	assert_int_equal(tcp()->token(pair.source.endpoint, 1, TOKEN, NULL), 0);
	assert_int_equal(tcp()->await_tokens(pair.destination.endpoint, tokens, LONG_NS, NULL), 0);
	/* With a token for it, the lost one is missed. */
	tokens[0] = TOKEN;
	assert_true(tcp()->await_tokens(pair.destination.endpoint, tokens, LONG_NS, &error) < 0);
	assert_non_null(strstr(error.text, "lane 0"));
	assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
	assert_same_memory(&pair);
	pair_fini(&pair);
}

static void lose_at_source(struct pair *pair)
{
	tcp()->drop_lane(pair->source.endpoint, 0);
}

/* As a receiver ends that cannot go on: the source is to notice. */
static void lose_at_destination(struct pair *pair)
{
	tcp()->fence_lane(pair->destination.endpoint, 0, NULL);
}

static void test_a_lane_is_lost(void **unused)
{
	(void)unused;
	lose_lane(lose_at_source);
	lose_lane(lose_at_destination);
}

/* A lane whose receiver cannot go on is of no use: its source is to notice. */
static void test_a_receiver_that_ends_closes(void **unused)
{
	struct pair pair;
	char byte;
	struct stream *stream;

	(void)unused;
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_header(stream, N_SLICES, PAGE, 0); /* there is no such slice */
	assert_int_equal(stream_receive(stream, &byte, 1, LONG_NS, -1), -ECONNRESET);
	stream_free(stream);
	pair_fini(&pair);
}

static void test_the_source_dies(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	struct stream *stream;

	(void)unused;
	pair_listen(&pair, 1);
	accept_begin(&pair);
	stream = join_raw(&pair, 0);
	assert_int_equal(accept_end(&pair), 0);
	send_header(stream, 2, PAGE, 0); /* in the middle of a write */
	send_raw(stream, "abc", 3);
	stream_free(stream);
	assert_int_equal(await_tokens(&pair, TOKEN, &error), -ECONNRESET);
	assert_non_null(strstr(error.text, "lane 0"));
	pair_fini(&pair);
}

static int post_until_it_fails(struct pair *pair, struct ramlift_error *error)
{
	struct transport_write write = { 1, WRITE_MAX, 0 };
	uint64_t end_ns = LONG_NS;
	int ret = 0;

	while (!ret && clock_now_ns() < end_ns)
		ret = tcp()->post(pair->source.endpoint, 0, &write, 1, error);
	return ret;
}

static void test_the_destination_dies(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	int ret;

	(void)unused;
	pair_init(&pair, 1);
	tcp()->close(pair.destination.endpoint);
	pair.destination.endpoint = NULL;
	ret = post_until_it_fails(&pair, &error);
	assert_true(ret == -EPIPE || ret == -ECONNRESET);
	assert_int_equal(error.code, ret);
	assert_true(tcp()->token(pair.source.endpoint, 0, TOKEN, &error) < 0);
	pair_fini(&pair);
}

/* A destination that has joined the lane and then reads nothing. */
static void listen_deaf(struct pair *pair, int *listener)
{
	pair_listen(pair, 1);
	tcp()->close(pair->destination.endpoint);
	pair->destination.endpoint = NULL;
	address_set_port(&pair->address, 0);
	assert_int_equal(address_listen(&pair->address, listener, NULL), 0);
	assert_int_equal(address_of_socket(*listener, &pair->address), 0);
}

struct deaf {
	int listener;
	struct stream *stream;
};

static void *welcome_thread(void *argument)
{
	struct deaf *deaf = argument;
	struct hello hello;
	int fd;

	deaf->stream = NULL;
	if (wait_for_fd(deaf->listener, POLLIN, LONG_NS, -1))
		return NULL;
	fd = accept4(deaf->listener, NULL, NULL, SOCK_NONBLOCK);
	if (!stream_accept_lane(fd, secret, LONG_NS, -1, &deaf->stream, NULL) &&
	    !stream_receive(deaf->stream, &hello, sizeof(hello), LONG_NS, -1))
		stream_send(deaf->stream, "\1", 1, LONG_NS, -1);
	return NULL;
}

static void connect_deaf(struct pair *pair, struct deaf *deaf)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, welcome_thread, deaf), 0);
	connect_source(pair);
	pthread_join(thread, NULL);
}

static void test_a_peer_that_does_not_read(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	struct deaf deaf;

	(void)unused;
	listen_deaf(&pair, &deaf.listener);
	pair.source.params.io_timeout_ns = 200 * NS_PER_MS;
	connect_deaf(&pair, &deaf);
	assert_int_equal(post_until_it_fails(&pair, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.text, "200 ms"));
	/* On a path as short as this one the kernel may not pile up megabytes. */
	assert_in_range(tcp()->in_flight_bytes(pair.source.endpoint, 0), 1, 1 << 20);
	close(deaf.listener);
	stream_free(deaf.stream);
	pair_fini(&pair);
}

static void test_abort_ends_a_post_that_blocks(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;
	pthread_t thread;
	struct deaf deaf;

	(void)unused;
	listen_deaf(&pair, &deaf.listener);
	connect_deaf(&pair, &deaf);
	assert_int_equal(pthread_create(&thread, NULL, abort_soon, pair.source.endpoint), 0);
	assert_int_equal(post_until_it_fails(&pair, &error), -ECANCELED);
	pthread_join(thread, NULL);
	/* And later ones. */
	assert_int_equal(tcp()->token(pair.source.endpoint, 0, TOKEN, &error), -ECANCELED);
	close(deaf.listener);
	stream_free(deaf.stream);
	pair_fini(&pair);
}

static void test_abort_ends_waiting_for_tokens(void **unused)
{
	struct pair pair;
	pthread_t thread;
	int ret;

	(void)unused;
	pair_init(&pair, 2);
	assert_int_equal(pthread_create(&thread, NULL, abort_soon, pair.destination.endpoint), 0);
	/* The lanes break by it, and which of the two is seen first is open. */
	ret = await_tokens(&pair, TOKEN, NULL);
	assert_true(ret == -ECANCELED || ret == -ECONNRESET);
	pthread_join(thread, NULL);
	assert_true(await_tokens(&pair, TOKEN, NULL) < 0);
	pair_fini(&pair);
}

static void test_close_in_any_state(void **unused)
{
	struct pair pair;

	(void)unused;
	tcp()->close(NULL);
	pair_listen(&pair, 3);
	pair_fini(&pair);
	pair_init(&pair, 3);
	pair_fini(&pair);
	pair_init(&pair, 3);
	assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
	assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
	tcp()->abort(pair.destination.endpoint);
	pair_fini(&pair);
	pair_init(&pair, 3);
	tcp()->abort(pair.source.endpoint);
	tcp()->abort(pair.source.endpoint);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_written_after_the_fence),
		cmocka_unit_test(test_a_lane_is_lost),
		cmocka_unit_test(test_a_receiver_that_ends_closes),
		cmocka_unit_test(test_the_source_dies),
		cmocka_unit_test(test_the_destination_dies),
		cmocka_unit_test(test_a_peer_that_does_not_read),
		cmocka_unit_test(test_abort_ends_a_post_that_blocks),
		cmocka_unit_test(test_abort_ends_waiting_for_tokens),
		cmocka_unit_test(test_close_in_any_state),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, lanes_plain, NULL);

	return failed + cmocka_run_group_tests_name("TLS", tests, lanes_under_tls, NULL);
}
