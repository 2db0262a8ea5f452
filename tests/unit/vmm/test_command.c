/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line, by whole processes: every refusal is one sentence on standard error, nothing on
 * standard output, and the right exit status. No guest is needed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#define PROGRAM RAMLIFT_PROGRAM

static char directory[64];

struct run {
	int status;
	char text[16384];
};

/* Through the shell; one of the two streams is kept. */
static void run(struct run *result, const char *arguments, const char *streams)
{
	char line[512];
	size_t bytes;
	FILE *pipe;
	int status;

	snprintf(line, sizeof(line), "%s %s %s </dev/null", PROGRAM, arguments, streams);
	pipe = popen(line, "r");
	assert_non_null(pipe);
	bytes = fread(result->text, 1, sizeof(result->text) - 1, pipe);
	result->text[bytes] = '\0';
	status = pclose(pipe);
	assert_true(WIFEXITED(status));
	result->status = WEXITSTATUS(status);
}

static void run_output(struct run *result, const char *arguments)
{
	run(result, arguments, "2>/dev/null");
}

static void run_errors(struct run *result, const char *arguments)
{
	run(result, arguments, "2>&1 >/dev/null");
}

static void assert_sentence(const struct run *result, const char *words)
{
	assert_non_null(strstr(result->text, words));
	assert_ptr_equal(strchr(result->text, '\n'), result->text + strlen(result->text) - 1);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/ramlift-test-XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	setenv("RAMLIFT_RUNTIME_DIR", directory, 1);
	setenv("RAMLIFT_STATE_DIR", directory, 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return rmdir(directory);
}

static void wrong_usage_is_one_sentence(void **state)
{
	static const struct {
		const char *arguments, *words;
	} wrong[] = {
		{ "nonsense", "unknown command 'nonsense'; see 'ramlift help'" },
		{ "--nonsense", "unknown option '--nonsense'; see 'ramlift help'" },
		{ "help nonsense", "unknown command 'nonsense'; see 'ramlift help'" },
		{ "run --nonsense", "unknown option '--nonsense'; see 'ramlift help run'" },
		{ "run -Q", "unknown option '-Q'; see 'ramlift help run'" },
		{ "run", "--name" },
		{ "run --name db1", "--memory" },
		{ "run --name", "option '--name' needs a value" },
		{ "run --name ../db1 --memory 64M", "name" },
		{ "run --name db1 --memory 15M", "at least 16M" },
		{ "run --name db1 --memory 64X", "not a size" },
		{ "run --name db1 --memory 33M --hugepages 2M", "multiple" },
		{ "run --name db1 --memory 64M --hugepages 4M", "2M or 1G" },
		{ "run --name db1 --memory 64M --vcpus 17", "from 1 to 16" },
		{ "run --name db1 --memory 64M --vcpus 0", "from 1 to 16" },
		{ "run --name db1 --memory 64M --dirty tape", "ring or log" },
		{ "run --name db1 --memory 64M --dirty-ring-size 1000", "power of two" },
		{ "run --name db1 --memory 64M --dirty-ring-size 131072", "65536" },
		{ "run --name db1 --memory 64M --workload hot=65M", "more than" },
		{ "run --name db1 --memory 64M --workload hot=60M", "that the guest stamps" },
		{ "run --name db1 --memory 64M --workload hot=8M,fill=1", "that the guest stamps" },
		{ "run --name db1 --memory 64M --workload hot", "--workload" },
		{ "run --name db1 --memory 64M db2", "unexpected argument 'db2'" },
		{ "run --name db1 --memory 64M --numa-nodes", "needs a value" },
		{ "run --name db1 --memory 64M --numa-nodes 0,x", "not a whole number" },
		{ "run --name db1 --memory 64M --numa-nodes 0,", "not a whole number" },
		{ "run --name db1 --memory 64M --numa-nodes 1024", "from 0 to 1023" },
		{ "receive", "--listen" },
		{ "receive --listen 0.0.0.0:7440 --numa-map 0", "0:1,1:0" },
		{ "receive --listen 0.0.0.0:7440 --numa-map 0:1,0:0", "twice where node 0 goes" },
		{ "receive --listen 0.0.0.0:7440 --rails rxe0,rxe0", "names rxe0 twice" },
		{ "receive --listen 7440", "not an address" },
		{ "receive --listen 0.0.0.0:7440 --transport ib", "auto, rdma or tcp" },
		{ "receive --listen 0.0.0.0:7440 db1", "unexpected argument 'db1'" },
		{ "migrate", "which guest" },
		{ "migrate db1", "--to" },
		{ "migrate db1 --to hostB", "not an address" },
		{ "migrate db1 --to hostB:0", "port" },
		{ "migrate db1 --to hostB:7440 --lanes 0", "from 1 to 64" },
		{ "migrate db1 --to hostB:7440 --lanes 65", "from 1 to 64" },
		{ "migrate db1 --to hostB:7440 --lanes 4 --lanes-per-rail 2", "not both" },
		{ "migrate db1 --to hostB:7440 --lanes 5 --rails a,b", "shared by 2 rails" },
		{ "migrate db1 --to hostB:7440 --lanes-per-rail 33 --rails a,b", "more than 64" },
		{ "migrate db1 --to hostB:7440 --lanes-per-rail 0", "from 1 to 64" },
		{ "migrate db1 --to hostB:7440 --rails ,", "--rails names RDMA devices" },
		{ "migrate db1 --to hostB:7440 --rails a,b,c,d,e,f,g,h,i", "more than 8" },
		{ "migrate db1 --to hostB:7440 --pin some", "all, demand or budget=SIZE" },
		{ "migrate db1 --to hostB:7440 --pin budget=", "not a size" },
		{ "migrate db1 --to hostB:7440 --max-downtime 1s", "whole number" },
		{ "migrate db1 --to hostB:7440 --bandwidth fast", "not a rate" },
		{ "migrate db1 --to hostB:7440 --bandwidth 0", "above 0" },
		{ "migrate db1 --to hostB:7440 --timeout 0", "--timeout" },
		{ "migrate db1 --to hostB:7440 --on-divergence pray", "throttle, stop or abort" },
		{ "migrate db1 db2 --to hostB:7440", "unexpected argument 'db2'" },
		{ "cancel", "which guest" },
		{ "cancel db1 --now", "unknown option '--now'" },
		{ "status a/b", "name" },
		{ "stop", "which guest" },
		{ "resolve", "which guest" },
		{ "resolve db1", "--source or --destination" },
		{ "resolve db1 --source --destination", "--source or --destination" },
		{ "resolve db1 --source", "add --yes only if you know" },
		{ "resolve db1 --ask --destination", "or --ask" },
		{ "resolve db1 --ask --allow x", "needs --tls-dir" },
		{ "receive --listen 0.0.0.0:7440 --tls-dir", "'--tls-dir' needs a value" },
		{ "receive --listen 0.0.0.0:7440 --tls-dir /a --psk-file /b", "not both" },
		{ "receive --listen 0.0.0.0:7440 --insecure --psk-file /b", "--insecure is for" },
		{ "receive --listen 0.0.0.0:7440 --allow '*'", "needs --tls-dir" },
		{ "receive --listen 0.0.0.0:7440 --tls-dir /a --allow ''", "--allow takes" },
		{ "receive --listen 0.0.0.0:7440 --peer-timeout 0", "from 1 to 3600" },
		{ "receive --listen 0.0.0.0:7440 --io-timeout soon", "not a whole number" },
		{ "migrate db1 --to hostB:7440 --tls-dir ''", "names no file" },
		{ "migrate db1 --to hostB:7440 --tls-dir a --insecure", "--insecure is for" },
		{ "migrate db1 --to hostB:7440 --fence-command", "needs a value" },
		{ "run --name db1 --memory 64M --tls-dir /a", "unknown option '--tls-dir'" },
		{ "qemu receive --qmp q --listen b:7440 --tls-dir /a --psk-file /b", "not both" },
		{ "qemu migrate --qmp q --to b:7440 --allow '*'", "needs --tls-dir" },
		{ "qemu proxy --listen 127.0.0.1:1 --to b:7440 --allow '*'", "needs --tls-dir" },
		{ "qemu migrate --qmp q --to hostB:7440 --rails a,b --lanes 33", "more than 64" },
		{ "devices rxe0", "unexpected argument 'rxe0'" },
	};
	static struct run result;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		run_errors(&result, wrong[i].arguments);
		assert_int_equal(result.status, 2);
		assert_sentence(&result, wrong[i].words);
		run_output(&result, wrong[i].arguments);
		assert_string_equal(result.text, "");
	}
	run_errors(&result, "");
	assert_int_equal(result.status, 2);
}

