/* SPDX-License-Identifier: Apache-2.0 */
/* Questions about sessions in every state, at the port where guests arrive. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/address.h"
#include "core/doubt.h"
#include "core/journal.h"
#include "door.h"
#include "tests/support/cmocka_all.h"

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
	pair_make(&door.pair);
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
	pair_make(&door.pair);
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
	pair_make(&door.pair);
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
	pair_make(&door.pair);
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
		cmocka_unit_test(test_asked_of_a_session_that_fell),
		cmocka_unit_test(test_asked_of_a_session_that_has_ended),
		cmocka_unit_test(test_asked_of_what_is_not_there),
		cmocka_unit_test(test_asked_when_nothing_can_be_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
