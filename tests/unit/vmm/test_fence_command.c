/* SPDX-License-Identifier: Apache-2.0 */
/* The fence command: what its exit status means, what it is told, and that it ends. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/clock.h"
#include "kvm/vmm/fence_command.h"

static const struct ramlift_doubt doubt = {
	.guest = "db1",
	.session = "00112233445566778899aabbccddeeff",
	.generation = 7,
	.peer = "[2001:db8::1]:7440",
};
static char directory[64];

static int set_up(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/ramlift-test-XXXXXX");
	return mkdtemp(directory) && !setenv("DIR", directory, 1) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	return system(command);
}

static enum ramlift_owner run(const char *command)
{
	return fence_command_run(command, &doubt, 30 * NS_PER_S, -1);
}

static bool exists(const char *name)
{
	char path[128];
	struct stat status;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return !stat(path, &status);
}

static void status_says_the_owner(void **state)
{
	(void)state;
	assert_int_equal(run("exit 0"), RAMLIFT_OWNER_SOURCE);
	assert_int_equal(run("exit 10"), RAMLIFT_OWNER_DESTINATION);
}

/* Statuses with which commands fail without having meant anything. */
static void other_ends_say_nothing(void **state)
{
	(void)state;
	assert_int_equal(run("exit 1"), RAMLIFT_OWNER_UNKNOWN);
	assert_int_equal(run("exit 2"), RAMLIFT_OWNER_UNKNOWN);
	assert_int_equal(run("/nonexistent/fence"), RAMLIFT_OWNER_UNKNOWN);
	assert_int_equal(run("if"), RAMLIFT_OWNER_UNKNOWN);
	assert_int_equal(run("kill -TERM $$"), RAMLIFT_OWNER_UNKNOWN);
	assert_int_equal(run("kill -KILL $$"), RAMLIFT_OWNER_UNKNOWN);
}

static void it_is_told_what_is_known(void **state)
{
	(void)state;
	setenv("RAMLIFT_GUEST", "another", 1);
	assert_int_equal(run("[ \"$RAMLIFT_GUEST $RAMLIFT_SESSION $RAMLIFT_GENERATION "
			     "$RAMLIFT_DESTINATION\" = \"db1 00112233445566778899aabbccddeeff 7 "
			     "[2001:db8::1]:7440\" ] && [ -d \"$DIR\" ]"),
			 RAMLIFT_OWNER_SOURCE);
	unsetenv("RAMLIFT_GUEST");
}

/* As the guest's process is, with signals blocked and ignored, and with descriptors of its own. */
static void it_starts_clean(void **state)
{
	sigset_t all, before;
	int fd = dup(STDERR_FILENO);

	(void)state;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	signal(SIGPIPE, SIG_IGN);
	/* 32 and 33 are glibc's own. */
	assert_int_equal(run("awk '/^Sig(Blk|Ign)/ { if ($2 !~ /^0*(180000000)?$/) exit 5 }' "
			     "/proc/self/status && ! read line"),
			 RAMLIFT_OWNER_SOURCE);
	dup2(fd, 9);
	assert_int_equal(run("[ ! -e /proc/$$/fd/9 ]"), RAMLIFT_OWNER_SOURCE);
	close(9);
	close(fd);
	sigprocmask(SIG_SETMASK, &before, NULL);
	signal(SIGPIPE, SIG_DFL);
}

/* With all that it has started. */
static void too_slow_is_killed(void **state)
{
	uint64_t begin_ns = clock_now_ns();

	(void)state;
	assert_int_equal(fence_command_run("(sleep 2; touch $DIR/child) & sleep 60; exit 0", &doubt,
					   NS_PER_S / 5, -1),
			 RAMLIFT_OWNER_UNKNOWN);
	assert_true(clock_now_ns() - begin_ns < 30 * NS_PER_S);
	sleep(3);
	assert_false(exists("child"));
}

static void an_interrupt_ends_it(void **state)
{
	int interrupt_fd = eventfd(1, 0);

	(void)state;
	assert_int_equal(fence_command_run("sleep 60", &doubt, 3600 * NS_PER_S, interrupt_fd),
			 RAMLIFT_OWNER_UNKNOWN);
	close(interrupt_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(status_says_the_owner, set_up, tear_down),
		cmocka_unit_test_setup_teardown(other_ends_say_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(it_is_told_what_is_known, set_up, tear_down),
		cmocka_unit_test_setup_teardown(it_starts_clean, set_up, tear_down),
		cmocka_unit_test_setup_teardown(too_slow_is_killed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_interrupt_ends_it, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
