/* SPDX-License-Identifier: Apache-2.0 */
/* Audit records: a line each, complete, private, bounded, and never in anybody's way. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kvm/vmm/audit.h"
#include "kvm/vmm/audit_file.h"

static char directory[64];
static struct audit audit;

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static int set_up(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/ramlift-test-XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	audit_init(&audit, directory);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	audit_fini(&audit);
	unlink(path_of("audit.jsonl"));
	unlink(path_of("audit.jsonl.1"));
	return rmdir(directory);
}

/* All lines as JSON; a line that is none fails. */
static json_t *records(const char *name)
{
	json_t *array = json_array();
	FILE *file = fopen(path_of(name), "r");
	char *line = NULL;
	size_t room = 0;

	while (file && getline(&line, &room, file) > 0) {
		json_t *record = json_loads(line, JSON_REJECT_DUPLICATES, NULL);

		assert_true(json_is_object(record));
		json_array_append_new(array, record);
	}
	free(line);
	if (file)
		fclose(file);
	return array;
}

static const char *text(const json_t *record, const char *key)
{
	const char *value = json_string_value(json_object_get(record, key));

	return value ? value : "(null)";
}

static json_t *only_record(void)
{
	json_t *all = records("audit.jsonl"), *record;

	assert_int_equal(json_array_size(all), 1);
	record = json_incref(json_array_get(all, 0));
	json_decref(all);
	return record;
}

