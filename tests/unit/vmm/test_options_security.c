/* SPDX-License-Identifier: Apache-2.0 */
/* Options of protection and patience: what is taken from the command line and from a request, and
 * what is not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kvm/vmm/options_security.h"

static struct option_security security;

static int set_up(void **state)
{
	(void)state;
	memset(&security, 0, sizeof(security));
	return 0;
}

static void paths_become_absolute(void **state)
{
	char here[PATH_MAX], path[PATH_MAX], wanted[PATH_MAX + 8];

	(void)state;
	assert_int_equal(option_path("--tls-dir", "/etc/ramlift", path, NULL), 0);
	assert_string_equal(path, "/etc/ramlift");
	assert_non_null(getcwd(here, sizeof(here)));
	assert_int_equal(option_path("--tls-dir", "tls", path, NULL), 0);
	snprintf(wanted, sizeof(wanted), "%s/tls", here);
	assert_string_equal(path, wanted);
}

static void bad_paths_are_refused(void **state)
{
	char path[PATH_MAX] = "untouched", longest[2 * PATH_MAX];

	(void)state;
	assert_int_equal(option_path("--tls-dir", "", path, NULL), -EINVAL);
	memset(longest, 'a', sizeof(longest));
	longest[0] = '/';
	longest[PATH_MAX] = '\0';
	assert_int_equal(option_path("--tls-dir", longest, path, NULL), -ENAMETOOLONG);
	assert_int_equal(option_path("--tls-dir", longest + 1, path, NULL), -ENAMETOOLONG);
	assert_string_equal(path, "untouched");
	longest[PATH_MAX - 1] = '\0';
	assert_int_equal(option_path("--tls-dir", longest, path, NULL), 0);
}

static void patterns_are_counted_and_bounded(void **state)
{
	char pattern[OPTION_MAX_ALLOW_BYTES + 1];

	(void)state;
	assert_int_equal(option_allow("", &security, NULL), -EINVAL);
	memset(pattern, 'x', sizeof(pattern));
	pattern[OPTION_MAX_ALLOW_BYTES] = '\0';
	assert_int_equal(option_allow(pattern, &security, NULL), -EINVAL);
	pattern[OPTION_MAX_ALLOW_BYTES - 1] = '\0';
	assert_int_equal(option_allow(pattern, &security, NULL), 0);
	for (unsigned i = 1; i < OPTION_MAX_ALLOW; i++)
		assert_int_equal(option_allow("*.example.org", &security, NULL), 0);
	assert_int_equal(option_allow("*", &security, NULL), -ERANGE);
	assert_int_equal(security.n_allow, OPTION_MAX_ALLOW);
	assert_string_equal(security.allow[0], pattern);
	assert_string_equal(security.allow[31], "*.example.org");
}

static void contradictions_are_refused(void **state)
{
	(void)state;
	assert_int_equal(option_security_check(&security, NULL), 0);
	option_allow("*", &security, NULL);
	assert_int_equal(option_security_check(&security, NULL), -EINVAL);
	strcpy(security.tls_dir, "/tls");
	assert_int_equal(option_security_check(&security, NULL), 0);
	security.insecure = true;
	assert_int_equal(option_security_check(&security, NULL), -EINVAL);
	security.insecure = false;
	strcpy(security.psk_file, "/key");
	assert_int_equal(option_security_check(&security, NULL), -EINVAL);
	security.n_allow = 0;
	security.tls_dir[0] = '\0';
	assert_int_equal(option_security_check(&security, NULL), 0);
	security.insecure = true;
	assert_int_equal(option_security_check(&security, NULL), -EINVAL);
}

static void waits_are_bounded(void **state)
{
	uint64_t ns = 5;

	(void)state;
	assert_int_equal(option_wait("--peer-timeout", "0", &ns, NULL), -ERANGE);
	assert_int_equal(option_wait("--peer-timeout", "3601", &ns, NULL), -ERANGE);
	assert_int_equal(option_wait("--peer-timeout", "1.5", &ns, NULL), -EINVAL);
	assert_int_equal(ns, 5);
	assert_int_equal(option_wait("--peer-timeout", "3600", &ns, NULL), 0);
	assert_int_equal(ns, 3600000000000);
}

static void requests_say_the_same(void **state)
{
	struct option_security taken = { .n_allow = 0 };
	json_t *request = json_object();

	(void)state;
	option_path("--tls-dir", "/tls", security.tls_dir, NULL);
	option_allow("a*", &security, NULL);
	option_allow("b?", &security, NULL);
	security.peer_timeout_ns = 2000000000;
	security.io_timeout_ns = 7000000000;
	option_security_put(&security, request);
	assert_int_equal(option_security_take(&taken, request, NULL), 0);
	assert_string_equal(taken.tls_dir, "/tls");
	assert_string_equal(taken.psk_file, "");
	assert_int_equal(taken.n_allow, 2);
	assert_string_equal(taken.allow[1], "b?");
	assert_ptr_equal(taken.allow[1], taken.patterns[1]);
	assert_false(taken.insecure);
	assert_int_equal(taken.peer_timeout_ns, 2000000000);
	assert_int_equal(taken.io_timeout_ns, 7000000000);
	json_decref(request);
}

static void other_ways_of_protection_travel(void **state)
{
	struct option_security taken = { .n_allow = 0 };
	json_t *request = json_object();

	(void)state;
	security.insecure = true;
	option_security_put(&security, request);
	assert_int_equal(option_security_take(&taken, request, NULL), 0);
	assert_true(taken.insecure);
	security.insecure = false;
	strcpy(security.psk_file, "/key");
	json_object_clear(request);
	option_security_put(&security, request);
	memset(&taken, 0, sizeof(taken));
	assert_int_equal(option_security_take(&taken, request, NULL), 0);
	assert_string_equal(taken.psk_file, "/key");
	assert_false(taken.insecure);
	json_decref(request);
}

static void forged_requests_are_refused(void **state)
{
	static const char *const forged[] = {
		"{\"tls_dir\": \"relative\"}",
		"{\"tls_dir\": 1}",
		"{\"psk_file\": \"\"}",
		"{\"tls_dir\": \"/a\", \"psk_file\": \"/b\"}",
		"{\"tls_dir\": \"/a\", \"insecure\": true}",
		"{\"insecure\": \"yes\"}",
		"{\"tls_dir\": \"/a\", \"allow\": \"*\"}",
		"{\"tls_dir\": \"/a\", \"allow\": [1]}",
		"{\"allow\": [\"*\"]}",
		"{\"peer_timeout_ns\": 0}",
		"{\"peer_timeout_ns\": -1}",
		"{\"io_timeout_ns\": 3600000000001}",
		"{\"io_timeout_ns\": \"4\"}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
		struct option_security taken = { .n_allow = 0 };
		json_t *request = json_loads(forged[i], 0, NULL);

		assert_non_null(request);
		assert_int_equal(option_security_take(&taken, request, NULL), -EINVAL);
		json_decref(request);
	}
}

static void defaults_stay_where_nothing_was_said(void **state)
{
	struct ramlift_timeouts timeouts = { .heartbeat_ns = 4, .io_ns = 5 };
	struct ramlift_security config = { .insecure = true };

	(void)state;
	option_security_apply(&security, &config, &timeouts);
	assert_null(config.tls_dir);
	assert_null(config.psk_file);
	assert_false(config.insecure);
	assert_int_equal(timeouts.heartbeat_ns, 4);
	assert_int_equal(timeouts.io_ns, 5);
	strcpy(security.tls_dir, "/tls");
	option_allow("*", &security, NULL);
	security.io_timeout_ns = 9;
	security.peer_timeout_ns = 8;
	option_security_apply(&security, &config, &timeouts);
	assert_string_equal(config.tls_dir, "/tls");
	assert_int_equal(config.n_allow, 1);
	assert_string_equal(config.allow[0], "*");
	assert_int_equal(timeouts.heartbeat_ns, 8);
	assert_int_equal(timeouts.io_ns, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(paths_become_absolute, set_up),
		cmocka_unit_test_setup(bad_paths_are_refused, set_up),
		cmocka_unit_test_setup(patterns_are_counted_and_bounded, set_up),
		cmocka_unit_test_setup(contradictions_are_refused, set_up),
		cmocka_unit_test_setup(waits_are_bounded, set_up),
		cmocka_unit_test_setup(requests_say_the_same, set_up),
		cmocka_unit_test_setup(other_ways_of_protection_travel, set_up),
		cmocka_unit_test_setup(forged_requests_are_refused, set_up),
		cmocka_unit_test_setup(defaults_stay_where_nothing_was_said, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
