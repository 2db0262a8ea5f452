/* SPDX-License-Identifier: Apache-2.0 */
/* The hand-over when something is wrong with it: journals that cannot be written at each of its
 * writes, COMMITs that are not the session's or come too late, offers that were made before. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/destination.h"
#include "core/error.h"
#include "core/journal.h"
#include "core/source.h"
#include "session_pair.h"
#include "tests/support/cmocka_all.h"

/* A pair whose sides have journals of their own, and whose guests do more than they are asked. */
struct rig {
	struct pair pair;
	char there[32]; /* the destination's state directory */
	struct ramlift_guest_ops source_ops, destination_ops;
	void (*on_save)(struct rig *rig);
	void (*on_load)(struct rig *rig);
	int (*on_resume)(struct rig *rig); /* at the destination */
	char checks[2][400];		   /* what was checked, in order, by side */
};

static struct rig *rig; /* the one of the test that runs */

static int save(void *guest, void **state, size_t *state_bytes, struct ramlift_error *error)
{
	if (rig->on_save)
		rig->on_save(rig);
	return fake_guest_ops.save_state(guest, state, state_bytes, error);
}

static int load(void *guest, const void *state, size_t state_bytes, struct ramlift_error *error)
{
	if (rig->on_load)
		rig->on_load(rig);
	return fake_guest_ops.load_state(guest, state, state_bytes, error);
}

static int resume_there(void *guest, struct ramlift_error *error)
{
	int ret = rig->on_resume ? rig->on_resume(rig) : 0;

	return ret ? error_set(error, ret, "no vCPU wants to run")
		   : fake_guest_ops.resume(guest, error);
}

static void check_passed(char *checks, const char *check, const struct ramlift_error *failed)
{
	strcat(checks, check);
	strcat(checks, failed ? "! " : " ");
}

static void source_checked(void *context, const char *check, const struct ramlift_error *failed)
{
	check_passed(((struct rig *)context)->checks[SIDE_SOURCE], check, failed);
}

static void destination_checked(void *context, const char *check,
				const struct ramlift_error *failed)
{
	check_passed(((struct rig *)context)->checks[SIDE_DESTINATION], check, failed);
}

static int set_up(void **state)
{
	(void)state;
	rig = calloc(1, sizeof(*rig));
	if (!rig)
		return -1;
	pair_init(&rig->pair, memory_transport());
	strcpy(rig->there, "/tmp/ramlift-test-XXXXXX");
	if (!mkdtemp(rig->there))
		return -1;
	rig->source_ops = fake_guest_ops;
	rig->source_ops.save_state = save;
	rig->destination_ops = fake_guest_ops;
	rig->destination_ops.load_state = load;
	rig->destination_ops.resume = resume_there;
	rig->pair.source_config.guest_ops = &rig->source_ops;
	rig->pair.source_config.checked = source_checked;
	rig->pair.source_config.progress_context = rig;
	rig->pair.destination_config.guest_ops = &rig->destination_ops;
	rig->pair.destination_config.state_dir = rig->there;
	rig->pair.destination_config.checked = destination_checked;
	rig->pair.destination_config.progress_context = rig;
	fake_guest_start_writer(&rig->pair.source_guest, 50, 100);
	return 0;
}

static int tear_down(void **state)
{
	char command[80];

	(void)state;
	pair_fini(&rig->pair);
	snprintf(command, sizeof(command), "rm -r %s", rig->there);
	if (system(command))
		return -1;
	free(rig);
	return 0;
}

/* ---- what is in the journals ---- */

static enum journal_event last_word(const char *state_dir, enum side side)
{
	const struct journal_entry *newest;
	struct journal_history history;
	enum journal_event event;

	assert_int_equal(journal_read(state_dir, "fake", &history, NULL), 0);
	newest = journal_newest(&history, side);
	event = newest ? newest->event : JOURNAL_EVENT_COUNT;
	journal_history_fini(&history);
	return event;
}

static enum journal_event word_here(void)
{
	return last_word(rig->pair.state_dir, SIDE_SOURCE);
}

static enum journal_event word_there(void)
{
	return last_word(rig->there, SIDE_DESTINATION);
}

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

static bool is_locked_there(void)
{
	int lock_fd, ret;

	ret = journal_lock(rig->there, "fake", SIDE_DESTINATION, &lock_fd, NULL);
	if (!ret)
		close(lock_fd);
	return ret == -EBUSY;
}

static void assert_stayed_running(void)
{
	pair_assert_stayed(&rig->pair);
	assert_true(atomic_load(&rig->pair.source_guest.run));
	assert_int_equal(rig->pair.destination_guest.resumes, 0);
}

/* Once more, with nothing in the way; the destination is the same. */
static void assert_moves_now(void)
{
	struct pair *pair = &rig->pair;
	int ret;

	ramlift_source_free(pair->source);
	pair->source_guest.resumes = 0;
	pair->source_guest.starts = 0;
	pair->source_guest.stops = 0;
	rig->on_save = NULL;
	rig->on_load = NULL;
	rig->on_resume = NULL;
	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	pair_start_destination(pair);
	ret = ramlift_source_run(pair->source, &pair->source_error);
	pair_join(pair);
	pair_assert_moved(pair, ret);
	assert_int_equal(word_here(), JOURNAL_STARTED);
	assert_int_equal(word_there(), JOURNAL_STARTED);
	assert_false(is_locked_there());
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

static void limit_files(rlim_t size)
{
	struct rlimit limit;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
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
	struct rig *self = context;

	if (stats->phase != RAMLIFT_PHASE_COMMITTED)
		return;
	while (last_word(self->there, SIDE_DESTINATION) != JOURNAL_DISCARDED)
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

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

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