static void a_session_is_told_in_full(void **state)
{
	const struct ramlift_error failed = { .code = -EIO, .text = "bad \x1b[31m news" };
	const struct ucred root = { .uid = 0, .pid = 17 };
	const struct ramlift_stats stats = {
		.transport = "tcp",
		.ram_bytes = 4096,
		.elapsed_ns = 8,
		.phase_ns = { [RAMLIFT_PHASE_STREAM] = 5 },
		.downtime = { .total_ns = 3 },
	};
	struct audit_session session = {
		.asked_by = &root,
		.info = { .guest = "db1",
			  .session = "ab",
			  .generation = 3,
			  .local = "10.0.0.1:5",
			  .peer = "10.0.0.2:7440",
			  .peer_name = "b.example.org",
			  .protection = "tls-certificate" },
		.stats = &stats,
		.ret = -EIO,
		.reason = "bad \x1b[31m news",
	};
	json_t *record, *checks;
	struct stat status;

	(void)state;
	audit_check(&audit, "security", NULL);
	audit_check(&audit, "digest", &failed);
	audit_write_session(&audit, &session);
	record = only_record();
	assert_int_equal(strlen(text(record, "time")), strlen("2026-01-31T12:00:00.000Z"));
	assert_string_equal(text(record, "event"), "session");
	assert_string_equal(text(record, "side"), "source");
	assert_string_equal(text(record, "guest"), "db1");
	assert_string_equal(text(record, "session"), "ab");
	assert_int_equal(json_integer_value(json_object_get(record, "generation")), 3);
	assert_string_equal(text(json_object_get(record, "asked_by"), "user"), "root");
	assert_string_equal(text(record, "from"), "10.0.0.1:5");
	assert_string_equal(text(record, "to"), "10.0.0.2:7440");
	assert_string_equal(text(record, "peer_name"), "b.example.org");
	assert_string_equal(text(record, "protection"), "tls-certificate");
	assert_string_equal(text(record, "transport"), "tcp");
	assert_string_equal(text(record, "outcome"), "failed");
	assert_string_equal(text(record, "reason"), "bad ?[31m news");
	assert_int_equal(json_integer_value(json_object_get(record, "downtime_ns")), 3);
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(record, "phases"), "stream_ns")),
		5);
	checks = json_object_get(record, "checks");
	assert_int_equal(json_array_size(checks), 2);
	assert_true(json_is_true(json_object_get(json_array_get(checks, 0), "passed")));
	assert_string_equal(text(json_array_get(checks, 1), "check"), "digest");
	assert_string_equal(text(json_array_get(checks, 1), "why"), "bad ?[31m news");
	json_decref(record);
	assert_int_equal(stat(path_of("audit.jsonl"), &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
}

static void checks_belong_to_one_session(void **state)
{
	const struct ramlift_stats stats = { .phase = RAMLIFT_PHASE_DONE };
	struct audit_session session = { .incoming = true, .stats = &stats, .peer = "x:1" };
	json_t *all;

	(void)state;
	audit_check(&audit, "security", NULL);
	audit_write_session(&audit, &session);
	audit_write_session(&audit, &session);
	all = records("audit.jsonl");
	assert_int_equal(json_array_size(json_object_get(json_array_get(all, 0), "checks")), 1);
	assert_int_equal(json_array_size(json_object_get(json_array_get(all, 1), "checks")), 0);
	assert_string_equal(text(json_array_get(all, 1), "side"), "destination");
	assert_string_equal(text(json_array_get(all, 1), "from"), "x:1");
	assert_true(json_is_null(json_object_get(json_array_get(all, 1), "guest")));
	assert_true(json_is_null(json_object_get(json_array_get(all, 1), "reason")));
	json_decref(all);
}

static void a_resolution_says_whose_word_it_was(void **state)
{
	const struct ramlift_doubt doubt = { .guest = "db1", .session = "ab", .peer = "b:7440" };
	const struct ucred root = { .uid = 0, .pid = 17 };
	json_t *all;

	(void)state;
	audit_write_resolved(&audit, &doubt, RAMLIFT_OWNER_DESTINATION, "destination", NULL);
	audit_write_resolved(&audit, &doubt, RAMLIFT_OWNER_SOURCE, "operator", &root);
	all = records("audit.jsonl");
	assert_string_equal(text(json_array_get(all, 0), "resolved"), "destination");
	assert_string_equal(text(json_array_get(all, 0), "by"), "destination");
	assert_true(json_is_null(json_object_get(json_array_get(all, 0), "asked_by")));
	assert_string_equal(text(json_array_get(all, 1), "resolved"), "source");
	assert_string_equal(text(json_array_get(all, 1), "by"), "operator");
	assert_int_equal(json_integer_value(json_object_get(
				 json_object_get(json_array_get(all, 1), "asked_by"), "pid")),
			 17);
	json_decref(all);
}

/* Strangers must not be able to push everything else out of the record. */
static void a_flood_of_strangers_is_counted(void **state)
{
	json_t *all;

	(void)state;
	for (unsigned i = 0; i < AUDIT_MAX_REFUSALS + 40; i++)
		audit_write_refused(&audit, "10.0.0.9:1", "no certificate");
	all = records("audit.jsonl");
	assert_int_equal(json_array_size(all), AUDIT_MAX_REFUSALS);
	assert_string_equal(text(json_array_get(all, 0), "event"), "refused");
	assert_string_equal(text(json_array_get(all, 0), "reason"), "no certificate");
	json_decref(all);
	audit.minute_ns = 0; /* a minute later */
	audit_write_refused(&audit, "10.0.0.9:1", "no certificate");
	all = records("audit.jsonl");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(all, AUDIT_MAX_REFUSALS),
							    "not_listed_before")),
			 40);
	json_decref(all);
}

static size_t size_of(const char *name)
{
	struct stat status;

	return stat(path_of(name), &status) ? 0 : (size_t)status.st_size;
}

static void the_file_is_bounded(void **state)
{
	json_t *record = json_pack("{s:i}", "number", 100000);
	size_t line = strlen("{\"number\":100000}\n");
	json_t *all;

	(void)state;
	for (int i = 0; i < 25; i++) {
		json_object_set_new(record, "number", json_integer(100000 + i));
		assert_int_equal(audit_file_append(directory, record, 10 * line), 0);
		assert_true(size_of("audit.jsonl") <= 10 * line);
	}
	assert_int_equal(size_of("audit.jsonl.1"), 10 * line);
	all = records("audit.jsonl");
	assert_int_equal(json_array_size(all), 5);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(all, 4), "number")),
			 100024);
	json_decref(all);
	json_decref(record);
}

