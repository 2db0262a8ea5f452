/* SPDX-License-Identifier: Apache-2.0 */
/* The QMP client against a monitor that behaves, and against those that do not. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/ramlift.h"
#include "fake_qmp.h"
#include "kvm/qemu/qmp.h"
#include "kvm/qemu/qmp_input.h"

#define EVENT(name)                                                                                \
	"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"" name                \
	"\", \"data\": {\"status\": \"active\"}}\r\n"

static struct fake_qmp_config config;
static struct fake_qmp *fake;

static int open_with(const struct fake_qmp_answer *answers, size_t n_answers, struct qmp **qmp,
		     struct ramlift_error *error)
{
	config.answers = answers;
	config.n_answers = n_answers;
	fake = fake_qmp_start(&config);
	assert_non_null(fake);
	return qmp_open(fake_qmp_path(fake), qmp, error);
}

static int set_up(void **state)
{
	(void)state;
	config = (struct fake_qmp_config){ .greeting = FAKE_QMP_GREETING };
	fake = NULL;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (fake)
		fake_qmp_stop(fake);
	return 0;
}

static void test_open(void **unused)
{
	unsigned numbers[3];
	struct qmp *qmp;

	(void)unused;
	assert_int_equal(open_with(NULL, 0, &qmp, NULL), 0);
	assert_string_equal(qmp_version(qmp), "7.2.22");
	qmp_version_numbers(qmp, numbers);
	assert_int_equal(numbers[0], 7);
	assert_int_equal(numbers[1], 2);
	assert_int_equal(numbers[2], 22);
	assert_int_equal(qmp_pid(qmp), getpid());
	assert_true(qmp_fd(qmp) >= 0);
	qmp_close(qmp);
	qmp_close(NULL);
}

static void test_call(void **unused)
{
	static const struct fake_qmp_answer answers[] = {
		{ .words = "\"query-name\"", .body = "\"return\": {\"name\": \"db1\"}" },
		{ .words = "\"migrate\" \"uri\":\"tcp:a:1\"", .body = "\"return\": {}" },
		{ .words = "\"human-monitor-command\" gpa2hva",
		  .body = "\"return\": \"Host virtual\\r\\n\"" },
	};
	json_t *result = NULL;
	struct qmp *qmp;
	char *text;

	(void)unused;
	assert_int_equal(open_with(answers, 3, &qmp, NULL), 0);
	assert_int_equal(qmp_call(qmp, "query-name", NULL, &result, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(result, "name")), "db1");
	json_decref(result);
	assert_int_equal(qmp_call(qmp, "migrate", json_pack("{s:s}", "uri", "tcp:a:1"), NULL, NULL),
			 0);
	assert_int_equal(qmp_monitor_command(qmp, "gpa2hva 0", &text, NULL), 0);
	assert_string_equal(text, "Host virtual\r\n");
	free(text);
	qmp_close(qmp);
}

static void test_refusal(void **unused)
{
	static const struct fake_qmp_answer answers[] = {
		{ .words = "\"migrate\"",
		  .body = "\"error\": {\"class\": \"GenericError\", \"desc\": \"There's a "
			  "migration\\nin progress\"}" },
	};
	struct ramlift_error error;
	json_t *result = NULL;
	struct qmp *qmp;

	(void)unused;
	assert_int_equal(open_with(answers, 1, &qmp, NULL), 0);
	assert_int_equal(qmp_call(qmp, "migrate", NULL, &result, &error), -EREMOTEIO);
	assert_null(result);
	assert_string_equal(error.text, "QEMU refuses migrate: There's a migration in progress");
	assert_int_equal(qmp_call(qmp, "nonsense", NULL, NULL, &error), -EREMOTEIO);
	qmp_close(qmp);
}

static void expect_event(struct qmp *qmp, uint64_t deadline_ns, const char *name)
{
	json_t *event;

	assert_int_equal(qmp_event(qmp, deadline_ns, &event, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(event, "event")), name);
	json_decref(event);
}

static void test_events(void **unused)
{
	static const struct fake_qmp_answer answers[] = {
		{ .words = "\"one\"", .body = "\"return\": 1", .before = EVENT("A") EVENT("B") },
		{ .words = "\"two\"", .body = "\"return\": 2", .before = EVENT("C") },
	};
	struct ramlift_error error = { .code = 7, .text = "as it was" };
	json_t *result, *event;
	struct qmp *qmp;

	(void)unused;
	assert_int_equal(open_with(answers, 2, &qmp, NULL), 0);
	assert_int_equal(qmp_event(qmp, 0, &event, &error), -ETIMEDOUT);
	assert_int_equal(qmp_event(qmp, clock_now_ns() + NS_PER_MS, &event, &error), -ETIMEDOUT);
	assert_string_equal(error.text, "as it was");
	assert_int_equal(qmp_call(qmp, "one", NULL, &result, NULL), 0);
	assert_int_equal(json_integer_value(result), 1);
	json_decref(result);
	assert_int_equal(qmp_call(qmp, "two", NULL, &result, NULL), 0);
	assert_int_equal(json_integer_value(result), 2);
	json_decref(result);
	expect_event(qmp, 0, "A");
	expect_event(qmp, 0, "B");
	expect_event(qmp, clock_now_ns() + NS_PER_S, "C");
	assert_int_equal(qmp_event(qmp, 0, &event, NULL), -ETIMEDOUT);
	qmp_close(qmp);
}

/* The oldest go; what is left still ends with the newest. */
static void test_too_many_events(void **unused)
{
	static char many[1500 * 64];
	struct fake_qmp_answer answer = { .words = "\"go\"", .body = "\"return\": {}" };
	unsigned n = 0;
	json_t *event;
	struct qmp *qmp;
	size_t used = 0;

	(void)unused;
	for (unsigned i = 0; i < 1500; i++)
		used += (size_t)snprintf(many + used, sizeof(many) - used, "{\"event\": \"E%u\"}\n",
					 i);
	answer.before = many;
	assert_int_equal(open_with(&answer, 1, &qmp, NULL), 0);
	assert_int_equal(qmp_call(qmp, "go", NULL, NULL, NULL), 0);
	while (!qmp_event(qmp, 0, &event, NULL)) {
		if (++n == 1024)
			assert_string_equal(json_string_value(json_object_get(event, "event")),
					    "E1499");
		json_decref(event);
	}
	assert_int_equal(n, 1024);
	qmp_close(qmp);
}

