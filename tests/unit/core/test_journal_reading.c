/* SPDX-License-Identifier: Apache-2.0 */
/* What is read from a journal, and what is said of one that makes no sense. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "journal_folder.h"
#include "tests/support/cmocka_all.h"

#define ID  "00017f80ff05060708090a0b0c0d0eab"
#define ID2 "10017f80ff05060708090a0b0c0d0eab"

static void test_there_and_back(void **state)
{
	struct folder *folder = *state;
	struct journal_history history;

	for (unsigned event = 0; event < JOURNAL_EVENT_COUNT; event++) {
		for (unsigned side = 0; side < 2; side++) {
			struct journal_entry entry = commit_entry, *read;
			bool fits = event == JOURNAL_STARTED ||
				    (side == SIDE_DESTINATION) == (event == JOURNAL_RECEIVE ||
								   event == JOURNAL_DISCARDED);

			if (!fits)
				continue;
			entry.event = event;
			entry.side = side;
			entry.owner = event == JOURNAL_RESOLVED ? RAMLIFT_OWNER_DESTINATION
								: RAMLIFT_OWNER_UNKNOWN;
			unlink(folder->journal);
			assert_int_equal(journal_append(folder->path, "db", &entry, NULL), 0);
			assert_int_equal(journal_read(folder->path, "db", &history, NULL), 0);
			assert_int_equal(history.n_sessions, 1);
			read = &history.sessions[0];
			assert_int_equal(read->event, event);
			assert_int_equal(read->side, side);
			assert_memory_equal(read->session_id, entry.session_id, SESSION_ID_BYTES);
			assert_int_equal(read->generation, 3);
			assert_string_equal(read->peer, entry.peer);
			assert_int_equal(read->owner, entry.owner);
			assert_in_range(read->time_s, time(NULL) - 100, time(NULL));
			journal_history_fini(&history);
		}
	}
}

static void test_no_file_is_no_session(void **state)
{
	struct folder *folder = *state;
	struct journal_history history = { .n_sessions = 77 };

	assert_int_equal(journal_read(folder->path, "db", &history, NULL), 0);
	assert_int_equal(history.n_sessions, 0);
	assert_null(journal_newest(&history, SIDE_SOURCE));
	assert_null(journal_find_doubt(&history));
	assert_int_equal(journal_highest_generation(&history), 0);
	journal_history_fini(&history);
}

/* Lines from before there were sides are the source's. */
static void test_the_last_word_counts(void **state)
{
	struct folder *folder = *state;
	struct journal_history history;
	uint8_t id[SESSION_ID_BYTES], id2[SESSION_ID_BYTES];

	assert_true(journal_session_parse(ID, id));
	assert_true(journal_session_parse(ID2, id2));
	write_journal(folder,
		      "BEGIN session=" ID " generation=7 peer=a:1 time=10\n"
		      "RECEIVE side=destination session=" ID2 " generation=9 peer=b:1 time=11\n"
		      "COMMIT side=source session=" ID " generation=7 peer=a:1 time=12\n"
		      "STARTED side=destination session=" ID2 " generation=9 peer=b:1 time=13\n"
		      "BEGIN side=source session=" ID2 " generation=8 peer=c:1 time=14\n"
		      "DISCARDED side=destination session=" ID2 " generation=9 peer=b:1 time=15\n");
	assert_int_equal(journal_read(folder->path, "db", &history, NULL), 0);
	assert_int_equal(history.n_sessions, 3);
	assert_int_equal(journal_find(&history, SIDE_SOURCE, id)->event, JOURNAL_COMMIT);
	assert_int_equal(journal_find(&history, SIDE_SOURCE, id2)->event, JOURNAL_BEGIN);
	assert_int_equal(journal_find(&history, SIDE_DESTINATION, id2)->event, JOURNAL_DISCARDED);
	assert_null(journal_find(&history, SIDE_DESTINATION, id));
	assert_int_equal(journal_highest_generation(&history), 8); /* of its own */
	assert_ptr_equal(journal_newest(&history, SIDE_DESTINATION), &history.sessions[1]);
	assert_int_equal(journal_newest(&history, SIDE_SOURCE)->generation, 8);
	assert_int_equal(journal_find_doubt(&history)->time_s, 12);
	journal_history_fini(&history);
}

static void test_a_doubt_ends(void **state)
{
	static const char *const ends[] = { "STARTED", "REFUSED", "RESOLVED" };
	struct folder *folder = *state;

	for (unsigned i = 0; i < 3; i++) {
		struct journal_history history;
		char text[400];

		snprintf(text, sizeof(text),
			 "COMMIT side=source session=" ID " generation=7 peer=a:1 time=12\n"
			 "%s side=source session=" ID " generation=7 peer=a:1%s time=12\n",
			 ends[i], i == 2 ? " owner=source" : "");
		write_journal(folder, text);
		assert_int_equal(journal_read(folder->path, "db", &history, NULL), 0);
		assert_null(journal_find_doubt(&history));
		journal_history_fini(&history);
	}
}

