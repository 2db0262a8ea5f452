/* SPDX-License-Identifier: Apache-2.0 */
/* The user's directories: chosen by the environment, private, refused where others may write. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/ramlift.h"
#include "kvm/vmm/runtime_dir.h"

static char base[64];

static const char *below(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	return path;
}

static int set_up(void **state)
{
	(void)state;
	strcpy(base, "/tmp/ramlift-test-XXXXXX");
	unsetenv("RAMLIFT_RUNTIME_DIR");
	unsetenv("RAMLIFT_STATE_DIR");
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("XDG_STATE_HOME");
	return mkdtemp(base) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	rmdir(below("a/b"));
	rmdir(below("a"));
	rmdir(below("ramlift"));
	rmdir(below("open"));
	unlink(below("link"));
	unlink(below("file"));
	return rmdir(base);
}

static void own_variable_comes_first(void **state)
{
	struct stat status;
	char path[256];

	(void)state;
	setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
	setenv("RAMLIFT_RUNTIME_DIR", below("a/b"), 1);
	assert_int_equal(runtime_dir(path, sizeof(path), NULL), 0);
	assert_string_equal(path, below("a/b"));
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0700);
}

static void xdg_comes_second(void **state)
{
	char path[256];

	(void)state;
	setenv("XDG_RUNTIME_DIR", base, 1);
	setenv("RAMLIFT_RUNTIME_DIR", "", 1);
	assert_int_equal(runtime_dir(path, sizeof(path), NULL), 0);
	assert_string_equal(path, below("ramlift"));
	setenv("XDG_STATE_HOME", base, 1);
	assert_int_equal(state_dir(path, sizeof(path), NULL), 0);
	assert_string_equal(path, below("ramlift"));
}

static void shared_directories_are_refused(void **state)
{
	struct ramlift_error error;
	char path[256];

	(void)state;
	assert_int_equal(mkdir(below("open"), 0700), 0);
	assert_int_equal(chmod(below("open"), 0777), 0);
	setenv("RAMLIFT_RUNTIME_DIR", below("open"), 1);
	assert_int_equal(runtime_dir(path, sizeof(path), &error), -EACCES);
	assert_non_null(strstr(error.text, "chmod 700"));
	assert_int_equal(symlink("/etc", below("link")), 0);
	setenv("RAMLIFT_RUNTIME_DIR", below("link"), 1);
	assert_int_equal(runtime_dir(path, sizeof(path), &error), -ENOTDIR);
}

static void other_users_directories_are_refused(void **state)
{
	struct ramlift_error error;
	char path[256];

	(void)state;
	if (geteuid())
		setenv("RAMLIFT_RUNTIME_DIR", "/etc", 1);
	else if (mkdir(below("open"), 0700) || chown(below("open"), 65534, 65534))
		skip();
	else
		setenv("RAMLIFT_RUNTIME_DIR", below("open"), 1);
	assert_int_equal(runtime_dir(path, sizeof(path), &error), -EACCES);
	assert_non_null(strstr(error.text, "belongs to another user"));
}

static void what_cannot_be_made_is_said(void **state)
{
	struct ramlift_error error;
	char path[256], large[300];
	FILE *file;

	(void)state;
	file = fopen(below("file"), "w");
	assert_non_null(file);
	fclose(file);
	setenv("RAMLIFT_RUNTIME_DIR", below("file/x"), 1);
	assert_int_equal(runtime_dir(path, sizeof(path), &error), -ENOTDIR);
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	setenv("RAMLIFT_RUNTIME_DIR", large, 1);
	assert_int_equal(runtime_dir(path, sizeof(path), &error), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(own_variable_comes_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(xdg_comes_second, set_up, tear_down),
		cmocka_unit_test_setup_teardown(shared_directories_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(other_users_directories_are_refused, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(what_cannot_be_made_is_said, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