/* What answers a command that was given up is not taken for the answer to the next. */
static void test_late_answer(void **unused)
{
	static const struct fake_qmp_answer answers[] = {
		{ .words = "\"next\"",
		  .body = "\"return\": \"new\"",
		  .before = "{\"return\": \"old\", \"id\": 1}\r\n"
			    "{\"error\": {\"desc\": \"old\"}, \"id\": \"x\"}\r\n" },
	};
	struct qmp *qmp;
	json_t *result;

	(void)unused;
	assert_int_equal(open_with(answers, 1, &qmp, NULL), 0);
	assert_int_equal(qmp_call(qmp, "next", NULL, &result, NULL), 0);
	assert_string_equal(json_string_value(result), "new");
	json_decref(result);
	qmp_close(qmp);
}

/* -qmp-pretty, braces in strings, bytes one by one, and numbers that jansson cannot hold. */
static void test_awkward_forms(void **unused)
{
	static const struct fake_qmp_answer answers[] = {
		{ .words = "\"braces\"", .body = "\"return\":\r\n  {\"a\": \"}\\\"]{\\\\\"}" },
		{ .words = "\"large\"",
		  .body = "\"return\": {\"max-bandwidth\": 18446744073709551615}" },
	};
	struct qmp *qmp;
	json_t *result;

	(void)unused;
	config.dribble = true;
	assert_int_equal(open_with(answers, 2, &qmp, NULL), 0);
	assert_int_equal(qmp_call(qmp, "braces", NULL, &result, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(result, "a")), "}\"]{\\");
	json_decref(result);
	assert_int_equal(qmp_call(qmp, "large", NULL, &result, NULL), 0);
	assert_true(json_number_value(json_object_get(result, "max-bandwidth")) > 1.8e19);
	json_decref(result);
	qmp_close(qmp);
}

