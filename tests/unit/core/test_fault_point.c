/* SPDX-License-Identifier: Apache-2.0 */
/* What the environment asks for happens at the point it names, once, and nowhere else. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fault_point.h"
#include "tests/support/cmocka_all.h"

/* In a process of its own, with RAMLIFT_FAULT as given: how often it passed here-and-there until it
 * ended, or 100 + the signal that ended or stopped it. */
static int passes(const char *fault, int n_passes)
{
	pid_t child = fork();
	int status;

	if (!child) {
		int failed = 0;

		setenv("RAMLIFT_FAULT", fault, 1);
		for (int i = 0; i < n_passes; i++) {
			FAULT_POINT("here");
			failed += FAULT_ASKED("here-and-there", "own-way");
		}
		_exit(failed);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, WUNTRACED), child);
	if (!WIFSTOPPED(status))
		return WIFSIGNALED(status) ? 100 + WTERMSIG(status) : WEXITSTATUS(status);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	return 100 + WSTOPSIG(status);
}

static void test_kill_and_stop(void **state)
{
	(void)state;
	assert_int_equal(passes("here:kill", 1), 100 + SIGKILL);
	assert_int_equal(passes("here:stop", 1), 100 + SIGSTOP);
	assert_int_equal(passes("here-and-there:kill", 1), 100 + SIGKILL);
}

static void test_own_way_once(void **state)
{
	(void)state;
	assert_int_equal(passes("here-and-there:own-way", 5), 1);
}

static void test_nth_time(void **state)
{
	(void)state;
	assert_int_equal(passes("here:kill:3", 2), 0);
	assert_int_equal(passes("here:kill:3", 3), 100 + SIGKILL);
	assert_int_equal(passes("here-and-there:own-way:5", 5), 1);
	assert_int_equal(passes("here-and-there:own-way:6", 5), 0);
}

static void test_others_do_nothing(void **state)
{
	(void)state;
	assert_int_equal(passes("", 1), 0);
	assert_int_equal(passes("her:kill", 1), 0);
	assert_int_equal(passes("here-and:kill", 1), 0);
	assert_int_equal(passes("here:own-way", 1), 0);
	assert_int_equal(passes("here-and-there:killed", 1), 0);
	assert_int_equal(passes("here-and-there:other-way", 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kill_and_stop),
		cmocka_unit_test(test_own_way_once),
		cmocka_unit_test(test_nth_time),
		cmocka_unit_test(test_others_do_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
