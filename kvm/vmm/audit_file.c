/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit file. Several guests' processes append to it: each line is one write with O_APPEND,
 * and who renames it holds a lock on it. Nobody waits for that lock for long, for its holder may be
 * stopped: then the line goes into a file that is a little too large.
 */
#include "kvm/vmm/audit_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef RAMLIFT_SYSTEMD
#include <syslog.h>
#include <systemd/sd-journal.h>
#endif

#include "core/clock.h"

#define LOCK_TRIES 20
#define LOCK_NS	   (5 * NS_PER_MS)

static bool lock(int fd)
{
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return true;
		clock_sleep_until(clock_now_ns() + LOCK_NS);
	}
	return false;
}

static int open_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? -errno : fd;
}

/* Another process may have renamed it since it was opened. */
static bool is_still(int fd, const char *path)
{
	struct stat opened, named;

	return !fstat(fd, &opened) && !stat(path, &named) && opened.st_ino == named.st_ino &&
	       opened.st_dev == named.st_dev;
}

/* The file to append n_bytes to. */
static int open_with_room(const char *path, size_t n_bytes, size_t max_bytes)
{
	char old[4200];
	struct stat status;
	int fd = open_file(path);

	if (fd < 0 || fstat(fd, &status) || (size_t)status.st_size + n_bytes <= max_bytes)
		return fd;
	snprintf(old, sizeof(old), "%s.1", path);
	if (lock(fd) && is_still(fd, path))
		(void)rename(path, old);
	close(fd);
	return open_file(path);
}

int audit_file_append(const char *directory, const json_t *record, size_t max_bytes)
{
	char *line = json_dumps(record, JSON_COMPACT);
	size_t bytes = line ? strlen(line) + 1 : 0;
	char path[4150];
	ssize_t written;
	int fd, ret = 0;

	if (!line)
		return -ENOMEM;
	line[bytes - 1] = '\n';
	snprintf(path, sizeof(path), "%s/" AUDIT_FILE, directory);
	fd = open_with_room(path, bytes, max_bytes);
	if (fd < 0) {
		free(line);
		return fd;
	}
	written = write(fd, line, bytes);
	if (written != (ssize_t)bytes)
		ret = written < 0 ? -errno : -ENOSPC;
	close(fd);
	free(line);
	return ret;
}

void audit_journal_send(const json_t *record)
{
#ifdef RAMLIFT_SYSTEMD
	char *line = json_dumps(record, JSON_COMPACT);
	const char *guest = json_string_value(json_object_get(record, "guest"));
	const char *session = json_string_value(json_object_get(record, "session"));
	const char *event = json_string_value(json_object_get(record, "event"));

	/* Without a journal this does nothing. */
	if (line)
		(void)sd_journal_send("MESSAGE=ramlift audit: %s", line, "PRIORITY=%d", LOG_NOTICE,
				      "SYSLOG_IDENTIFIER=ramlift", "RAMLIFT_EVENT=%s",
				      event ? event : "", "RAMLIFT_GUEST=%s", guest ? guest : "",
				      "RAMLIFT_SESSION=%s", session ? session : "", NULL);
	free(line);
#else
	(void)record;
#endif
}
