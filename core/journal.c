/* SPDX-License-Identifier: Apache-2.0 */
#include "core/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"

static int write_synced(int fd, const char *line, size_t length)
{
	off_t end = lseek(fd, 0, SEEK_END);
	ssize_t n = write(fd, line, length);
	int ret = n < 0 ? -errno : 0;

	if (!ret && (size_t)n != length)
		ret = -ENOSPC;
	if (!ret && fsync(fd))
		ret = -errno;
	/* No half lines, and no promise that was not made. */
	if (ret && end >= 0 && ftruncate(fd, end))
		ret = -errno;
	return ret;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = fsync(fd) ? -errno : 0;
	close(fd);
	return ret;
}

int journal_append(const char *state_dir, const char *guest, const struct journal_entry *entry,
		   struct ramlift_error *error)
{
	char path[PATH_MAX], session[2 * SESSION_ID_BYTES + 1], line[512];
	int fd, length, ret;

	for (unsigned i = 0; i < SESSION_ID_BYTES; i++)
		snprintf(&session[2 * i], 3, "%02x", entry->session_id[i]);
	length = snprintf(line, sizeof(line), "%s session=%s generation=%u peer=%s time=%lld\n",
			  entry->event, session, entry->generation, entry->peer,
			  (long long)time(NULL));
	if (length >= (int)sizeof(line) ||
	    snprintf(path, sizeof(path), "%s/%s.journal", state_dir, guest) >= (int)sizeof(path))
		return error_set(error, -ENAMETOOLONG, "the state directory's path is too long");

	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set(error, -errno, "cannot open the journal %s: %s", path,
				 strerror(errno));
	ret = write_synced(fd, line, (size_t)length);
	close(fd);
	if (!ret)
		ret = sync_folder(state_dir);
	if (ret)
		return error_set(error, ret, "cannot write the journal %s: %s", path,
				 strerror(-ret));
	return 0;
}
