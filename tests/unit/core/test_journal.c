/* SPDX-License-Identifier: Apache-2.0 */
/* What a journal holds after appending, and what is said when it cannot. */
#include <errno.h>
#include <limits.h>
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

static const uint8_t session_id[SESSION_ID_BYTES] = { 0x00, 0x01, 0x7f, 0x80, 0xff, 5,	6,  7,
						      8,    9,	  10,	11,   12,   13, 14, 0xab };
static const struct journal_entry commit_entry = { "COMMIT", session_id, 3, "192.0.2.1:7440" };

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
	static const char begin[] = "COMMIT session=00017f80ff05060708090a0b0c0d0eab generation=3 "
				    "peer=192.0.2.1:7440 time=";
	struct folder *folder = *state;
	struct journal_entry started = commit_entry;
	struct ramlift_error error = { 0 };
	long long before = time(NULL), when;
	struct stat stat_;
	char text[1000], *line;

	started.event = "STARTED";
	started.generation = UINT32_MAX;
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, &error), 0);
	assert_int_equal(journal_append(folder->path, "db", &started, &error), 0);
	assert_int_equal(error.code, 0);
	read_journal(folder, text, sizeof(text));
	assert_memory_equal(text, begin, sizeof(begin) - 1);
	when = strtoll(text + sizeof(begin) - 1, &line, 10);
	assert_true(when >= before && when <= time(NULL));
	assert_int_equal(*line, '\n');
	assert_memory_equal(line + 1, "STARTED session=", 16);
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

static void test_names_that_are_too_long(void **state)
{
	struct folder *folder = *state;
	struct ramlift_error error = { 0 };
	struct journal_entry entry = commit_entry;
	char text[PATH_MAX + 10];

	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(journal_append(text, "db", &commit_entry, &error), -ENAMETOOLONG);
	assert_int_equal(journal_append(folder->path, text, &commit_entry, &error), -ENAMETOOLONG);
	text[600] = '\0';
	entry.peer = text;
	assert_int_equal(journal_append(folder->path, "db", &entry, &error), -ENAMETOOLONG);
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
	assert_int_equal(part, -ENOSPC);
	assert_int_equal(error.code, -ENOSPC);
	assert_non_null(strstr(error.text, folder->journal));
}

/* An append that failed must not look like one that did not, nor spoil the next one's line. */
static void test_no_half_lines(void **state)
{
	struct folder *folder = *state;
	char text[1000];

	limit_files(20);
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, NULL), -ENOSPC);
	limit_files(RLIM_INFINITY);
	read_journal(folder, text, sizeof(text));
	assert_string_equal(text, "");
	assert_int_equal(journal_append(folder->path, "db", &commit_entry, NULL), 0);
	read_journal(folder, text, sizeof(text));
	assert_memory_equal(text, "COMMIT session=00017f80ff05060708090a0b0c0d0eab ", 47);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lines),
		TEST(test_one_file_a_guest),
		TEST(test_no_such_folder),
		TEST(test_no_right_to_write),
		TEST(test_names_that_are_too_long),
		TEST(test_no_room),
		TEST(test_no_half_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