static void unknown_guests_are_one_sentence(void **state)
{
	static const char *const commands[] = {
		"status db1",
		"stop db1",
		"cancel db1",
		"migrate db1 --to 127.0.0.1:1",
		"resolve db1 --destination",
		"resolve db1 --source --yes",
	};
	static struct run result;

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		run_errors(&result, commands[i]);
		assert_int_equal(result.status, 1);
		assert_sentence(&result, "no guest db1 runs here");
	}
}

/* What is wrong with keys is said before anybody is listened to. */
static void missing_keys_are_one_sentence(void **state)
{
	static const struct {
		const char *arguments, *words;
	} wrong[] = {
		{ "receive --listen 127.0.0.1:0 --tls-dir /nonexistent", "/nonexistent/" },
		{ "receive --listen 127.0.0.1:0 --psk-file /nonexistent/key", "/nonexistent/key" },
		{ "receive --listen 127.0.0.1:0 --psk-file relative", "/relative" },
		{ "receive --listen 127.0.0.1:0 --user no-such-user", "no user 'no-such-user'" },
	};
	static struct run result;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		run_errors(&result, wrong[i].arguments);
		assert_int_equal(result.status, 1);
		assert_sentence(&result, wrong[i].words);
	}
}

static void json_is_one_object(void **state)
{
	static struct run result;
	json_t *object;

	(void)state;
	run_output(&result, "migrate db1 --to 127.0.0.1:1 --json");
	assert_int_equal(result.status, 1);
	object = json_loads(result.text, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(object, "outcome")), "failed");
	assert_non_null(json_object_get(json_object_get(object, "error"), "message"));
	json_decref(object);
	run_output(&result, "status --json");
	assert_int_equal(result.status, 0);
	object = json_loads(result.text, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(object, "guests")), 0);
	json_decref(object);
	run_output(&result, "devices --json");
	object = json_loads(result.text, 0, NULL);
	assert_true(json_is_array(json_object_get(object, "devices")));
	assert_int_equal(!result.status, json_array_size(json_object_get(object, "devices")) > 0);
	json_decref(object);
}

static void help_is_everywhere(void **state)
{
	static const char *const commands[] = { "run",	  "receive", "migrate", "cancel",
						"status", "stop",    "resolve", "devices" };
	static struct run general, one, other;
	char line[64];

	(void)state;
	run_output(&general, "help");
	assert_int_equal(general.status, 0);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		assert_non_null(strstr(general.text, commands[i]));
		snprintf(line, sizeof(line), "help %s", commands[i]);
		run_output(&one, line);
		assert_int_equal(one.status, 0);
		assert_non_null(strstr(one.text, "Usage: ramlift"));
		snprintf(line, sizeof(line), "%s --help", commands[i]);
		run_output(&other, line);
		assert_int_equal(other.status, 0);
		assert_string_equal(one.text, other.text);
	}
	run_output(&one, "--version");
	assert_int_equal(one.status, 0);
	assert_string_equal(one.text, "ramlift " RAMLIFT_VERSION "\n");
	run_output(&one, "--help");
	assert_string_equal(one.text, general.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_usage_is_one_sentence),
		cmocka_unit_test(unknown_guests_are_one_sentence),
		cmocka_unit_test(missing_keys_are_one_sentence),
		cmocka_unit_test(json_is_one_object),
		cmocka_unit_test(help_is_everywhere),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
