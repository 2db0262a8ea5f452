/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes in at a destination's port: strangers that are silent, too many or talk nonsense, and
 * offers that come too early or too many. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/address.h"
#include "core/security.h"
#include "core/stream.h"
#include "door.h"
#include "tests/support/cmocka_all.h"

/* ---- strangers ---- */

static void test_the_silent_hold_up_nobody(void **unused)
{
	int strangers[40];
	struct door door;

	(void)unused;
	door_init(&door);
	door.pair.destination_config.max_strangers = 3;
	door.pair.destination_config.timeouts.authenticate_ns = SOON_NS;
	pair_make(&door.pair);
	for (unsigned i = 0; i < 40; i++)
		strangers[i] = knock(&door);
	assert_moves(&door);
	/* Those who came first have gone; the last of them still stand there. */
	assert_int_equal(await_turned_away(&door, 38).code, -EBUSY);
	assert_int_equal(door.n_turned_away, 38);
	assert_memory_equal(door.peer, "127.0.0.1:", 10);
	for (unsigned i = 0; i < 40; i++)
		close(strangers[i]);
	door_fini(&door);
}

static void test_silence_has_an_end(void **unused)
{
	struct door door;
	int stranger;
	char byte;

	(void)unused;
	door_init(&door);
	door.pair.destination_config.timeouts.authenticate_ns = 200 * NS_PER_MS;
	pair_make(&door.pair);
	stranger = knock(&door);
	assert_int_equal(await_turned_away(&door, 1).code, -ETIMEDOUT);
	while (!wait_for_fd(stranger, POLLIN, clock_now_ns() + SOON_NS, -1) &&
	       recv(stranger, &byte, 1, 0) > 0)
		; /* until it is closed: words for those who would hear them */
	close(stranger);
	assert_moves(&door);
	door_fini(&door);
}

static void test_the_port_closes_at_once(void **unused)
{
	int strangers[5];
	struct door door;
	uint64_t begin_ns;

	(void)unused;
	door_init(&door);
	door.pair.destination_config.timeouts.authenticate_ns = SOON_NS;
	pair_make(&door.pair);
	for (unsigned i = 0; i < 5; i++)
		strangers[i] = knock(&door);
	begin_ns = clock_now_ns();
	ramlift_destination_free(door.pair.destination);
	door.pair.destination = NULL;
	assert_true(clock_now_ns() - begin_ns < SOON_NS / 2);
	for (unsigned i = 0; i < 5; i++)
		close(strangers[i]);
	door_fini(&door);
}

struct nonsense {
	const char *bytes;
	size_t n_bytes;
	const char *word;
};

#define FRAME(type, n) "\x52\x03" type "\0\0\0\0" n

