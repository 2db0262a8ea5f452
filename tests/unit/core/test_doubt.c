/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that were handed over without an answer: who says whose they are, what is done then, and
 * what is not done before. The destination falls in a process of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/journal.h"
#include "forked_destination.h"
#include "session_pair.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/full_disk.h"

/* A source in doubt, and what has become of its destination. */
struct rig {
	struct pair pair; /* its destination comes up after the one that fell */
	struct forked fallen;
	pthread_t thread;
	int settle_ret;
	struct ramlift_error settle_error;
	/* the fence */
	int fence_calls;
	enum ramlift_owner fence_says;
	int fence_from; /* that call on */
	struct ramlift_doubt fence_saw;
};

static enum ramlift_owner fence(void *context, const struct ramlift_doubt *doubt)
{
	struct rig *rig = context;

	rig->fence_saw = *doubt;
	return ++rig->fence_calls >= rig->fence_from ? rig->fence_says : RAMLIFT_OWNER_UNKNOWN;
}

static void rig_init(struct rig *rig, enum fall fall)
{
	memset(rig, 0, sizeof(*rig));
	forked_start(&rig->fallen, fall);
	pair_init(&rig->pair, ramlift_transport_tcp());
	strcpy(rig->pair.to, rig->fallen.listen);
	rig->pair.source_config.fence = NULL;
	rig->pair.source_config.progress_context = rig;
	rig->pair.source_config.timeouts.connect_ns = NS_PER_S;
	rig->pair.destination_config.listen = rig->fallen.listen;
	rig->pair.destination_config.state_dir = rig->fallen.state_dir;
	fake_guest_start_writer(&rig->pair.source_guest, 50, 100);
}

static enum ramlift_phase phase(struct rig *rig)
{
	ramlift_source_stats(rig->pair.source, &rig->pair.source_stats);
	return rig->pair.source_stats.phase;
}

static bool runs_here(struct rig *rig)
{
	return atomic_load(&rig->pair.source_guest.run);
}

static void assert_in_doubt(struct rig *rig)
{
	struct ramlift_doubt doubt;

	assert_int_equal(phase(rig), RAMLIFT_PHASE_IN_DOUBT);
	assert_false(runs_here(rig));
	assert_int_equal(rig->pair.source_guest.resumes, 0);
	assert_int_equal(rig->pair.source_guest.stops, 1); /* nothing is tracked meanwhile */
	assert_int_equal(ramlift_doubt_read(rig->pair.state_dir, "fake", &doubt, NULL), 0);
}

/* Move it, with a destination that falls: then it is in doubt. */
static void rig_run(struct rig *rig)
{
	struct pair *pair = &rig->pair;

	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	assert_int_equal(ramlift_source_run(pair->source, &pair->source_error), -EINPROGRESS);
	assert_non_null(strstr(pair->source_error.text, "ramlift resolve fake"));
	assert_true(forked_join(&rig->fallen));
	assert_in_doubt(rig);
}

static void rig_start(struct rig *rig, enum fall fall)
{
	rig_init(rig, fall);
	rig_run(rig);
}

/* Another process comes up at that port, with that journal. */
static void rig_answer(struct rig *rig)
{
	struct pair *pair = &rig->pair;

	assert_int_equal(ramlift_destination_new(&pair->destination_config, &pair->destination,
						 &pair->destination_error),
			 0);
}

static void *settle_thread(void *argument)
{
	struct rig *rig = argument;

	rig->settle_ret = ramlift_source_settle(rig->pair.source, &rig->settle_error);
	return NULL;
}

static void settle_begin(struct rig *rig)
{
	assert_int_equal(pthread_create(&rig->thread, NULL, settle_thread, rig), 0);
}

static int settle_end(struct rig *rig)
{
	pthread_join(rig->thread, NULL);
	return rig->settle_ret;
}

static enum journal_event source_last_word(struct rig *rig, enum ramlift_owner *owner)
{
	struct journal_history history;
	enum journal_event event;

	assert_int_equal(journal_read(rig->pair.state_dir, "fake", &history, NULL), 0);
	event = journal_newest(&history, SIDE_SOURCE)->event;
	if (owner)
		*owner = journal_newest(&history, SIDE_SOURCE)->owner;
	journal_history_fini(&history);
	return event;
}

static void rig_fini(struct rig *rig)
{
	pair_fini(&rig->pair);
	forked_fini(&rig->fallen);
}

static void assert_is_here(struct rig *rig)
{
	assert_int_equal(phase(rig), RAMLIFT_PHASE_FAILED);
	assert_true(runs_here(rig));
	assert_int_equal(rig->pair.source_guest.resumes, 1);
}

static void assert_is_there(struct rig *rig)
{
	assert_int_equal(phase(rig), RAMLIFT_PHASE_DONE);
	assert_false(runs_here(rig));
	assert_int_equal(rig->pair.source_guest.resumes, 0);
}

