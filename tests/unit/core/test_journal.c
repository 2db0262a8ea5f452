/* SPDX-License-Identifier: Apache-2.0 */
/* What a journal holds after appending, what is read from it, and what is
 * said when that cannot be. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/journal.h"
#include "core/ramlift.h"
#include "tests/support/cmocka_all.h"

static const struct journal_entry commit_entry = {
	.event = JOURNAL_COMMIT,
	.side = SIDE_SOURCE,
	.session_id = { 0x00, 0x01, 0x7f, 0x80, 0xff, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xab },
	.generation = 3,
	.peer = "192.0.2.1:7440",
};

struct folder {
	char path[32], journal[64];
};

static int make_folder(void **state)
{
	struct folder *folder = calloc(1, sizeof(*folder));

	if (!folder)
		return -1;
	strcpy(folder->path, "/tmp/ramlift-test-XXXXXX");
	if (!mkdtemp(folder->path))
		return -1;
	snprintf(folder->journal, sizeof(folder->journal), "%s/db.journal", folder->path);
	*state = folder;
	return 0;
}

static int remove_folder(void **state)
{
	struct folder *folder = *state;

	unlink(folder->journal);
	if (rmdir(folder->path))
		return -1;
	free(folder);
	return 0;
}

static void read_journal(const struct folder *folder, char *text, size_t size)
{
	FILE *file = fopen(folder->journal, "r");

	assert_non_null(file);
	text[fread(text, 1, size - 1, file)] = '\0';
	fclose(file);
}

static void test_lines(void **state)
{
	static const char begin[] = "COMMIT side=source session=00017f80ff05060708090a0b0c0d0eab "
				    "generation=3 peer=192.0.2.1:7440 time=";
	struct folder *folder = *state;
	struct journal_entry started = commit_entry;
	struct ramlift_error error = { 0 };
	long long before = time(NULL), when;
	struct stat stat_;
	char text[1000], *line;

	started.event = JOURNAL_STARTED;
	started.generation = UINT32_MAX;
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, &error), 0);
	assert_int_equal(journal_append(folder->path, "db", &started, &error), 0);
	assert_int_equal(error.code, 0);
	read_journal(folder, text, sizeof(text));
	assert_memory_equal(text, begin, sizeof(begin) - 1);
	when = strtoll(text + sizeof(begin) - 1, &line, 10);
	assert_true(when >= before && when <= time(NULL));
	assert_int_equal(*line, '\n');
	assert_memory_equal(line + 1, "STARTED side=source session=", 28);
	assert_non_null(strstr(line + 1, "generation=4294967295 "));
	assert_int_equal(text[strlen(text) - 1], '\n');
	assert_null(strchr(strchr(line + 1, '\n') + 1, '\n')); /* two lines */
	/* Nobody else needs to read it. */
	assert_int_equal(stat(folder->journal, &stat_), 0);
	assert_int_equal(stat_.st_mode & 0777, 0600);
}

static void test_one_file_a_guest(void **state)
{
	struct folder *folder = *state;
	char other[64], text[300];

	assert_int_equal(journal_append(folder->path, "db", &commit_entry, NULL), 0);
	assert_int_equal(journal_append(folder->path, "web", &commit_entry, NULL), 0);
	read_journal(folder, text, sizeof(text));
	assert_int_equal(strchr(text, '\n') - text + 1, strlen(text));
	snprintf(other, sizeof(other), "%s/web.journal", folder->path);
	assert_int_equal(unlink(other), 0);
}

static void test_no_such_folder(void **state)
{
	struct folder *folder = *state;
	struct ramlift_error error = { 0 };
	char path[64];

	snprintf(path, sizeof(path), "%s/none", folder->path);
	assert_int_equal(journal_append(path, "db", &commit_entry, &error), -ENOENT);
	assert_int_equal(error.code, -ENOENT);
	assert_non_null(strstr(error.text, path));
	assert_int_equal(journal_append("/dev/null", "db", &commit_entry, &error), -ENOTDIR);
	assert_int_equal(journal_append("/proc", "db", &commit_entry, &error), -ENOENT);
	/* In its place there is something that is no file. */
	assert_int_equal(mkdir(folder->journal, 0700), 0);
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, &error), -EISDIR);
	assert_int_equal(rmdir(folder->journal), 0);
}

static void test_no_right_to_write(void **state)
{
	struct folder *folder = *state;
	struct ramlift_error error = { 0 };

	if (!geteuid()) /* whom no mode holds back */
		skip();
	assert_int_equal(chmod(folder->path, 0500), 0);
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, &error), -EACCES);
	assert_int_equal(chmod(folder->path, 0700), 0);
}

