/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up rights; see the header, capabilities(7) and prctl(2). */
#include "kvm/vmm/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"

#define BIT(capability) (1ull << (capability))

/* glibc has no wrappers, and libcap would be a library for two system calls. */
static int get_capabilities(uint64_t *permitted)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capget, &header, data))
		return -errno;
	*permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return 0;
}

static int set_capabilities(uint64_t kept)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
		{ .effective = (uint32_t)kept, .permitted = (uint32_t)kept },
		{ .effective = (uint32_t)(kept >> 32), .permitted = (uint32_t)(kept >> 32) },
	};

	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

/* Without CAP_SETPCAP the set stays, and PR_SET_NO_NEW_PRIVS makes it worthless all the same. */
static void bound_capabilities(uint64_t kept)
{
	for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++) {
		if (!(kept & BIT(capability)))
			(void)prctl(PR_CAPBSET_DROP, capability);
	}
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static int become(const char *user, struct ramlift_error *error)
{
	const struct passwd *entry = getpwnam(user);
	int ret;

	if (!entry)
		return error_set(error, -ENOENT, "--user: there is no user '%.100s'", user);
	if (entry->pw_uid == geteuid() && entry->pw_uid == getuid())
		return 0;
	/* Capabilities survive the change, to be reduced after it. */
	if (prctl(PR_SET_KEEPCAPS, 1) || initgroups(user, entry->pw_gid) ||
	    setresgid(entry->pw_gid, entry->pw_gid, entry->pw_gid) ||
	    setresuid(entry->pw_uid, entry->pw_uid, entry->pw_uid)) {
		ret = -errno;
		return error_set(error, ret, "cannot become user %.100s: %s; only root can", user,
				 strerror(-ret));
	}
	/* The directories are found by these, and they were another user's. */
	if (setenv("HOME", entry->pw_dir, 1) || unsetenv("XDG_RUNTIME_DIR") ||
	    unsetenv("XDG_STATE_HOME"))
		return error_set(error, -ENOMEM, "no memory for the environment of user %.100s",
				 user);
	return 0;
}

int privileges_drop(const char *user, bool keep_low_ports, struct ramlift_error *error)
{
	uint64_t kept = BIT(CAP_IPC_LOCK) | (keep_low_ports ? BIT(CAP_NET_BIND_SERVICE) : 0);
	uint64_t permitted = 0;
	int ret;

	ret = get_capabilities(&permitted);
	if (ret)
		return error_set(error, ret, "cannot read capabilities: %s", strerror(-ret));
	kept &= permitted;
	bound_capabilities(kept);
	if (user) {
		ret = become(user, error);
		if (ret)
			return ret;
	}
	ret = set_capabilities(kept);
	if (!ret && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		ret = -errno;
	return ret ? error_set(error, ret, "cannot give up privileges: %s", strerror(-ret)) : 0;
}

void privileges_forbid_dumps(void)
{
	struct rlimit limit;

	/* Programs that core_pattern names respect 0, too
	 * (systemd-coredump); prlimit(1) undoes it. */
	if (!getrlimit(RLIMIT_CORE, &limit)) {
		limit.rlim_cur = 0;
		(void)setrlimit(RLIMIT_CORE, &limit);
	}
}