/* ---- the destination's word ---- */

static void test_it_never_ran(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_start(&rig, FALL_COMMITTED);
	assert_int_equal(forked_last_word(&rig.fallen), JOURNAL_RECEIVE);
	settle_begin(&rig);
	usleep(700000); /* some questions long: nobody answers, and nothing may happen */
	assert_in_doubt(&rig);
	rig_answer(&rig);
	assert_int_equal(settle_end(&rig), -EREMOTEIO);
	assert_non_null(strstr(rig.settle_error.text, "the destination has said"));
	assert_is_here(&rig);
	assert_int_equal(source_last_word(&rig, NULL), JOURNAL_REFUSED);
	assert_int_equal(forked_last_word(&rig.fallen), JOURNAL_DISCARDED);
	assert_int_equal(ramlift_source_settle(rig.pair.source, NULL), -EALREADY);
	assert_int_equal(ramlift_source_resolve(rig.pair.source, RAMLIFT_OWNER_DESTINATION),
			 -EALREADY);
	rig_fini(&rig);
}

static void test_it_was_started(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_start(&rig, FALL_STARTED);
	assert_int_equal(forked_last_word(&rig.fallen), JOURNAL_STARTED);
	rig_answer(&rig);
	assert_int_equal(ramlift_source_settle(rig.pair.source, &rig.settle_error), 0);
	assert_is_there(&rig);
	assert_int_equal(source_last_word(&rig, NULL), JOURNAL_STARTED);
	assert_int_equal(forked_last_word(&rig.fallen), JOURNAL_STARTED);
	rig_fini(&rig);
}

/* As long as somebody may start it, nobody says that it never runs. */
static void test_it_has_not_decided(void **unused)
{
	struct rig rig;
	int lock_fd;

	(void)unused;
	rig_start(&rig, FALL_COMMITTED);
	assert_int_equal(
		journal_lock(rig.fallen.state_dir, "fake", SIDE_DESTINATION, &lock_fd, NULL), 0);
	rig_answer(&rig);
	settle_begin(&rig);
	usleep(700000);
	assert_in_doubt(&rig);
	assert_int_equal(forked_last_word(&rig.fallen), JOURNAL_RECEIVE);
	close(lock_fd);
	assert_int_equal(settle_end(&rig), -EREMOTEIO);
	assert_is_here(&rig);
	rig_fini(&rig);
}

/* Another state directory, another generation: no answer that decides. */
static void test_it_does_not_know(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_start(&rig, FALL_STARTED);
	rig.pair.destination_config.state_dir = rig.pair.state_dir;
	rig_answer(&rig);
	settle_begin(&rig);
	usleep(300000);
	assert_in_doubt(&rig);
	ramlift_source_leave(rig.pair.source);
	assert_int_equal(settle_end(&rig), -ECANCELED);
	assert_non_null(strstr(rig.settle_error.text, "does not know"));
	rig_fini(&rig);
}

/* ---- others' words ---- */

static void operator_says(enum fall fall, enum ramlift_owner owner)
{
	enum ramlift_owner noted;
	struct rig rig;

	rig_start(&rig, fall);
	settle_begin(&rig);
	usleep(100000);
	assert_int_equal(ramlift_source_resolve(rig.pair.source, RAMLIFT_OWNER_UNKNOWN), -EINVAL);
	assert_int_equal(ramlift_source_resolve(rig.pair.source, owner), 0);
	if (owner == RAMLIFT_OWNER_SOURCE) {
		assert_int_equal(settle_end(&rig), -EREMOTEIO);
		assert_non_null(strstr(rig.settle_error.text, "operator"));
		assert_is_here(&rig);
	} else {
		assert_int_equal(settle_end(&rig), 0);
		assert_is_there(&rig);
	}
	assert_int_equal(source_last_word(&rig, &noted), JOURNAL_RESOLVED);
	assert_int_equal(noted, owner);
	rig_fini(&rig);
}

static void test_the_operator_says(void **unused)
{
	(void)unused;
	operator_says(FALL_COMMITTED, RAMLIFT_OWNER_SOURCE);
	operator_says(FALL_STARTED, RAMLIFT_OWNER_DESTINATION);
}