static void test_names_that_do_not_fit(void **state)
{
	static const char *const names[] = { "", ".", "..", ".hidden", "a/b", "/" };
	struct folder *folder = *state;
	struct ramlift_error error = { 0 };
	struct journal_entry entry = commit_entry;
	char text[PATH_MAX + 10];

	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(journal_append(text, "db", &commit_entry, &error), -ENAMETOOLONG);
	assert_int_equal(journal_append(folder->path, text, &commit_entry, &error), -EINVAL);
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_false(journal_name_fits(names[i]));
		assert_int_equal(journal_append(folder->path, names[i], &commit_entry, &error),
				 -EINVAL);
	}
	text[RAMLIFT_MAX_NAME - 1] = '\0';
	assert_true(journal_name_fits(text));
	for (unsigned i = 0; i < 3; i++) {
		strcpy(entry.peer, (const char *[]){ "", "a b", "a\nb" }[i]);
		assert_int_equal(journal_append(folder->path, "db", &entry, &error), -EINVAL);
	}
	assert_int_equal(access(folder->journal, F_OK), -1); /* nothing was begun */
}

/* A full disk, played by a limit on the size of files. */
static void limit_files(rlim_t size)
{
	struct rlimit limit;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_no_room(void **state)
{
	struct folder *folder = *state;
	struct ramlift_error error = { 0 };
	int full, part;

	limit_files(0);
	full = journal_append(folder->path, "db", &commit_entry, &error);
	limit_files(20);
	part = journal_append(folder->path, "db", &commit_entry, &error);
	limit_files(RLIM_INFINITY);
	assert_int_equal(full, -EFBIG);
	assert_int_equal(part, -EFBIG);
	assert_int_equal(error.code, -EFBIG);
	assert_non_null(strstr(error.text, folder->journal));
}

/* An append that failed must not look like one that did not, nor spoil the next one's line. */
static void test_no_half_lines(void **state)
{
	struct folder *folder = *state;
	char text[1000];

	limit_files(20);
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, NULL), -EFBIG);
	limit_files(RLIM_INFINITY);
	read_journal(folder, text, sizeof(text));
	assert_string_equal(text, "");
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, NULL), 0);
	read_journal(folder, text, sizeof(text));
	assert_memory_equal(text, "COMMIT side=source session=00017f80ff05060708090a0b0c0d0eab ",
			    59);
}

/* ---- reading ---- */

#define ID  "00017f80ff05060708090a0b0c0d0eab"
#define ID2 "10017f80ff05060708090a0b0c0d0eab"

