/* SPDX-License-Identifier: Apache-2.0 */
/* What is left of a process's rights, as /proc tells; each case in a child process. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kvm/vmm/privileges.h"

/* A line of /proc/self/status as a hexadecimal number. */
static uint64_t status_of(const char *key)
{
	FILE *file = fopen("/proc/self/status", "r");
	uint64_t value = UINT64_MAX;
	char line[256];

	while (file && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			value = strtoull(line + strlen(key) + 1, NULL, 16);
	}
	if (file)
		fclose(file);
	return value;
}

/* In a process of its own; the number of the check that failed, 0: none. */
static int in_child(int (*check)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(check());
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void needs_root(void)
{
	if (geteuid() || !(status_of("CapEff") & 1ull << CAP_SETPCAP))
		skip();
}

/* Of those that may be kept: a container may have been given fewer. */
static uint64_t to_be_kept(uint64_t capabilities)
{
	return status_of("CapPrm") & capabilities;
}

static int drop_as_we_are(void)
{
	uint64_t had = to_be_kept(1ull << CAP_IPC_LOCK);
	int fd;

	if (privileges_drop(NULL, false, NULL))
		return 1;
	if (status_of("CapPrm") != had || status_of("CapEff") != had)
		return 2;
	if (status_of("CapAmb") || status_of("CapInh"))
		return 3;
	if (status_of("CapBnd") & ~(1ull << CAP_IPC_LOCK))
		return 4;
	if (status_of("NoNewPrivs") != 1)
		return 5;
	/* What belongs to root can still be opened by root. */
	fd = open("/dev/null", O_RDWR);
	return fd < 0 ? 6 : 0;
}

static int drop_but_low_ports(void)
{
	uint64_t kept = to_be_kept(1ull << CAP_IPC_LOCK | 1ull << CAP_NET_BIND_SERVICE);

	return privileges_drop(NULL, true, NULL) || status_of("CapEff") != kept;
}

static int become_nobody(void)
{
	const struct passwd *nobody = getpwnam("nobody");
	uint64_t kept = to_be_kept(1ull << CAP_IPC_LOCK);
	gid_t groups[64] = { 1 };
	int n_groups;

	if (setgroups(2, (gid_t[]){ 0, 1 })) /* root's */
		return 6;
	setenv("XDG_STATE_HOME", "/root/state", 1);
	if (privileges_drop("nobody", false, NULL))
		return 1;
	if (getuid() != nobody->pw_uid || geteuid() != nobody->pw_uid || getgid() != nobody->pw_gid)
		return 2;
	n_groups = getgroups(64, groups);
	if (n_groups > 1 || (n_groups == 1 && groups[0] != nobody->pw_gid))
		return 7;
	if (status_of("CapEff") != kept)
		return 3;
	if (strcmp(getenv("HOME"), nobody->pw_dir) || getenv("XDG_STATE_HOME"))
		return 4;
	if (!setuid(0) || !seteuid(0))
		return 5;
	return 0;
}

static int become_a_stranger(void)
{
	return privileges_drop("no-such-user", false, NULL) == -ENOENT ? 0 : 1;
}

/* What nobody has, nobody keeps; and only root can become somebody else. */
static int drop_without_any(void)
{
	const struct passwd *nobody = getpwnam("nobody");

	if (setgid(nobody->pw_gid) || setuid(nobody->pw_uid))
		return 1;
	if (privileges_drop("daemon", false, NULL) != -EPERM)
		return 2;
	if (privileges_drop(NULL, true, NULL) || status_of("CapPrm"))
		return 3;
	/* Who one is already, one may become. */
	return privileges_drop("nobody", false, NULL) ? 4 : 0;
}

static int forbid_dumps(void)
{
	struct rlimit limit = { 4096, 4096 };

	if (setrlimit(RLIMIT_CORE, &limit))
		return 1;
	privileges_forbid_dumps();
	return getrlimit(RLIMIT_CORE, &limit) || limit.rlim_cur != 0;
}

static void only_locked_memory_is_kept(void **state)
{
	(void)state;
	needs_root();
	assert_int_equal(in_child(drop_as_we_are), 0);
}

static void low_ports_are_kept_on_request(void **state)
{
	(void)state;
	needs_root();
	assert_int_equal(in_child(drop_but_low_ports), 0);
}

static void another_user_is_for_good(void **state)
{
	(void)state;
	needs_root();
	assert_int_equal(in_child(become_nobody), 0);
}

static void unknown_users_are_refused(void **state)
{
	(void)state;
	assert_int_equal(in_child(become_a_stranger), 0);
}

static void nothing_is_gained(void **state)
{
	(void)state;
	needs_root();
	assert_int_equal(in_child(drop_without_any), 0);
}

static void core_dumps_are_off(void **state)
{
	(void)state;
	assert_int_equal(in_child(forbid_dumps), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_locked_memory_is_kept),
		cmocka_unit_test(low_ports_are_kept_on_request),
		cmocka_unit_test(another_user_is_for_good),
		cmocka_unit_test(unknown_users_are_refused),
		cmocka_unit_test(nothing_is_gained),
		cmocka_unit_test(core_dumps_are_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