static void fence_decides(enum ramlift_owner owner)
{
	struct ramlift_doubt doubt;
	enum ramlift_owner noted;
	struct rig rig;

	rig_init(&rig, FALL_COMMITTED);
	rig.pair.source_config.fence = fence;
	rig.fence_says = owner;
	rig.fence_from = 3;
	rig_run(&rig);
	assert_int_equal(rig.fence_calls, 0);
	assert_int_equal(ramlift_doubt_read(rig.pair.state_dir, "fake", &doubt, NULL), 0);
	assert_int_equal(ramlift_source_settle(rig.pair.source, &rig.settle_error),
			 owner == RAMLIFT_OWNER_SOURCE ? -EREMOTEIO : 0);
	assert_int_equal(rig.fence_calls, 3);
	assert_string_equal(rig.fence_saw.guest, "fake");
	assert_string_equal(rig.fence_saw.session, doubt.session);
	assert_string_equal(rig.fence_saw.peer, rig.fallen.listen);
	assert_int_equal(rig.fence_saw.generation, 1);
	assert_int_equal(source_last_word(&rig, &noted), JOURNAL_RESOLVED);
	assert_int_equal(noted, owner);
	if (owner == RAMLIFT_OWNER_SOURCE)
		assert_is_here(&rig);
	else
		assert_is_there(&rig);
	rig_fini(&rig);
}

static void test_the_fence_says(void **unused)
{
	(void)unused;
	fence_decides(RAMLIFT_OWNER_SOURCE);
	fence_decides(RAMLIFT_OWNER_DESTINATION);
}

static void test_leaving(void **unused)
{
	uint64_t begin_ns;
	struct rig rig;

	(void)unused;
	rig_start(&rig, FALL_COMMITTED);
	settle_begin(&rig);
	usleep(100000);
	begin_ns = clock_now_ns();
	ramlift_source_leave(rig.pair.source);
	assert_int_equal(settle_end(&rig), -ECANCELED);
	assert_true(clock_now_ns() - begin_ns < 5 * NS_PER_S);
	assert_int_equal(ramlift_source_settle(rig.pair.source, NULL), -ECANCELED);
	assert_in_doubt(&rig);
	rig_fini(&rig);
}

static void test_there_is_no_doubt_to_resolve(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair_start(&pair);
	assert_int_equal(ramlift_source_resolve(pair.source, RAMLIFT_OWNER_SOURCE), -EAGAIN);
	assert_int_equal(ramlift_source_settle(pair.source, NULL), -EALREADY);
	assert_int_equal(ramlift_source_run(pair.source, &pair.source_error), 0);
	pair_join(&pair);
	assert_int_equal(ramlift_source_resolve(pair.source, RAMLIFT_OWNER_SOURCE), -EALREADY);
	assert_int_equal(ramlift_source_settle(pair.source, NULL), -EALREADY);
	pair_assert_moved(&pair, 0);
	pair_fini(&pair);
}

/* ---- the journal cannot be written at that time ---- */

static void test_what_cannot_be_written_is_not_done(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_start(&rig, FALL_STARTED);
	assert_int_equal(ramlift_source_resolve(rig.pair.source, RAMLIFT_OWNER_SOURCE), 0);
	limit_files(0);
	assert_int_equal(ramlift_source_settle(rig.pair.source, &rig.settle_error), -EFBIG);
	limit_files(RLIM_INFINITY);
	assert_non_null(strstr(rig.settle_error.text, "journal"));
	assert_in_doubt(&rig);
	/* What has been said stays said. */
	assert_int_equal(ramlift_source_resolve(rig.pair.source, RAMLIFT_OWNER_DESTINATION),
			 -EALREADY);
	assert_int_equal(ramlift_source_settle(rig.pair.source, &rig.settle_error), -EREMOTEIO);
	assert_is_here(&rig);
	rig_fini(&rig);
}

/* ---- the source's process is gone ---- */

