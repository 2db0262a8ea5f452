/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes in at a destination's port: strangers that are silent, too many or talk nonsense,
 * offers that come too early or too many, and questions about sessions in every state. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/address.h"
#include "core/destination.h"
#include "core/doubt.h"
#include "core/journal.h"
#include "session_pair.h"
#include "tests/support/cmocka_all.h"

#define SOON_NS (60 * NS_PER_S) /* against hangs only */

/* Who was turned away, and why. */
struct door {
	struct pair pair;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned n_turned_away;
	struct ramlift_error last;
	char peer[80];
};

static void turned_away(void *context, const char *peer, const struct ramlift_error *why)
{
	struct door *door = context;

	pthread_mutex_lock(&door->lock);
	door->n_turned_away++;
	door->last = *why;
	snprintf(door->peer, sizeof(door->peer), "%s", peer);
	pthread_cond_broadcast(&door->changed);
	pthread_mutex_unlock(&door->lock);
}

static void door_init(struct door *door)
{
	memset(door, 0, sizeof(*door));
	pthread_mutex_init(&door->lock, NULL);
	clock_cond_init(&door->changed);
	pair_init(&door->pair, memory_transport());
	door->pair.destination_config.turned_away = turned_away;
	door->pair.destination_config.progress_context = door;
}

/* The destination is there; nobody waits for a guest yet. */
static void door_open(struct door *door)
{
	struct pair *pair = &door->pair;

	assert_int_equal(ramlift_destination_new(&pair->destination_config, &pair->destination,
						 &pair->destination_error),
			 0);
	snprintf(pair->to, sizeof(pair->to), "127.0.0.1:%u",
		 ramlift_destination_port(pair->destination));
	assert_int_equal(
		ramlift_source_new(&pair->source_config, &pair->source, &pair->source_error), 0);
}

static void door_fini(struct door *door)
{
	pair_fini(&door->pair);
	pthread_mutex_destroy(&door->lock);
	pthread_cond_destroy(&door->changed);
}

/* Until so many were turned away; what the last one was told. */
static struct ramlift_error await_turned_away(struct door *door, unsigned n)
{
	uint64_t deadline_ns = clock_now_ns() + SOON_NS;
	struct ramlift_error last;

	pthread_mutex_lock(&door->lock);
	while (door->n_turned_away < n)
		assert_int_equal(clock_wait(&door->changed, &door->lock, deadline_ns), 0);
	last = door->last;
	pthread_mutex_unlock(&door->lock);
	return last;
}

static int knock(const struct door *door)
{
	struct address address;
	int fd;

	assert_int_equal(address_parse(door->pair.to, 0, &address, NULL), 0);
	assert_int_equal(address_connect(&address, clock_now_ns() + SOON_NS, -1, &fd, NULL), 0);
	return fd;
}

static void assert_moves(struct door *door)
{
	struct pair *pair = &door->pair;
	int ret;

	pair_start_destination(pair);
	ret = ramlift_source_run(pair->source, &pair->source_error);
	pair_join(pair);
	pair_assert_moved(pair, ret);
}

/* ---- strangers ---- */

static void test_the_silent_hold_up_nobody(void **unused)
{
	int strangers[40];
	struct door door;

	(void)unused;
	door_init(&door);
	door.pair.destination_config.max_strangers = 3;
	door.pair.destination_config.timeouts.authenticate_ns = SOON_NS;
	door_open(&door);
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
	door_open(&door);
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
	door_open(&door);
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
	door_open(&door);
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
	door_open(&door);
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
	door_open(&door);
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
	door_open(&door);
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
	door_open(&door);
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
	door_open(&door);
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
	door_open(&door);
	pair_start_destination(pair);
	usleep(20000);
	assert_int_equal(ramlift_destination_cancel(pair->destination), 0);
	assert_int_equal(ramlift_source_run(pair->source, &pair->source_error), -EREMOTEIO);
	pair_join(pair);
	assert_int_equal(pair->destination_ret, -ECANCELED);
	pair_assert_stayed(pair);
	door_fini(&door);
}

/* ---- questions ---- */

static const uint8_t session_id[SESSION_ID_BYTES] = "0123456789abcde";
static const uint8_t later_id[SESSION_ID_BYTES] = "a later session";

static void note(const struct door *door, enum journal_event event, const uint8_t *id)
{
	struct journal_entry entry = {
		.event = event,
		.side = SIDE_DESTINATION,
		.generation = 4,
		.peer = "192.0.2.1:7",
	};

	memcpy(entry.session_id, id, SESSION_ID_BYTES);
	assert_int_equal(journal_append(door->pair.state_dir, "db", &entry, NULL), 0);
}

static int ask_as(const struct door *door, const char *name, uint32_t generation,
		  enum answer_word *word, struct ramlift_error *error)
{
	const struct ramlift_security plain = { 0 };
	struct question question = {
		.host = "127.0.0.1",
		.timeouts = &door->pair.source_config.timeouts,
		.interrupt_fd = -1,
		.ask = { .generation = generation },
	};
	struct security *security;
	struct address peer;
	int ret;

	memcpy(question.ask.session_id, session_id, SESSION_ID_BYTES);
	strcpy(question.ask.name, name);
	assert_int_equal(address_parse(door->pair.to, 0, &peer, NULL), 0);
	assert_int_equal(security_new(&plain, &security, NULL), 0);
	question.peer = &peer;
	question.security = security;
	ret = doubt_ask(&question, word, error);
	security_free(security);
	return ret;
}

