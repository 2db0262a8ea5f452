/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's file. Whoever has it open for reading or writing holds its flock(2): nobody reads a
 * line that may still be taken back, and a file that was replaced meanwhile is opened again.
 */
#include "core/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"

#define LONG_BYTES  (256u << 10) /* begins anew at the next session */
#define MAX_BYTES   (16u << 20)	 /* longer than any journal becomes */
#define KEEP	    128u	 /* sessions of each side when it begins anew */
#define PATIENCE_NS (5 * NS_PER_S)

bool journal_name_fits(const char *guest)
{
	return guest[0] && guest[0] != '.' && strlen(guest) < RAMLIFT_MAX_NAME &&
	       !strchr(guest, '/');
}

static int make_path(char path[PATH_MAX], const char *state_dir, const char *guest,
		     const char *suffix, struct ramlift_error *error)
{
	if (!journal_name_fits(guest))
		return error_set(error, -EINVAL,
				 "there is no journal of a guest of that name: 1 to %u characters, "
				 "no slash, no dot at the start",
				 RAMLIFT_MAX_NAME - 1);
	if (snprintf(path, PATH_MAX, "%s/%s.%s", state_dir, guest, suffix) >= PATH_MAX)
		return error_set(error, -ENAMETOOLONG, "the state directory's path is too long");
	return 0;
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

/* Nobody holds a journal for long, unless it was stopped, or its disk hangs. */
static int lock(int fd, int how, uint64_t patience_ns)
{
	uint64_t deadline_ns = clock_now_ns() + patience_ns;

	while (flock(fd, how | LOCK_NB)) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK || clock_now_ns() >= deadline_ns)
			return -errno;
		clock_sleep_until(clock_now_ns() + NS_PER_MS);
	}
	return 0;
}

/* Open the file that has the name once it is locked. */
static int open_locked(const char *path, int flags, int how, uint64_t patience_ns, int *result)
{
	for (;;) {
		struct stat held, named;
		int fd = open(path, flags | O_CLOEXEC, 0600);
		int ret;

		if (fd < 0)
			return -errno;
		ret = lock(fd, how, patience_ns);
		if (!ret && fstat(fd, &held))
			ret = -errno;
		if (ret) {
			close(fd);
			return ret;
		}
		if (!stat(path, &named) && named.st_ino == held.st_ino &&
		    named.st_dev == held.st_dev) {
			*result = fd;
			return 0;
		}
		close(fd); /* it was replaced */
	}
}

static int write_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t written = write(fd, bytes, n);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -errno;
		if (!written)
			return -ENOSPC;
		bytes += written;
		n -= (size_t)written;
	}
	return 0;
}

/* What a writer left behind that fell in the middle of a line was never promised. */
static int cut_torn_line(int fd, off_t *end)
{
	char bytes[JOURNAL_MAX_LINE];
	struct stat stat_;
	off_t begin;
	ssize_t n = 0;

	if (fstat(fd, &stat_))
		return -errno;
	*end = stat_.st_size;
	begin = *end > (off_t)sizeof(bytes) ? *end - (off_t)sizeof(bytes) : 0;
	while (begin + n < *end) {
		ssize_t got = pread(fd, bytes + n, (size_t)(*end - begin - n), begin + n);

		if (got < 0)
			return -errno;
		if (!got)
			break;
		n += got;
	}
	while (n > 0 && bytes[n - 1] != '\n')
		n--;
	if (!n && begin) /* no line is that long: reading it will say so */
		return -EBADMSG;
	if (begin + n == *end)
		return 0;
	*end = begin + n;
	return ftruncate(fd, *end) ? -errno : 0;
}

/* A line at the end, synced, and with it the folder if the file may be new. */
static int write_synced(int fd, const char *line, const char *folder)
{
	off_t end = -1;
	int ret = cut_torn_line(fd, &end);

	if (ret)
		return ret;
	ret = write_all(fd, line, strlen(line));
	if (!ret && fsync(fd))
		ret = -errno;
	if (!ret && folder)
		ret = sync_folder(folder);
	/* No half lines, and no promise that was not made. */
	if (ret && (ftruncate(fd, end) || fsync(fd)))
		return -errno;
	return ret;
}

static int read_all(int fd, char **text, size_t *n_bytes)
{
	struct stat stat_;
	size_t n = 0;
	char *bytes;

	if (fstat(fd, &stat_))
		return -errno;
	if (stat_.st_size > MAX_BYTES)
		return -EFBIG;
	bytes = malloc((size_t)stat_.st_size + 1);
	if (!bytes)
		return -ENOMEM;
	while (n < (size_t)stat_.st_size) {
		ssize_t got = pread(fd, bytes + n, (size_t)stat_.st_size - n, (off_t)n);

		if (got < 0) {
			int ret = -errno;

			free(bytes);
			return ret;
		}
		if (!got)
			break;
		n += (size_t)got;
	}
	*text = bytes;
	*n_bytes = n;
	return 0;
}

static int read_history(int fd, const char *path, struct journal_history *history,
			struct ramlift_error *error)
{
	unsigned bad_line = 0;
	size_t n_bytes = 0;
	char *text = NULL;
	int ret = read_all(fd, &text, &n_bytes);

	if (ret)
		return error_set(error, ret, "cannot read the journal %s: %s", path,
				 strerror(-ret));
	ret = journal_decode(text, n_bytes, history, &bad_line);
	free(text);
	if (ret == -EBADMSG)
		return error_set(error, ret,
				 "line %u of the journal %s makes no sense: look at it, and move "
				 "the file away if it is none of Ramlift's",
				 bad_line, path);
	if (ret)
		return error_set(error, ret, "no memory for the journal %s", path);
	return 0;
}

