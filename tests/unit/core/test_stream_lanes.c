/* SPDX-License-Identifier: Apache-2.0 */
/* A session's lanes: the secret that its control channel gives them, and whom it lets in. */
#include <errno.h>
#include <string.h>

#include "tests/unit/core/stream_rig.h"

struct lane {
	int fd;
	const uint8_t *secret;
	struct stream *stream;
	int ret;
	struct ramlift_error error;
};

static void *lane_thread(void *argument)
{
	struct lane *lane = argument;

	lane->ret = stream_accept_lane(lane->fd, lane->secret, LONG_NS, NEVER, &lane->stream,
				       &lane->error);
	return NULL;
}

static void open_lanes(struct lane lanes[2], const uint8_t *a, const uint8_t *b)
{
	pthread_t thread;
	int fds[2];

	rig_sockets(fds);
	memset(lanes, 0, 2 * sizeof(lanes[0]));
	lanes[0].fd = fds[0];
	lanes[1].fd = fds[1];
	lanes[1].secret = b;
	assert_int_equal(pthread_create(&thread, NULL, lane_thread, &lanes[1]), 0);
	lanes[0].ret = stream_connect_lane(lanes[0].fd, a, LONG_NS, NEVER, &lanes[0].stream,
					   &lanes[0].error);
	pthread_join(thread, NULL);
}

static void test_lanes(void **unused)
{
	uint8_t secret[STREAM_SECRET_BYTES] = "one", other[STREAM_SECRET_BYTES] = "another";
	struct lane lanes[2];

	(void)unused;
	for (unsigned plain = 0; plain < 2; plain++) {
		open_lanes(lanes, plain ? NULL : secret, plain ? NULL : secret);
		assert_int_equal(lanes[0].ret, 0);
		assert_int_equal(lanes[1].ret, 0);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(stream_is_plain(lanes[i].stream), plain);
			stream_free(lanes[i].stream);
		}
	}
	open_lanes(lanes, secret, other);
	assert_int_equal(lanes[0].ret, -EACCES);
	assert_int_equal(lanes[1].ret, -EACCES);
	assert_null(lanes[0].stream);
	assert_null(lanes[1].stream);
}

/* ---- secrets ---- */

static void get_secrets(struct end ends[2], uint8_t secrets[2][STREAM_SECRET_BYTES])
{
	uint8_t again[STREAM_SECRET_BYTES];

	rig_open(ends);
	for (unsigned i = 0; i < 2; i++)
		assert_true(stream_secret(ends[i].stream, "tcp lanes", secrets[i]));
	assert_memory_equal(secrets[0], secrets[1], STREAM_SECRET_BYTES);
	assert_true(stream_secret(ends[0].stream, "tcp lanes", again));
	assert_memory_equal(secrets[0], again, STREAM_SECRET_BYTES);
	assert_true(stream_secret(ends[0].stream, "something else", again));
	assert_memory_not_equal(secrets[0], again, STREAM_SECRET_BYTES);
	rig_free(ends);
}

static void test_secrets(void **unused)
{
	uint8_t first[2][STREAM_SECRET_BYTES], second[2][STREAM_SECRET_BYTES];
	struct end ends[2];

	(void)unused;
	for (unsigned key = 0; key < 2; key++) {
		for (unsigned session = 0; session < 2; session++) {
			rig_ends(ends);
			if (key) {
				rig_use_key(&ends[0], "key");
				rig_use_key(&ends[1], "key");
			}
			get_secrets(ends, session ? second : first);
		}
		assert_memory_not_equal(first, second, STREAM_SECRET_BYTES);
	}
	rig_ends(ends);
	rig_use_nothing(&ends[0]);
	rig_use_nothing(&ends[1]);
	rig_open(ends);
	assert_false(stream_secret(ends[0].stream, "tcp lanes", first[0]));
	rig_free(ends);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lanes),
		cmocka_unit_test(test_secrets),
	};

	return cmocka_run_group_tests(tests, rig_make, rig_remove);
}