static enum answer_word ask(const struct door *door)
{
	struct ramlift_error error = { 0 };
	enum answer_word word = ANSWER_COUNT;

	if (ask_as(door, "db", 4, &word, &error))
		fail_msg("%s", error.text);
	return word;
}

static enum journal_event last_word(const struct door *door)
{
	struct journal_history history;
	enum journal_event event;

	assert_int_equal(journal_read(door->pair.state_dir, "db", &history, NULL), 0);
	event = journal_find(&history, SIDE_DESTINATION, session_id)->event;
	journal_history_fini(&history);
	return event;
}

static int take_lock(const struct door *door)
{
	int lock_fd;

	assert_int_equal(journal_lock(door->pair.state_dir, "db", SIDE_DESTINATION, &lock_fd, NULL),
			 0);
	return lock_fd;
}

static void test_asked_of_a_session_that_fell(void **unused)
{
	struct door door;
	int lock_fd;

	(void)unused;
	door_init(&door);
	door_open(&door);
	note(&door, JOURNAL_RECEIVE, session_id);
	lock_fd = take_lock(&door);
	assert_int_equal(ask(&door), ANSWER_PENDING); /* somebody has it */
	assert_int_equal(last_word(&door), JOURNAL_RECEIVE);
	close(lock_fd);
	assert_int_equal(ask(&door), ANSWER_NEVER);
	assert_int_equal(last_word(&door), JOURNAL_DISCARDED); /* said before it was answered */
	lock_fd = take_lock(&door);			       /* answering has let it go */
	close(lock_fd);
	assert_int_equal(ask(&door), ANSWER_NEVER);
	door_fini(&door);
}

static void test_asked_of_a_session_that_has_ended(void **unused)
{
	struct door door;
	int lock_fd;

	(void)unused;
	door_init(&door);
	door_open(&door);
	note(&door, JOURNAL_RECEIVE, session_id);
	note(&door, JOURNAL_STARTED, session_id);
	lock_fd = take_lock(&door);
	assert_int_equal(ask(&door), ANSWER_PENDING); /* it may fail to start */
	note(&door, JOURNAL_RECEIVE, later_id);
	assert_int_equal(ask(&door), ANSWER_STARTED); /* the lock is the later one's */
	close(lock_fd);
	assert_int_equal(ask(&door), ANSWER_STARTED);
	assert_int_equal(last_word(&door), JOURNAL_STARTED);
	/* It could not be started after all: the last word counts. */
	note(&door, JOURNAL_DISCARDED, session_id);
	assert_int_equal(ask(&door), ANSWER_NEVER);
	door_fini(&door);
}

static void test_asked_of_what_is_not_there(void **unused)
{
	struct ramlift_error error;
	enum answer_word word = ANSWER_COUNT;
	struct door door;
	char path[80];

	(void)unused;
	door_init(&door);
	door_open(&door);
	assert_int_equal(ask(&door), ANSWER_UNKNOWN);
	snprintf(path, sizeof(path), "%s/db.lock", door.pair.state_dir);
	assert_int_equal(access(path, F_OK), -1); /* no files at a stranger's word */
	note(&door, JOURNAL_RECEIVE, later_id);
	assert_int_equal(ask(&door), ANSWER_UNKNOWN);
	note(&door, JOURNAL_RECEIVE, session_id);
	assert_int_equal(ask_as(&door, "db", 5, &word, &error), -EREMOTEIO);
	assert_non_null(strstr(error.text, "generation 4, not 5"));
	assert_int_equal(await_turned_away(&door, 1).code, -EPROTO);
	assert_int_equal(ask_as(&door, "../db", 4, &word, &error), -EREMOTEIO);
	assert_int_equal(await_turned_away(&door, 2).code, -EINVAL);
	assert_int_equal(word, ANSWER_COUNT);
	assert_int_equal(last_word(&door), JOURNAL_RECEIVE);
	door_fini(&door);
}

/* Without room for DISCARDED there is no NEVER. */
static void test_asked_when_nothing_can_be_written(void **unused)
{
	struct ramlift_error error;
	enum answer_word word = ANSWER_COUNT;
	char path[80], away[80];
	struct door door;

	(void)unused;
	door_init(&door);
	door_open(&door);
	snprintf(path, sizeof(path), "%s/db.journal", door.pair.state_dir);
	snprintf(away, sizeof(away), "%s/away", door.pair.state_dir);
	note(&door, JOURNAL_RECEIVE, session_id);
	assert_int_equal(rename(path, away), 0);
	assert_int_equal(symlink("/dev/full", path), 0);
	assert_int_equal(ask_as(&door, "db", 4, &word, &error), -EREMOTEIO);
	assert_int_equal(word, ANSWER_COUNT);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rename(away, path), 0);
	assert_int_equal(ask(&door), ANSWER_NEVER);
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
		cmocka_unit_test(test_asked_of_a_session_that_fell),
		cmocka_unit_test(test_asked_of_a_session_that_has_ended),
		cmocka_unit_test(test_asked_of_what_is_not_there),
		cmocka_unit_test(test_asked_when_nothing_can_be_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
