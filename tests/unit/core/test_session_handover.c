/* SPDX-License-Identifier: Apache-2.0 */
/* The hand-over with journals that cannot be written, at each of their writes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/destination.h"
#include "core/error.h"
#include "core/source.h"
#include "handover_rig.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/full_disk.h"

/* A file where nothing can be appended: in its place there is a folder. */
static void block(const char *state_dir)
{
	char path[80], away[80];

	snprintf(path, sizeof(path), "%s/fake.journal", state_dir);
	snprintf(away, sizeof(away), "%s/away", state_dir);
	assert_true(!rename(path, away) || errno == ENOENT);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void unblock(const char *state_dir)
{
	char path[80], away[80];

	snprintf(path, sizeof(path), "%s/fake.journal", state_dir);
	snprintf(away, sizeof(away), "%s/away", state_dir);
	assert_int_equal(rmdir(path), 0);
	assert_true(!rename(away, path) || errno == ENOENT);
}

static void block_here(struct rig *self)
{
	block(self->pair.state_dir);
}

static void block_there(struct rig *self)
{
	block(self->there);
}

/* ---- checks, and a journal that is well ---- */

static void test_what_is_checked(void **unused)
{
	(void)unused;
	pair_assert_moved(&rig->pair, pair_run(&rig->pair));
	assert_string_equal(rig->checks[SIDE_SOURCE],
			    "journal transport security protocol lanes tokens digest journal ");
	assert_string_equal(rig->checks[SIDE_DESTINATION],
			    "security protocol regions replay journal transport machine lanes "
			    "memory tokens digest journal ");
	assert_int_equal(word_here(), JOURNAL_STARTED);
	assert_int_equal(word_there(), JOURNAL_STARTED);
	assert_false(is_locked_there());
}

static void test_what_fails_is_told(void **unused)
{
	(void)unused;
	rig->pair.destination_guest.fail_create = -ENOMEM;
	assert_int_equal(pair_run(&rig->pair), -EREMOTEIO);
	assert_string_equal(rig->checks[SIDE_SOURCE], "journal transport security protocol! ");
	assert_string_equal(rig->checks[SIDE_DESTINATION],
			    "security protocol regions replay journal transport machine! ");
	assert_int_equal(word_here(), JOURNAL_BEGIN);
	assert_int_equal(word_there(), JOURNAL_DISCARDED);
	assert_false(is_locked_there());
	rig->pair.destination_guest.fail_create = 0;
	assert_moves_now();
}

/* ---- journals that cannot be written ---- */

static void test_no_receive(void **unused)
{
	(void)unused;
	block_there(rig);
	assert_int_equal(pair_run(&rig->pair), -EREMOTEIO);
	assert_non_null(strstr(rig->pair.source_error.text, "journal"));
	assert_stayed_running();
	assert_int_equal(rig->pair.destination_guest.creates, 0);
	assert_false(is_locked_there());
	unblock(rig->there);
	assert_moves_now();
}

static void test_no_commit(void **unused)
{
	(void)unused;
	rig->on_save = block_here;
	assert_int_equal(pair_run(&rig->pair), -EISDIR);
	assert_stayed_running();
	assert_int_equal(word_there(), JOURNAL_DISCARDED);
	unblock(rig->pair.state_dir);
	assert_int_equal(word_here(), JOURNAL_BEGIN);
	assert_moves_now();
}

static void test_no_started(void **unused)
{
	(void)unused;
	rig->on_load = block_there;
	assert_int_equal(pair_run(&rig->pair), -EREMOTEIO);
	assert_non_null(strstr(rig->pair.source_error.text, "journal"));
	assert_stayed_running();
	assert_int_equal(word_here(), JOURNAL_REFUSED);
	/* DISCARDED could not be written either: so nobody else may settle it. */
	assert_true(is_locked_there());
	unblock(rig->there);
	assert_int_equal(word_there(), JOURNAL_RECEIVE);
	assert_moves_now();
}

static int fill_the_disk_and_fail(struct rig *self)
{
	(void)self;
	limit_files(0);
	return -EIO;
}

/* The guest could not be started after STARTED was written, and that cannot be written. What the
 * journal says by then is not what is answered. */
static void test_no_discarded_after_started(void **unused)
{
	struct ask ask = { .name = "fake" };
	enum answer_word word = ANSWER_COUNT;

	(void)unused;
	rig->on_resume = fill_the_disk_and_fail;
	assert_int_equal(pair_run(&rig->pair), -EREMOTEIO);
	assert_stayed_running();
	memcpy(ask.session_id, rig->pair.source->session.id, SESSION_ID_BYTES);
	ask.generation = rig->pair.source->session.generation;
	assert_int_equal(word_there(), JOURNAL_STARTED);
	assert_int_equal(destination_answer(rig->there, &ask, &word, NULL), 0);
	assert_int_equal(word, ANSWER_PENDING);
	assert_int_equal(destination_settle(rig->pair.destination, NULL), -EFBIG);
	limit_files(RLIM_INFINITY);
	assert_int_equal(destination_settle(rig->pair.destination, NULL), 0);
	assert_int_equal(word_there(), JOURNAL_DISCARDED);
	assert_int_equal(destination_answer(rig->there, &ask, &word, NULL), 0);
	assert_int_equal(word, ANSWER_NEVER);
	/* The source had no room for REFUSED: it is settled by whoever looks at it. */
	assert_int_equal(word_here(), JOURNAL_COMMIT);
}

/* The last chance is the end. */
static void test_discarded_at_the_end(void **unused)
{
	struct pair *pair = &rig->pair;

	(void)unused;
	rig->on_load = block_there;
	assert_int_equal(pair_run(pair), -EREMOTEIO);
	unblock(rig->there);
	assert_int_equal(word_there(), JOURNAL_RECEIVE);
	ramlift_destination_free(pair->destination);
	pair->destination = NULL;
	assert_int_equal(word_there(), JOURNAL_DISCARDED);
	assert_false(is_locked_there());
}

/* The guest is the source's again, and only the journal has not heard of it. */
static void test_no_refused(void **unused)
{
	struct pair *pair = &rig->pair;
	struct ramlift_doubt doubt;

	(void)unused;
	rig->on_resume = fill_the_disk_and_fail;
	assert_int_equal(pair_run(pair), -EREMOTEIO);
	limit_files(RLIM_INFINITY);
	assert_stayed_running();
	assert_int_equal(word_here(), JOURNAL_COMMIT);
	assert_non_null(strstr(pair->source_error.text, "no vCPU wants to run"));
	assert_non_null(strstr(pair->source_error.text, "'ramlift resolve fake --source --yes'"));
	assert_int_equal(ramlift_doubt_read(pair->state_dir, "fake", &doubt, NULL), 0);
	assert_int_equal(ramlift_doubt_resolve(pair->state_dir, &doubt, RAMLIFT_OWNER_SOURCE, NULL),
			 0);
	assert_moves_now();
}

static unsigned n_turned_away;

static void turned_away(void *context, const char *peer, const struct ramlift_error *why)
{
	(void)context;
	assert_non_null(strstr(peer, "127.0.0.1"));
	assert_non_null(strstr(why->text, "journal"));
	n_turned_away++;
}

/* As long as DISCARDED cannot be written no session begins, and whoever was refused is told of. */
static void test_no_session_before_discarded(void **unused)
{
	struct pair *pair = &rig->pair;

	(void)unused;
	pair->destination_config.turned_away = turned_away;
	rig->on_load = block_there;
	assert_int_equal(pair_run(pair), -EREMOTEIO);
	assert_int_equal(n_turned_away, 0);
	ramlift_source_free(pair->source);
	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	pair_start_destination(pair);
	assert_int_equal(ramlift_source_run(pair->source, &pair->source_error), -EREMOTEIO);
	pair_join(pair);
	assert_int_equal(n_turned_away, 1);
	unblock(rig->there);
}

/* A cancel between two sessions is for the next, however the one before has ended. */
static void test_a_cancel_after_a_commit(void **unused)
{
	struct pair *pair = &rig->pair;

	(void)unused;
	rig->on_load = block_there;
	assert_int_equal(pair_run(pair), -EREMOTEIO);
	unblock(rig->there);
	assert_int_equal(ramlift_destination_cancel(pair->destination), 0);
	pair_start_destination(pair);
	pair_join(pair);
	assert_int_equal(pair->destination_ret, -ECANCELED);
}

static int save_says_in_progress(void *guest, void **state, size_t *state_bytes,
				 struct ramlift_error *error)
{
	(void)guest;
	(void)state;
	(void)state_bytes;
	return error_set(error, -EINPROGRESS, "its devices are busy");
}

/* Before COMMIT nothing is in doubt, whatever a guest's call returns. */
static void test_in_progress_is_no_doubt(void **unused)
{
	(void)unused;
	rig->source_ops.save_state = save_says_in_progress;
	assert_int_equal(pair_run(&rig->pair), -EIO);
	assert_int_equal(rig->pair.source_error.code, -EIO);
	assert_non_null(strstr(rig->pair.source_error.text, "its devices are busy"));
	assert_stayed_running();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_what_is_checked),
		TEST(test_what_fails_is_told),
		TEST(test_no_receive),
		TEST(test_no_commit),
		TEST(test_no_started),
		TEST(test_no_discarded_after_started),
		TEST(test_discarded_at_the_end),
		TEST(test_no_refused),
		TEST(test_no_session_before_discarded),
		TEST(test_a_cancel_after_a_commit),
		TEST(test_in_progress_is_no_doubt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