/* The newest sessions of each side, and what is not settled. */
static bool is_kept(const struct journal_history *history, unsigned index)
{
	const struct journal_entry *session = &history->sessions[index];
	unsigned newer = 0;

	if (session->event == JOURNAL_COMMIT || session->event == JOURNAL_RECEIVE)
		return true;
	for (unsigned i = index + 1; i < history->n_sessions; i++)
		newer += history->sessions[i].side == session->side;
	return newer < KEEP;
}

static int write_kept(int fd, const struct journal_history *history)
{
	for (unsigned i = 0; i < history->n_sessions; i++) {
		char line[JOURNAL_MAX_LINE];
		int ret;

		if (!is_kept(history, i))
			continue;
		ret = journal_encode(&history->sessions[i], line);
		if (!ret)
			ret = write_all(fd, line, strlen(line));
		if (ret)
			return ret;
	}
	return fsync(fd) ? -errno : 0;
}

/*
 * Put a shorter file in the place of the one that is locked by fd: each session's last word. On
 * failure the old one stays. The new one is locked as well before it can be seen.
 */
static int begin_anew(int *fd, const char *path, const char *state_dir)
{
	struct journal_history history;
	char fresh[PATH_MAX];
	int ret, new_fd;

	if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
		return -ENAMETOOLONG;
	ret = read_history(*fd, path, &history, NULL);
	if (ret)
		return ret;
	new_fd = open(fresh, O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ret = new_fd < 0 ? -errno : lock(new_fd, LOCK_EX, PATIENCE_NS);
	if (!ret)
		ret = write_kept(new_fd, &history);
	journal_history_fini(&history);
	if (!ret && rename(fresh, path))
		ret = -errno;
	if (ret) {
		unlink(fresh);
		if (new_fd >= 0)
			close(new_fd);
		return ret;
	}
	close(*fd);
	*fd = new_fd;
	return sync_folder(state_dir);
}

int journal_append(const char *state_dir, const char *guest, const struct journal_entry *entry,
		   struct ramlift_error *error)
{
	/* Nothing is promised yet: there is time to tidy up, and the file may be new. */
	bool begins = entry->event == JOURNAL_BEGIN || entry->event == JOURNAL_RECEIVE;
	struct journal_entry timed = *entry;
	char path[PATH_MAX], line[JOURNAL_MAX_LINE];
	struct stat stat_;
	int fd, ret;

	ret = make_path(path, state_dir, guest, "journal", error);
	if (ret)
		return ret;
	timed.time_s = time(NULL);
	if (journal_encode(&timed, line))
		return error_set(error, -EINVAL, "the peer's name is no word for a journal");
	ret = open_locked(path, O_RDWR | O_APPEND | O_CREAT, LOCK_EX, PATIENCE_NS, &fd);
	if (ret)
		return error_set(error, ret, "cannot open the journal %s: %s", path,
				 strerror(-ret));
	if (begins && !fstat(fd, &stat_) && stat_.st_size > LONG_BYTES)
		begin_anew(&fd, path, state_dir); /* or the next time */
	ret = write_synced(fd, line, begins ? state_dir : NULL);
	close(fd);
	if (ret)
		return error_set(error, ret, "cannot write the journal %s: %s", path,
				 strerror(-ret));
	return 0;
}

int journal_append_timed(const char *state_dir, const char *guest,
			 const struct journal_entry *entry, uint64_t enough_ns, uint64_t *took_ns,
			 struct ramlift_error *error)
{
	uint64_t clock_ns = clock_now_ns(), again_ns;
	int ret = journal_append(state_dir, guest, entry, error);

	*took_ns = clock_lap_ns(&clock_ns);
	if (ret || *took_ns < enough_ns)
		return ret;
	ret = journal_append(state_dir, guest, entry, error);
	again_ns = clock_lap_ns(&clock_ns);
	if (again_ns < *took_ns)
		*took_ns = again_ns;
	return ret;
}

int journal_read(const char *state_dir, const char *guest, struct journal_history *history,
		 struct ramlift_error *error)
{
	char path[PATH_MAX];
	int fd, ret;

	ret = make_path(path, state_dir, guest, "journal", error);
	if (ret)
		return ret;
	ret = open_locked(path, O_RDONLY, LOCK_SH, PATIENCE_NS, &fd);
	if (ret == -ENOENT) {
		*history = (struct journal_history){ 0 };
		return 0;
	}
	if (ret)
		return error_set(error, ret, "cannot open the journal %s: %s", path,
				 strerror(-ret));
	ret = fsync(fd) ? -errno : 0;
	if (ret)
		error_set(error, ret, "cannot sync the journal %s: %s", path, strerror(-ret));
	else
		ret = read_history(fd, path, history, error);
	close(fd);
	return ret;
}

int journal_lock(const char *state_dir, const char *guest, enum side side, int *lock_fd,
		 struct ramlift_error *error)
{
	char path[PATH_MAX];
	int ret = make_path(path, state_dir, guest, side == SIDE_SOURCE ? "source-lock" : "lock",
			    error);

	if (ret)
		return ret;
	ret = open_locked(path, O_RDWR | O_CREAT, LOCK_EX, 0, lock_fd);
	if (ret == -EWOULDBLOCK)
		return error_set(error, -EBUSY,
				 "a session of %s lives already: another process has locked %s",
				 guest, path);
	if (ret)
		return error_set(error, ret, "cannot lock %s: %s", path, strerror(-ret));
	return 0;
}