static void test_from_the_journal_alone(void **unused)
{
	const struct ramlift_security security = { 0 };
	struct ramlift_doubt doubt, other;
	struct ramlift_session_info info;
	struct ramlift_error error;
	enum ramlift_owner owner = RAMLIFT_OWNER_UNKNOWN;
	struct pair *pair;
	struct rig rig;

	(void)unused;
	rig_start(&rig, FALL_STARTED);
	pair = &rig.pair;
	ramlift_source_info(pair->source, &info);
	assert_int_equal(ramlift_doubt_read(pair->state_dir, "fake", &doubt, NULL), 0);
	assert_string_equal(doubt.guest, "fake");
	assert_string_equal(doubt.session, info.session);
	assert_string_equal(doubt.peer, pair->to);
	assert_int_equal(doubt.generation, 1);
	assert_int_equal(ramlift_doubt_read(pair->state_dir, "other", &other, &error), -ENOENT);
	assert_int_equal(ramlift_doubt_read(pair->state_dir, "a/b", &other, NULL), -EINVAL);
	/* While the source lives it is the one that is told. */
	assert_int_equal(
		ramlift_doubt_resolve(pair->state_dir, &doubt, RAMLIFT_OWNER_SOURCE, &error),
		-EBUSY);
	ramlift_source_free(pair->source);
	pair->source = NULL;

	/* The guest may run elsewhere: it is not moved once more, nor resumed. */
	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	assert_int_equal(ramlift_source_run(pair->source, &error), -EBUSY);
	assert_non_null(strstr(error.text, "ramlift resolve fake"));
	assert_int_equal(pair->source_guest.resumes, 0);
	ramlift_source_free(pair->source);
	pair->source = NULL;

	assert_int_equal(
		ramlift_doubt_ask(&doubt, &security, &pair->source_config.timeouts, &owner, &error),
		-ECONNREFUSED);
	rig_answer(&rig);
	other = doubt;
	other.generation++;
	assert_int_equal(
		ramlift_doubt_ask(&other, &security, &pair->source_config.timeouts, &owner, &error),
		-EREMOTEIO);
	assert_non_null(strstr(error.text, "generation"));
	strcpy(other.session, "nonsense");
	assert_int_equal(
		ramlift_doubt_ask(&other, &security, &pair->source_config.timeouts, &owner, &error),
		-EINVAL);
	assert_int_equal(owner, RAMLIFT_OWNER_UNKNOWN);
	assert_int_equal(
		ramlift_doubt_ask(&doubt, &security, &pair->source_config.timeouts, &owner, &error),
		0);
	assert_int_equal(owner, RAMLIFT_OWNER_DESTINATION);

	assert_int_equal(
		ramlift_doubt_resolve(pair->state_dir, &doubt, RAMLIFT_OWNER_UNKNOWN, NULL),
		-EINVAL);
	other = doubt;
	other.session[0] = other.session[0] == '0' ? '1' : '0';
	assert_int_equal(ramlift_doubt_resolve(pair->state_dir, &other, owner, NULL), -ENOENT);
	assert_int_equal(ramlift_doubt_resolve(pair->state_dir, &doubt, owner, NULL), 0);
	assert_int_equal(source_last_word(&rig, &owner), JOURNAL_RESOLVED);
	assert_int_equal(owner, RAMLIFT_OWNER_DESTINATION);
	assert_int_equal(ramlift_doubt_read(pair->state_dir, "fake", &other, NULL), -ENOENT);
	assert_int_equal(ramlift_doubt_resolve(pair->state_dir, &doubt, owner, NULL), -ENOENT);
	rig_fini(&rig);
}

/* After a doubt that was settled the same guest moves, under the next number. */
static void test_and_then_it_moves(void **unused)
{
	struct ramlift_session_info info;
	struct pair *pair;
	struct rig rig;

	(void)unused;
	rig_start(&rig, FALL_COMMITTED);
	pair = &rig.pair;
	rig_answer(&rig);
	assert_int_equal(ramlift_source_settle(pair->source, NULL), -EREMOTEIO);
	ramlift_source_free(pair->source);
	pair->source_guest.resumes = 0;
	pair->source_guest.starts = 0;
	pair->source_guest.stops = 0;
	pair_start_destination(pair);
	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	assert_int_equal(ramlift_source_run(pair->source, &pair->source_error), 0);
	pair_join(pair);
	pair_assert_moved(pair, 0);
	ramlift_source_info(pair->source, &info);
	assert_int_equal(info.generation, 2);
	assert_string_equal(info.guest, "fake");
	assert_string_equal(info.peer, pair->to);
	assert_string_equal(info.protection, "plaintext");
	ramlift_destination_info(pair->destination, &info);
	assert_int_equal(info.generation, 2);
	assert_string_equal(info.local, pair->to);
	rig_fini(&rig);
}

/* Its program has not answered whether it runs: nobody may say that it never will. */
static void test_a_destination_that_is_not_sure(void **unused)
{
	struct pair pair;

	(void)unused;
	pair_init(&pair, memory_transport());
	pair.destination_guest.fail_resume = -EINPROGRESS;
	assert_int_equal(pair_run(&pair), -EINPROGRESS);
	assert_int_equal(pair.destination_ret, -EINPROGRESS);
	assert_true(pair.destination_guest.created);
	assert_int_equal(ramlift_source_settle(pair.source, &pair.source_error), 0);
	assert_int_equal(pair.source_guest.resumes, 0);
	ramlift_source_stats(pair.source, &pair.source_stats);
	assert_int_equal(pair.source_stats.phase, RAMLIFT_PHASE_DONE);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_never_ran),
		cmocka_unit_test(test_it_was_started),
		cmocka_unit_test(test_it_has_not_decided),
		cmocka_unit_test(test_it_does_not_know),
		cmocka_unit_test(test_the_operator_says),
		cmocka_unit_test(test_the_fence_says),
		cmocka_unit_test(test_leaving),
		cmocka_unit_test(test_there_is_no_doubt_to_resolve),
		cmocka_unit_test(test_what_cannot_be_written_is_not_done),
		cmocka_unit_test(test_from_the_journal_alone),
		cmocka_unit_test(test_and_then_it_moves),
		cmocka_unit_test(test_a_destination_that_is_not_sure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