static void test_qemu_ends(void **unused)
{
	static const struct fake_qmp_answer answers[] = {
		{ .words = "\"quit\"", .before = EVENT("SHUTDOWN"), .hang_up = true },
	};
	struct ramlift_error error;
	struct qmp *qmp;
	json_t *event;

	(void)unused;
	assert_int_equal(open_with(answers, 1, &qmp, NULL), 0);
	assert_int_equal(qmp_call(qmp, "quit", NULL, NULL, &error), -ECONNRESET);
	assert_non_null(strstr(error.text, "QEMU has ended"));
	expect_event(qmp, 0, "SHUTDOWN");
	assert_int_equal(qmp_event(qmp, clock_now_ns() + NS_PER_S, &event, &error), -ECONNRESET);
	assert_int_equal(qmp_call(qmp, "quit", NULL, NULL, &error), -ECONNRESET);
	qmp_close(qmp);
}

static void test_not_qmp(void **unused)
{
	static const char *const greetings[] = {
		"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ",
		"{\"hello\": 1}\r\n",
		"{\"QMP\": {\"version\": {\"qemu\": {\"major\": \"7\"}}}}\r\n",
		"{\"QMP\": {\"version\": {\"qemu\": {\"major\": -7}}}}\r\n",
		"[1, 2]\r\n",
		"{]\r\n",
		"{\"QMP\": }\r\n",
		"\x16\x03\x01",
	};
	struct ramlift_error error;
	struct qmp *qmp = NULL;

	(void)unused;
	for (size_t i = 0; i < sizeof(greetings) / sizeof(greetings[0]); i++) {
		config.greeting = greetings[i];
		assert_int_equal(open_with(NULL, 0, &qmp, &error), -EPROTO);
		assert_non_null(strstr(error.text, "QMP"));
		fake_qmp_stop(fake);
		fake = NULL;
	}
	assert_null(qmp);
}

static void test_too_long(void **unused)
{
	const size_t bytes = QMP_MAX_MESSAGE_BYTES + 65536;
	char *text = malloc(bytes + 1);
	struct fake_qmp_answer answer = { .words = "\"go\"", .before = text };
	struct ramlift_error error;
	struct qmp *qmp;

	(void)unused;
	assert_non_null(text);
	memset(text, ' ', bytes);
	text[0] = '{';
	text[bytes] = '\0';
	assert_int_equal(open_with(&answer, 1, &qmp, NULL), 0);
	assert_int_equal(qmp_call(qmp, "go", NULL, NULL, &error), -EPROTO);
	assert_non_null(strstr(error.text, "4 MiB"));
	qmp_close(qmp);
	fake_qmp_stop(fake);
	fake = NULL;
	free(text);
}

static void test_held_by_another(void **unused)
{
	struct ramlift_error error;
	struct qmp *qmp;

	(void)unused;
	config.greeting = NULL;
	assert_int_equal(open_with(NULL, 0, &qmp, &error), -EBUSY);
	assert_non_null(strstr(error.text, "another client"));
	assert_non_null(strstr(error.text, "-qmp unix:"));
}

static void test_nobody_there(void **unused)
{
	struct ramlift_error error;
	char path[200];
	struct qmp *qmp;

	(void)unused;
	assert_int_equal(qmp_open("/tmp/ramlift-no-such/qmp", &qmp, &error), -ENOENT);
	assert_non_null(strstr(error.text, "-qmp unix:/tmp/ramlift-no-such/qmp,"));
	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(qmp_open(path, &qmp, &error), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_open, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_call, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refusal, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_events, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_many_events, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_late_answer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_awkward_forms, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_qemu_ends, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_not_qmp, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_long, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_held_by_another, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nobody_there, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("qemu_qmp", tests, NULL, NULL);
}