static const struct nonsense nonsense[] = {
	{ "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27, "" },
	{ FRAME("\x09", "\x14") "0123456789abcdef\0\0\0\1", 28, "COMMIT" },
	{ FRAME("\x07", "\0"), 8, "FINAL" },
	{ FRAME("\x04", "\6") "\0\0\0\5\0\0", 14, "ABORT" },
	{ FRAME("\x11", "\1") "\0", 9, "ANSWER" },
	{ FRAME("\x01", "\3") "abc", 11, "OFFER cannot" },
	{ FRAME("\x10", "\3") "abc", 11, "ASK cannot" },
	{ FRAME("\x06", "\3") "abc", 11, "" },
	{ FRAME("\x7f", "\0"), 8, "" },
};

static void test_nonsense_is_turned_away(void **unused)
{
	const struct ramlift_security plain = { 0 };
	struct security *security;
	struct door door;

	(void)unused;
	door_init(&door);
	pair_make(&door.pair);
	assert_int_equal(security_new(&plain, &security, NULL), 0);
	for (unsigned i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		uint64_t soon_ns = clock_now_ns() + SOON_NS;
		int fd = knock(&door);
		struct stream *stranger;
		struct ramlift_error why;

		/* The first has not even heard of the handshake. */
		if (i)
			assert_int_equal(stream_connect(fd, security, "127.0.0.1", soon_ns, -1,
							&stranger, NULL),
					 0);
		assert_int_equal(send_all(fd, nonsense[i].bytes, nonsense[i].n_bytes, soon_ns, -1),
				 0);
		why = await_turned_away(&door, i + 1);
		if (why.code != -EPROTO || !strstr(why.text, nonsense[i].word))
			fail_msg("%u: %d, '%s'", i, why.code, why.text);
		if (i)
			stream_free(stranger);
		else
			close(fd);
	}
	security_free(security);
	assert_moves(&door);
	assert_int_equal(door.pair.destination_guest.creates, 1);
	door_fini(&door);
}

/* ---- offers ---- */

static void *late_destination(void *argument)
{
	struct pair *pair = argument;

	usleep(300000);
	pair->destination_ret =
		ramlift_destination_run(pair->destination, &pair->destination_error);
	return NULL;
}

/* The source is there before the destination waits for it. */
static void test_an_early_offer_waits(void **unused)
{
	struct door door;
	struct pair *pair = &door.pair;
	int ret;

	(void)unused;
	door_init(&door);
	pair_make(&door.pair);
	assert_int_equal(pthread_create(&pair->thread, NULL, late_destination, pair), 0);
	ret = ramlift_source_run(pair->source, &pair->source_error);
	pair_join(pair);
	pair_assert_moved(pair, ret);
	door_fini(&door);
}

static void test_an_early_offer_does_not_wait_for_ever(void **unused)
{
	struct door door;
	struct pair *pair = &door.pair;

	(void)unused;
	door_init(&door);
	pair->destination_config.timeouts.authenticate_ns = 200 * NS_PER_MS;
	pair_make(&door.pair);
	assert_int_equal(ramlift_source_run(pair->source, &pair->source_error), -EREMOTEIO);
	assert_non_null(strstr(pair->source_error.text, "busy"));
	assert_int_equal(await_turned_away(&door, 1).code, -EBUSY);
	assert_false(pair->destination_guest.created);
	door_fini(&door);
}

/* Another guest of that host wants to come, too. */
static int run_other_source(struct door *door, const char *name, struct ramlift_error *error)
{
	struct ramlift_source_config config = door->pair.source_config;
	struct ramlift_source *other;
	struct fake_guest guest;
	int ret;

	fake_guest_init(&guest, GUEST_BYTES);
	config.guest_name = name;
	config.guest = &guest;
	config.dirty_source = &guest;
	config.regions = guest.regions;
	assert_int_equal(ramlift_source_new(&config, &other, NULL), 0);
	ret = ramlift_source_run(other, error);
	ramlift_source_free(other);
	fake_guest_fini(&guest);
	return ret;
}

static void *run_source(void *argument)
{
	struct pair *pair = argument;

	ramlift_source_run(pair->source, &pair->source_error);
	return NULL;
}

static void test_one_at_a_time(void **unused)
{
	struct ramlift_error error;
	struct ramlift_stats stats;
	struct door door;
	struct pair *pair = &door.pair;
	pthread_t source;

	(void)unused;
	door_init(&door);
	pair->source_config.bandwidth_bytes_per_s = 1 << 20;
	pair_make(&door.pair);
	pair_start_destination(pair);
	assert_int_equal(pthread_create(&source, NULL, run_source, pair), 0);
	do {
		usleep(1000);
		ramlift_destination_stats(pair->destination, &stats);
	} while (stats.phase != RAMLIFT_PHASE_STREAM);
	assert_int_equal(run_other_source(&door, "other", &error), -EREMOTEIO);
	assert_non_null(strstr(error.text, "busy"));
	assert_int_equal(await_turned_away(&door, 1).code, -EBUSY);
	ramlift_source_cancel(pair->source);
	pthread_join(source, NULL);
	pair_join(pair);
	pair_assert_stayed(pair);
	door_fini(&door);
}

static void *run_twice(void *argument)
{
	struct pair *pair = argument;

	assert_int_equal(ramlift_destination_run(pair->destination, NULL), -ECANCELED);
	pair->destination_ret =
		ramlift_destination_run(pair->destination, &pair->destination_error);
	return NULL;
}

static void dawdle_over_discard(void *guest)
{
	usleep(1500000);
	fake_guest_ops.discard(guest);
}

/* While the destination is still busy with clearing away what was cancelled. */
static void test_again_at_once(void **unused)
{
	struct ramlift_guest_ops slow = fake_guest_ops;
	struct ramlift_stats stats;
	struct door door;
	struct pair *pair = &door.pair;
	pthread_t source;
	int ret;

	(void)unused;
	door_init(&door);
	slow.discard = dawdle_over_discard;
	pair->destination_config.guest_ops = &slow;
	pair->source_config.bandwidth_bytes_per_s = 1 << 20;
	pair_make(&door.pair);
	assert_int_equal(pthread_create(&pair->thread, NULL, run_twice, pair), 0);
	assert_int_equal(pthread_create(&source, NULL, run_source, pair), 0);
	do {
		usleep(1000);
		ramlift_destination_stats(pair->destination, &stats);
	} while (stats.phase != RAMLIFT_PHASE_STREAM);
	ramlift_source_cancel(pair->source);
	pthread_join(source, NULL);
	ramlift_source_free(pair->source);
	pair->source_guest.starts = 0;
	pair->source_guest.stops = 0;
	pair->source_config.bandwidth_bytes_per_s = 0;
	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	ret = ramlift_source_run(pair->source, &pair->source_error);
	if (ret) /* nobody else comes */
		ramlift_destination_cancel(pair->destination);
	pair_join(pair);
	pair_assert_moved(pair, ret);
	door_fini(&door);
}

/* Its guest runs; whoever asks is heard, but there is no place for another guest. */
static void test_none_after_the_last(void **unused)
{
	struct ramlift_error error;
	struct door door;

	(void)unused;
	door_init(&door);
	door.pair.destination_config.timeouts.authenticate_ns = SOON_NS;
	pair_make(&door.pair);
	assert_moves(&door);
	assert_int_equal(run_other_source(&door, "other", &error), -EREMOTEIO);
	assert_non_null(strstr(error.text, "busy"));
	door_fini(&door);
}

static void test_after_a_cancel_nobody_waits(void **unused)
{
	struct door door;
	struct pair *pair = &door.pair;

	(void)unused;
	door_init(&door);
	pair->destination_config.timeouts.authenticate_ns = SOON_NS;
	pair_make(&door.pair);
	pair_start_destination(pair);
	usleep(20000);
	assert_int_equal(ramlift_destination_cancel(pair->destination), 0);
	assert_int_equal(ramlift_source_run(pair->source, &pair->source_error), -EREMOTEIO);
	pair_join(pair);
	assert_int_equal(pair->destination_ret, -ECANCELED);
	pair_assert_stayed(pair);
	door_fini(&door);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_silent_hold_up_nobody),
		cmocka_unit_test(test_silence_has_an_end),
		cmocka_unit_test(test_the_port_closes_at_once),
		cmocka_unit_test(test_nonsense_is_turned_away),
		cmocka_unit_test(test_an_early_offer_waits),
		cmocka_unit_test(test_an_early_offer_does_not_wait_for_ever),
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_again_at_once),
		cmocka_unit_test(test_none_after_the_last),
		cmocka_unit_test(test_after_a_cancel_nobody_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