static void write_journal(const struct folder *folder, const char *text)
{
	FILE *file = fopen(folder->journal, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	assert_int_equal(fclose(file), 0);
}

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

/* ---- a journal that grows ---- */

static off_t size_of(const struct folder *folder)
{
	struct stat stat_;

	assert_int_equal(stat(folder->journal, &stat_), 0);
	return stat_.st_size;
}

static struct journal_entry entry_of(enum side side, enum journal_event event, uint32_t number)
{
	struct journal_entry entry = commit_entry;

	entry.side = side;
	entry.event = event;
	entry.generation = number;
	memcpy(entry.session_id, &number, sizeof(number));
	return entry;
}

/* Long enough to begin anew at the next session; the first of all is in doubt, the second was never
 * settled. */
static void fill_journal(const struct folder *folder, unsigned n)
{
	FILE *file = fopen(folder->journal, "w");

	assert_non_null(file);
	for (unsigned i = 1; i <= n; i++) {
		struct journal_entry entry = entry_of(SIDE_SOURCE, JOURNAL_COMMIT, i);
		char line[JOURNAL_MAX_LINE];

		assert_int_equal(journal_encode(&entry, line), 0);
		fputs(line, file);
		entry.event = JOURNAL_REFUSED;
		assert_int_equal(journal_encode(&entry, line), 0);
		if (i > 1)
			fputs(line, file);
		entry = entry_of(SIDE_DESTINATION, i != 2 ? JOURNAL_STARTED : JOURNAL_RECEIVE, i);
		assert_int_equal(journal_encode(&entry, line), 0);
		fputs(line, file);
	}
	assert_int_equal(fclose(file), 0);
	assert_true(size_of(folder) > 256 << 10);
}

static void test_it_begins_anew(void **state)
{
	struct folder *folder = *state;
	struct journal_entry entry = entry_of(SIDE_SOURCE, JOURNAL_COMMIT, 2000);
	struct journal_history history;
	off_t size;

	fill_journal(folder, 1000);
	size = size_of(folder);
	assert_int_equal(journal_append(folder->path, "db", &entry, NULL), 0);
	assert_true(size_of(folder) > size); /* not between a promise and its journal */
	entry.event = JOURNAL_REFUSED;
	assert_int_equal(journal_append(folder->path, "db", &entry, NULL), 0);
	entry = entry_of(SIDE_SOURCE, JOURNAL_BEGIN, 2001);
	assert_int_equal(journal_append(folder->path, "db", &entry, NULL), 0);
	assert_true(size_of(folder) < 64 << 10);

	assert_int_equal(journal_read(folder->path, "db", &history, NULL), 0);
	assert_int_equal(history.n_sessions, 2 * 128 + 3);
	assert_int_equal(journal_find_doubt(&history)->generation, 1);
	assert_int_equal(journal_highest_generation(&history), 2001);
	entry = entry_of(SIDE_DESTINATION, 0, 2);
	assert_int_equal(journal_find(&history, SIDE_DESTINATION, entry.session_id)->event,
			 JOURNAL_RECEIVE);
	entry = entry_of(SIDE_DESTINATION, 0, 1000);
	assert_int_equal(journal_find(&history, SIDE_DESTINATION, entry.session_id)->event,
			 JOURNAL_STARTED);
	assert_int_equal(journal_newest(&history, SIDE_DESTINATION)->generation, 1000);
	journal_history_fini(&history);
	/* Nothing lies about. */
	unlink(folder->journal);
}

/* There is no room for the new file, but for the line: the old one stays as it is. */
static void test_no_room_to_begin_anew(void **state)
{
	struct folder *folder = *state;
	struct journal_entry entry = entry_of(SIDE_SOURCE, JOURNAL_BEGIN, 2000);
	char fresh[80];
	off_t size;

	fill_journal(folder, 1000);
	size = size_of(folder);
	snprintf(fresh, sizeof(fresh), "%s.new", folder->journal);
	assert_int_equal(mkdir(fresh, 0700), 0);
	assert_int_equal(journal_append(folder->path, "db", &entry, NULL), 0);
	assert_true(size_of(folder) > size && size_of(folder) < size + 200);
	assert_int_equal(rmdir(fresh), 0);
	limit_files(1000);
	assert_int_equal(journal_append(folder->path, "db", &entry, NULL), -EFBIG);
	limit_files(RLIM_INFINITY);
	assert_true(size_of(folder) > size && size_of(folder) < size + 200);
	assert_int_equal(access(fresh, F_OK), -1);
}

static void *append_many(void *argument)
{
	struct folder *folder = argument;
	static _Atomic uint32_t next = 1;

	for (unsigned i = 0; i < 50; i++) {
		struct journal_entry entry = entry_of(SIDE_SOURCE, JOURNAL_BEGIN, next++);

		assert_int_equal(journal_append(folder->path, "db", &entry, NULL), 0);
	}
	return NULL;
}

/* Also while the file is replaced under the others' hands. */
static void test_several_write_at_once(void **state)
{
	struct folder *folder = *state;
	struct journal_history history;
	pthread_t threads[4];

	fill_journal(folder, 900);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, append_many, folder), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(journal_read(folder->path, "db", &history, NULL), 0);
	for (uint32_t i = 3; i <= 200; i++) {
		struct journal_entry entry = entry_of(SIDE_SOURCE, 0, i);

		assert_non_null(journal_find(&history, SIDE_SOURCE, entry.session_id));
	}
	journal_history_fini(&history);
}

/* ---- locks ---- */

static void test_one_session_a_side(void **state)
{
	struct folder *folder = *state;
	struct ramlift_error error = { 0 };
	int here, there, again;
	char path[64];

	assert_int_equal(journal_lock(folder->path, "db", SIDE_SOURCE, &here, NULL), 0);
	assert_int_equal(journal_lock(folder->path, "db", SIDE_DESTINATION, &there, NULL), 0);
	assert_int_equal(journal_lock(folder->path, "db", SIDE_SOURCE, &again, &error), -EBUSY);
	assert_non_null(strstr(error.text, "db"));
	assert_int_equal(journal_lock(folder->path, "db", SIDE_DESTINATION, &again, NULL), -EBUSY);
	close(there);
	assert_int_equal(journal_lock(folder->path, "db", SIDE_DESTINATION, &again, NULL), 0);
	close(here);
	close(again);
	snprintf(path, sizeof(path), "%s/db.lock", folder->path);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/db.source-lock", folder->path);
	assert_int_equal(unlink(path), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lines),
		TEST(test_one_file_a_guest),
		TEST(test_no_such_folder),
		TEST(test_no_right_to_write),
		TEST(test_names_that_do_not_fit),
		TEST(test_no_room),
		TEST(test_no_half_lines),
		TEST(test_there_and_back),
		TEST(test_no_file_is_no_session),
		TEST(test_the_last_word_counts),
		TEST(test_a_doubt_ends),
		TEST(test_a_torn_line_is_ignored_and_cut),
		TEST(test_garbage_is_named),
		TEST(test_a_file_that_is_no_journal),
		TEST(test_it_begins_anew),
		TEST(test_no_room_to_begin_anew),
		TEST(test_several_write_at_once),
		TEST(test_one_session_a_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
