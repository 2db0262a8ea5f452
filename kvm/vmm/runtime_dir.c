/* SPDX-License-Identifier: Apache-2.0 */
/* The user's directories: found by the environment, made private, checked before use. */
#include "kvm/vmm/runtime_dir.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

/* A variable's value, NULL where it is unset or empty. */
static const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? value : NULL;
}

static int format_path(char *path, size_t path_bytes, const char *directory, const char *name)
{
	int length = snprintf(path, path_bytes, "%s%s", directory, name);

	return length < 0 || (size_t)length >= path_bytes ? -ENAMETOOLONG : 0;
}

static int runtime_path(char *path, size_t path_bytes)
{
	char fallback[32];

	if (variable("RAMLIFT_RUNTIME_DIR"))
		return format_path(path, path_bytes, variable("RAMLIFT_RUNTIME_DIR"), "");
	if (variable("XDG_RUNTIME_DIR"))
		return format_path(path, path_bytes, variable("XDG_RUNTIME_DIR"), "/ramlift");
	if (!geteuid())
		return format_path(path, path_bytes, "/run/ramlift", "");
	snprintf(fallback, sizeof(fallback), "/tmp/ramlift-%u", (unsigned)geteuid());
	return format_path(path, path_bytes, fallback, "");
}

static int state_path(char *path, size_t path_bytes)
{
	if (variable("RAMLIFT_STATE_DIR"))
		return format_path(path, path_bytes, variable("RAMLIFT_STATE_DIR"), "");
	if (variable("XDG_STATE_HOME"))
		return format_path(path, path_bytes, variable("XDG_STATE_HOME"), "/ramlift");
	if (!geteuid())
		return format_path(path, path_bytes, "/var/lib/ramlift", "");
	if (variable("HOME"))
		return format_path(path, path_bytes, variable("HOME"), "/.local/state/ramlift");
	return -ENOENT;
}

/* mkdir -p with mode 0700 for what is made. */
static int make_all(const char *path)
{
	char part[4096];
	size_t length = strlen(path);

	if (length >= sizeof(part))
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= length; i++) {
		if (path[i] != '/' && path[i])
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, 0700) && errno != EEXIST)
			return -errno;
	}
	return 0;
}

/* The last component must be ours: /tmp/ramlift-<uid> could have been made by anybody. */
static int check_owner(const char *path, struct ramlift_error *error)
{
	struct stat status;

	if (lstat(path, &status))
		return error_set(error, -errno, "cannot use directory %s: %s", path,
				 strerror(errno));
	if (!S_ISDIR(status.st_mode))
		return error_set(error, -ENOTDIR, "%s is not a directory; move it away", path);
	if (status.st_uid != geteuid())
		return error_set(
			error, -EACCES,
			"directory %s belongs to another user; set RAMLIFT_RUNTIME_DIR and "
			"RAMLIFT_STATE_DIR to directories of your own",
			path);
	if (status.st_mode & (S_IWGRP | S_IWOTH))
		return error_set(error, -EACCES,
				 "others may write to directory %s; make it yours: chmod 700 %s",
				 path, path);
	return 0;
}

static int prepare(int ret, const char *what, const char *path, struct ramlift_error *error)
{
	if (ret == -ENOENT)
		return error_set(error, ret, "no %s directory is known; set RAMLIFT_STATE_DIR",
				 what);
	if (ret)
		return error_set(error, ret, "the path of the %s directory is too long", what);
	ret = make_all(path);
	if (ret)
		return error_set(error, ret, "cannot make the %s directory %s: %s", what, path,
				 strerror(-ret));
	return check_owner(path, error);
}

int runtime_dir(char *path, size_t path_bytes, struct ramlift_error *error)
{
	return prepare(runtime_path(path, path_bytes), "runtime", path, error);
}

int state_dir(char *path, size_t path_bytes, struct ramlift_error *error)
{
	return prepare(state_path(path, path_bytes), "state", path, error);
}
