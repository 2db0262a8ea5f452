/* SPDX-License-Identifier: Apache-2.0 */
/* COMMITs that are not the session's or come too late, and offers that were made before. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/destination.h"
#include "core/source.h"
#include "handover_rig.h"
#include "tests/support/cmocka_all.h"

/* ---- COMMITs ---- */

static void become_another_session(struct rig *self)
{
	self->pair.source->session.id[0] ^= 1;
}

static void become_another_generation(struct rig *self)
{
	self->pair.source->session.generation++;
}

static void test_a_commit_of_another_session(void **unused)
{
	(void)unused;
	rig->on_save = become_another_session;
	assert_int_equal(pair_run(&rig->pair), -EREMOTEIO);
	assert_non_null(strstr(rig->pair.source_error.text, "another session"));
	assert_int_equal(rig->pair.destination_ret, -EPROTO);
	assert_stayed_running();
	assert_int_equal(word_there(), JOURNAL_DISCARDED);
}

static void test_a_commit_of_another_generation(void **unused)
{
	(void)unused;
	rig->on_save = become_another_generation;
	assert_int_equal(pair_run(&rig->pair), -EREMOTEIO);
	assert_non_null(strstr(rig->pair.source_error.text, "another session"));
	assert_stayed_running();
	assert_int_equal(word_there(), JOURNAL_DISCARDED);
}

/* Between the journal's COMMIT and its being sent. */
static void dawdle(void *context, const struct ramlift_stats *stats)
{
	(void)context;
	if (stats->phase != RAMLIFT_PHASE_COMMITTED)
		return;
	while (word_there() != JOURNAL_DISCARDED)
		usleep(1000);
}

/* The destination has waited long enough; a COMMIT that comes then starts nothing, and the source
 * hears that, or asks. */
static void test_a_commit_that_comes_too_late(void **unused)
{
	struct pair *pair = &rig->pair;
	int ret;

	(void)unused;
	pair->source_config.progress = dawdle;
	pair->destination_config.timeouts.hand_over_ns = 300 * NS_PER_MS;
	ret = pair_run(pair);
	if (ret == -EINPROGRESS)
		ret = ramlift_source_settle(pair->source, &pair->source_error);
	ramlift_source_stats(pair->source, &pair->source_stats);
	assert_int_equal(ret, -EREMOTEIO);
	assert_int_equal(pair->destination_ret, -ETIMEDOUT);
	assert_stayed_running();
	assert_int_equal(word_here(), JOURNAL_REFUSED);
}

/* ---- offers ---- */

static void test_an_offer_is_good_once(void **unused)
{
	uint8_t id[SESSION_ID_BYTES];
	struct pair *pair = &rig->pair;

	(void)unused;
	pair->destination_guest.fail_create = -ENOMEM;
	assert_int_equal(pair_run(pair), -EREMOTEIO);
	pair->destination_guest.fail_create = 0;
	memcpy(id, pair->source->session.id, sizeof(id));
	ramlift_source_free(pair->source);
	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	memcpy(pair->source->session.id, id, sizeof(id));
	pair->source->session.generation = 1;
	pair_start_destination(pair);
	rig->checks[SIDE_DESTINATION][0] = '\0';
	/* Its own journal would refuse it as well: that session has another number. */
	pair->source->config.state_dir = rig->there;
	assert_int_equal(ramlift_source_run(pair->source, &pair->source_error), -EREMOTEIO);
	assert_non_null(strstr(pair->source_error.text, "has been here before (DISCARDED)"));
	pair_join(pair);
	assert_int_equal(pair->destination_ret, -EEXIST);
	assert_string_equal(rig->checks[SIDE_DESTINATION], "security protocol regions replay! ");
	assert_int_equal(word_there(), JOURNAL_DISCARDED); /* still the first one's */
	assert_int_equal(pair->destination_guest.creates, 1);
	pair->source->config.state_dir = pair->state_dir;
	assert_moves_now();
}

/* Another process receives that guest with the same state directory. */
static void test_a_guest_that_is_received_elsewhere(void **unused)
{
	int lock_fd;

	(void)unused;
	assert_int_equal(journal_lock(rig->there, "fake", SIDE_DESTINATION, &lock_fd, NULL), 0);
	assert_int_equal(pair_run(&rig->pair), -EREMOTEIO);
	assert_int_equal(rig->pair.destination_ret, -EBUSY);
	assert_int_equal(word_there(), JOURNAL_EVENT_COUNT);
	assert_stayed_running();
	close(lock_fd);
	assert_moves_now();
}

/* Sessions of that guest whose process fell are given up before a new one begins. */
static void test_the_fallen_are_given_up(void **unused)
{
	struct journal_entry fallen = {
		.event = JOURNAL_RECEIVE,
		.side = SIDE_DESTINATION,
		.session_id = "fallen",
		.generation = 1,
		.peer = "192.0.2.1:1",
	};
	struct journal_history history;

	(void)unused;
	assert_int_equal(journal_append(rig->there, "fake", &fallen, NULL), 0);
	pair_assert_moved(&rig->pair, pair_run(&rig->pair));
	assert_int_equal(journal_read(rig->there, "fake", &history, NULL), 0);
	assert_int_equal(journal_find(&history, SIDE_DESTINATION, fallen.session_id)->event,
			 JOURNAL_DISCARDED);
	assert_int_equal(history.n_sessions, 2);
	journal_history_fini(&history);
}

static void test_a_guest_has_one_session_here(void **unused)
{
	struct pair *pair = &rig->pair;
	int lock_fd;

	(void)unused;
	pair_start(pair);
	assert_int_equal(journal_lock(pair->state_dir, "fake", SIDE_SOURCE, &lock_fd, NULL), 0);
	assert_int_equal(ramlift_source_run(pair->source, &pair->source_error), -EBUSY);
	close(lock_fd);
	assert_int_equal(ramlift_destination_cancel(pair->destination), 0);
	pair_join(pair);
	assert_stayed_running();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_commit_of_another_session),
		TEST(test_a_commit_of_another_generation),
		TEST(test_a_commit_that_comes_too_late),
		TEST(test_an_offer_is_good_once),
		TEST(test_a_guest_that_is_received_elsewhere),
		TEST(test_the_fallen_are_given_up),
		TEST(test_a_guest_has_one_session_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