/* Processes share the file, and rename it under each other: no line is lost or torn. */
static void processes_share_the_file(void **state)
{
	enum { WRITERS = 4, LINES = 300 };
	json_t *all, *old;

	(void)state;
	for (int i = 0; i < WRITERS; i++) {
		if (!fork()) {
			json_t *record = json_pack("{s:i}", "writer", i);
			int ret = 0;

			/* One change of files in all. */
			for (int k = 0; k < LINES; k++)
				ret |= audit_file_append(directory, record, 9000);
			_exit(ret != 0);
		}
	}
	for (int i = 0; i < WRITERS; i++) {
		int status;

		wait(&status);
		assert_int_equal(status, 0);
	}
	all = records("audit.jsonl");
	old = records("audit.jsonl.1");
	assert_true(json_array_size(old) > 0);
	assert_int_equal(json_array_size(all) + json_array_size(old), WRITERS * LINES);
	json_decref(all);
	json_decref(old);
}

/* Who has waited for the lock finds that another process has renamed the file: once is enough. */
static void a_file_is_renamed_once(void **state)
{
	json_t *record = json_pack("{s:i}", "number", 1), *old;
	char path[128], renamed[128];
	FILE *holder;
	int status;

	(void)state;
	strcpy(path, path_of("audit.jsonl"));
	strcpy(renamed, path_of("audit.jsonl.1"));
	for (int i = 0; i < 3; i++)
		assert_int_equal(audit_file_append(directory, record, 1000), 0);
	holder = fopen(path, "r");
	assert_int_equal(flock(fileno(holder), LOCK_EX), 0);
	if (!fork()) {
		/* The lock is the parent's as long as a descriptor of it is open. */
		fclose(holder);
		_exit(audit_file_append(directory, record, 20) ? 1 : 0);
	}
	usleep(30000);
	assert_int_equal(rename(path, renamed), 0);
	assert_int_equal(audit_file_append(directory, record, 1000), 0);
	flock(fileno(holder), LOCK_UN);
	fclose(holder);
	wait(&status);
	assert_int_equal(status, 0);
	old = records("audit.jsonl.1");
	assert_int_equal(json_array_size(old), 3);
	json_decref(old);
	json_decref(record);
}

static void a_stopped_holder_of_the_lock_delays_nobody(void **state)
{
	json_t *record = json_pack("{s:i}", "number", 1);
	FILE *holder;

	(void)state;
	assert_int_equal(audit_file_append(directory, record, 100), 0);
	holder = fopen(path_of("audit.jsonl"), "r");
	assert_int_equal(flock(fileno(holder), LOCK_EX), 0);
	assert_int_equal(audit_file_append(directory, record, 10), 0);
	assert_int_equal(size_of("audit.jsonl"), 2 * strlen("{\"number\":1}\n"));
	fclose(holder);
	json_decref(record);
}

static void what_cannot_be_written_is_an_error_of_its_own(void **state)
{
	json_t *record = json_pack("{s:i}", "number", 1);
	char link[128];

	(void)state;
	assert_int_equal(audit_file_append("/nonexistent", record, 100), -ENOENT);
	/* Nobody leads us to another file. */
	strcpy(link, path_of("audit.jsonl"));
	assert_int_equal(symlink("/dev/null", link), 0);
	assert_int_equal(audit_file_append(directory, record, 100), -ELOOP);
	audit_write_refused(&audit, "10.0.0.9:1", "no certificate");
	assert_true(audit.told);
	json_decref(record);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_session_is_told_in_full, set_up, tear_down),
		cmocka_unit_test_setup_teardown(checks_belong_to_one_session, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_resolution_says_whose_word_it_was, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_flood_of_strangers_is_counted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_file_is_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(processes_share_the_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_is_renamed_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_stopped_holder_of_the_lock_delays_nobody, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(what_cannot_be_written_is_an_error_of_its_own,
						set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