static void test_a_torn_line_is_ignored_and_cut(void **state)
{
	static const char whole[] =
		"COMMIT side=source session=" ID " generation=7 peer=a:1 time=12\n";
	struct folder *folder = *state;
	size_t n = sizeof(whole) - 1;
	char text[2000];

	for (size_t torn = 0; torn < n; torn++) {
		struct journal_history history;

		memcpy(text, whole, n);
		memcpy(text + n, "STARTED", 7);
		memcpy(text + n, whole, torn);
		text[n + torn] = '\0';
		write_journal(folder, text);
		assert_int_equal(journal_read(folder->path, "db", &history, NULL), 0);
		assert_int_equal(history.n_sessions, 1);
		assert_int_equal(journal_find_doubt(&history)->generation, 7);
		journal_history_fini(&history);

		assert_int_equal(journal_append(folder->path, "db", &commit_entry, NULL),
				 0); /* another generation of that session, but for that in order */
		read_journal(folder, text, sizeof(text));
		assert_memory_equal(text, whole, n);
		assert_memory_equal(text + n, "COMMIT side=source session=" ID " generation=3", 72);
	}
}

static const char *const garbage[] = {
	"",
	" ",
	"garbage",
	"COMMIT",
	"COMMIT side=source session=" ID " generation=7 peer=a:1",
	"COMMIT side=source session=" ID " generation=7 peer=a:1 time=12 ",
	"COMMIT side=source session=" ID " generation=7 peer=a:1 time=12 more=1",
	" COMMIT side=source session=" ID " generation=7 peer=a:1 time=12",
	"COMMIT  side=source session=" ID " generation=7 peer=a:1 time=12",
	"commit side=source session=" ID " generation=7 peer=a:1 time=12",
	"COMMIT side=both session=" ID " generation=7 peer=a:1 time=12",
	"COMMIT side=destination session=" ID " generation=7 peer=a:1 time=12",
	"RECEIVE side=source session=" ID " generation=7 peer=a:1 time=12",
	"COMMIT side=source session=0" ID " generation=7 peer=a:1 time=12",
	"COMMIT side=source session=1 generation=7 peer=a:1 time=12",
	"COMMIT side=source session=g0017f80ff05060708090a0b0c0d0eab generation=7 peer=a:1 time=12",
	"COMMIT side=source session=" ID " generation=4294967296 peer=a:1 time=12",
	"COMMIT side=source session=" ID " generation=-1 peer=a:1 time=12",
	"COMMIT side=source session=" ID " generation=07 peer=a:1 time=12",
	"COMMIT side=source session=" ID " generation= peer=a:1 time=12",
	"COMMIT side=source session=" ID " generation=7 peer= time=12",
	"COMMIT side=source session=" ID " generation=7 peer=a\001b time=12",
	"COMMIT side=source session=" ID " generation=7 peer=a:1 time=9223372036854775808",
	"COMMIT side=source session=" ID " generation=7 peer=a:1 owner=source time=12",
	"RESOLVED side=source session=" ID " generation=7 peer=a:1 time=12",
	"RESOLVED side=source session=" ID " generation=7 peer=a:1 owner=me time=12",
	/* that session has another generation */
	"COMMIT side=source session=" ID " generation=8 peer=a:1 time=12",
};

static void test_garbage_is_named(void **state)
{
	struct folder *folder = *state;

	for (unsigned i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
		static const char line[] =
			"BEGIN side=source session=" ID " generation=7 peer=a:1 time=12\n";
		struct journal_history history = { .n_sessions = 77 };
		struct ramlift_error error = { 0 };
		char text[1000];

		snprintf(text, sizeof(text), "%s%s%s\n%s", line, line, garbage[i], line);
		write_journal(folder, text);
		if (journal_read(folder->path, "db", &history, &error) != -EBADMSG)
			fail_msg("'%s' was read", garbage[i]);
		assert_int_equal(history.n_sessions, 77);
		assert_non_null(strstr(error.text, "line 3 of"));
		assert_non_null(strstr(error.text, folder->journal));
	}
}

static void test_a_file_that_is_no_journal(void **state)
{
	struct folder *folder = *state;
	struct journal_history history;
	char text[1000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	write_journal(folder, text);
	assert_int_equal(journal_read(folder->path, "db", &history, NULL), -EBADMSG);
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, NULL), -EBADMSG);
	assert_int_equal(truncate(folder->journal, 1ll << 40), 0);
	assert_int_equal(journal_read(folder->path, "db", &history, NULL), -EFBIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_there_and_back),
		TEST(test_no_file_is_no_session),
		TEST(test_the_last_word_counts),
		TEST(test_a_doubt_ends),
		TEST(test_a_torn_line_is_ignored_and_cut),
		TEST(test_garbage_is_named),
		TEST(test_a_file_that_is_no_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
