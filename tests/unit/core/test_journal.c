/* SPDX-License-Identifier: Apache-2.0 */
/* What a journal holds after appending, when it has grown long, when there is no room, and who has
 * its lock. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "journal_folder.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/full_disk.h"

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

static unsigned n_lines(const struct folder *folder)
{
	char text[1000];
	unsigned n = 0;

	read_journal(folder, text, sizeof(text));
	for (const char *end = text; (end = strchr(end, '\n')); end++)
		n++;
	return n;
}

/* One line, or a second where the first was slow: more time than none it always takes. */
static void test_what_a_line_takes(void **state)
{
	struct journal_entry begin = commit_entry;
	struct folder *folder = *state;
	uint64_t took_ns = 0;

	begin.event = JOURNAL_BEGIN;
	assert_int_equal(
		journal_append_timed(folder->path, "db", &begin, UINT64_MAX, &took_ns, NULL), 0);
	assert_true(took_ns > 0);
	assert_int_equal(n_lines(folder), 1);
	assert_int_equal(journal_append_timed(folder->path, "db", &begin, 1, &took_ns, NULL), 0);
	assert_int_equal(n_lines(folder), 3);
	assert_true(journal_append_timed("/nowhere", "db", &begin, 1, &took_ns, NULL) < 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lines),
		TEST(test_what_a_line_takes),
		TEST(test_one_file_a_guest),
		TEST(test_no_such_folder),
		TEST(test_no_right_to_write),
		TEST(test_names_that_do_not_fit),
		TEST(test_no_room),
		TEST(test_no_half_lines),
		TEST(test_it_begins_anew),
		TEST(test_no_room_to_begin_anew),
		TEST(test_several_write_at_once),
		TEST(test_one_session_a_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
