/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One directory a host. Processes see what was written at once; what is there after the power has
 * failed is what was synced, the file as well as its name, and of the rest any part.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "calls.h"
#include "host.h"
#include "real.h"

int __wrap_open(const char *path, int flags, ...);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
off_t __wrap_lseek(int fd, off_t offset, int whence);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_flock(int fd, int operation);
int __wrap_fstat(int fd, struct stat *status);
int __wrap_stat(const char *path, struct stat *status);
int __wrap_access(const char *path, int mode);
ssize_t __wrap_pread(int fd, void *data, size_t n, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t offset);

int __real_open(const char *path, int flags, ...);
off_t __real_lseek(int fd, off_t offset, int whence);
int __real_access(const char *path, int mode);
int __real_stat(const char *path, struct stat *status);
int __real_fstat(int fd, struct stat *status);

static int fail(int number)
{
	errno = number;
	return -1;
}

void disk_begin(struct host *host)
{
	memset(&host->folder, 0, sizeof(host->folder));
	memset(&host->durable_folder, 0, sizeof(host->durable_folder));
	host->inodes = NULL;
	host->disk_full = false;
}

void disk_end(struct host *host)
{
	while (host->inodes) {
		struct inode *inode = host->inodes;

		host->inodes = inode->next;
		__real_free(inode->data);
		__real_free(inode->durable);
		__real_free(inode);
	}
}

static bool is_ours(const char *path)
{
	return world.current && !strncmp(path, STATE_DIR, strlen(STATE_DIR));
}

static struct host *here(void)
{
	return world.current->process->host;
}

static struct folder_entry *find(struct folder *folder, const char *path)
{
	for (unsigned i = 0; i < folder->n; i++) {
		if (!strcmp(folder->entries[i].name, path))
			return &folder->entries[i];
	}
	return NULL;
}

static void set_bytes(uint8_t **to, size_t *to_size, const uint8_t *from, size_t size)
{
	__real_free(*to);
	*to = __real_malloc(size + 1);
	if (!*to)
		abort();
	if (size)
		memcpy(*to, from, size);
	(*to)[size] = '\0';
	*to_size = size;
}

static struct folder_entry *create(struct host *host, const char *path)
{
	struct folder_entry *entry = &host->folder.entries[host->folder.n];
	struct inode *inode = __real_calloc(1, sizeof(*inode));

	if (!inode || host->folder.n == MAX_FOLDER_ENTRIES || strlen(path) >= sizeof(entry->name))
		abort();
	host->folder.n++;
	strcpy(entry->name, path);
	set_bytes(&inode->data, &inode->size, NULL, 0);
	set_bytes(&inode->durable, &inode->durable_size, NULL, 0);
	inode->next = host->inodes;
	host->inodes = inode;
	entry->inode = inode;
	return entry;
}

int __wrap_open(const char *path, int flags, ...)
{
	struct folder_entry *entry;
	struct file *file;
	int fd, failure;
	va_list arguments;
	mode_t mode;

	if (!is_ours(path)) {
		va_start(arguments, flags);
		mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
		va_end(arguments);
		return __real_open(path, flags, mode);
	}
	task_point();
	failure = call_fails("open", EMFILE);
	if (failure)
		return fail(failure);
	if (!strcmp(path, STATE_DIR)) {
		file = file_new(FILE_FOLDER, &fd);
		return file ? fd : -1;
	}
	entry = find(&here()->folder, path);
	if (!entry && !(flags & O_CREAT))
		return fail(ENOENT);
	if (entry && (flags & O_CREAT) && (flags & O_EXCL))
		return fail(EEXIST);
	file = file_new(FILE_DISK, &fd);
	if (!file)
		return -1;
	if (!entry)
		entry = create(here(), path);
	file->inode = entry->inode;
	file->appends = flags & O_APPEND;
	if (flags & O_TRUNC)
		set_bytes(&file->inode->data, &file->inode->size, NULL, 0);
	return fd;
}

void disk_close(struct file *file)
{
	if (file->inode->locked_by == file)
		file->inode->locked_by = NULL;
	file->inode->n_sharing -= file->shares_lock;
	file->shares_lock = false;
	task_wake(file->inode);
}

ssize_t disk_read(struct file *file, void *data, size_t n)
{
	struct inode *inode = file->inode;
	int failure = call_fails("read", EIO);

	if (failure)
		return fail(failure);
	if (file->type != FILE_DISK)
		return fail(EISDIR);
	if (file->offset >= inode->size)
		return 0;
	if (n > inode->size - file->offset)
		n = inode->size - file->offset;
	if (n > 1 && one_in(8)) /* a signal came */
		n = 1 + random_below(n - 1);
	memcpy(data, inode->data + file->offset, n);
	file->offset += n;
	return (ssize_t)n;
}

static void put(struct inode *inode, size_t offset, const void *data, size_t n)
{
	if (offset + n > inode->size) {
		uint8_t *larger = __real_calloc(1, offset + n + 1);

		if (!larger)
			abort();
		memcpy(larger, inode->data, inode->size);
		__real_free(inode->data);
		inode->data = larger;
		inode->size = offset + n;
	}
	memcpy(inode->data + offset, data, n);
}

/* A crash may come before, in the middle and after; a full disk takes a part or nothing. */
ssize_t disk_write(struct file *file, const void *data, size_t n)
{
	struct inode *inode = file->inode;
	int failure = call_fails("write", ENOSPC);
	size_t first;

	pass_point("write");
	if (here()->disk_full)
		failure = ENOSPC;
	if (failure && (n < 2 || one_in(2)))
		return fail(failure);
	if (failure)
		n = 1 + random_below(n - 1);
	if (file->appends)
		file->offset = inode->size;
	first = random_below(n);
	put(inode, file->offset, data, first);
	pass_point("write");
	put(inode, file->offset + first, (const uint8_t *)data + first, n - first);
	file->offset += n;
	happened(n, "writes %zu bytes to disk", n);
	pass_point("write");
	return (ssize_t)n;
}

int __wrap_fsync(int fd)
{
	struct file *file = file_of(fd);
	int failure = call_fails("fsync", EIO);

	if (!file)
		return fail(EBADF);
	pass_point("fsync");
	task_sleep(random_below(one_in(16) ? 50000000 : 500000));
	if (!failure && here()->disk_full)
		failure = ENOSPC;
	if (failure && one_in(2)) /* else all of it is there, and nobody knows */
		return fail(failure);
	if (file->type == FILE_FOLDER)
		here()->durable_folder = here()->folder;
	else
		set_bytes(&file->inode->durable, &file->inode->durable_size, file->inode->data,
			  file->inode->size);
	happened(3, "syncs %s", file->type == FILE_FOLDER ? "the directory" : "a file");
	pass_point("fsync");
	return failure ? fail(failure) : 0;
}

int __wrap_fdatasync(int fd)
{
	return __wrap_fsync(fd);
}

off_t __wrap_lseek(int fd, off_t offset, int whence)
{
	struct file *file = file_of(fd);
	int failure;

	if (!file)
		return __real_lseek(fd, offset, whence);
	failure = call_fails("lseek", EINVAL);
	if (failure)
		return fail(failure);
	if (whence == SEEK_END)
		offset += (off_t)file->inode->size;
	else if (whence == SEEK_CUR)
		offset += (off_t)file->offset;
	else if (whence != SEEK_SET)
		return fail(EINVAL);
	file->offset = (size_t)offset;
	return offset;
}

int __wrap_ftruncate(int fd, off_t size)
{
	struct file *file = file_of(fd);
	int failure = call_fails("ftruncate", EIO);

	if (!file)
		return fail(EBADF);
	pass_point("write");
	if (failure)
		return fail(failure);
	if ((size_t)size < file->inode->size) {
		file->inode->size = (size_t)size;
		file->inode->data[size] = '\0';
	}
	pass_point("write");
	return 0;
}

int __wrap_rename(const char *from, const char *to)
{
	struct folder *folder = &here()->folder;
	struct folder_entry *entry = find(folder, from), *old = find(folder, to);
	int failure = call_fails("rename", EIO);

	pass_point("write");
	if (failure)
		return fail(failure);
	if (!entry)
		return fail(ENOENT);
	if (old) {
		old->inode = entry->inode;
		*entry = folder->entries[--folder->n];
	} else {
		strcpy(entry->name, to);
	}
	happened(4, "renames %s", from);
	pass_point("write");
	return 0;
}

int __wrap_unlink(const char *path)
{
	struct folder *folder = &here()->folder;
	struct folder_entry *entry = find(folder, path);

	if (!entry)
		return fail(ENOENT);
	*entry = folder->entries[--folder->n];
	return 0;
}

int __wrap_flock(int fd, int operation)
{
	struct file *file = file_of(fd);
	int failure = call_fails("flock", ENOLCK);

	if (!file)
		return fail(EBADF);
	task_point();
	if (failure)
		return fail(failure);
	if (operation & LOCK_UN) {
		disk_close(file);
		return 0;
	}
	disk_close(file); /* a lock is changed by letting it go first */
	while (file->inode->locked_by || (file->inode->n_sharing && operation & LOCK_EX)) {
		if (operation & LOCK_NB)
			return fail(EWOULDBLOCK);
		task_wait(file->inode, NEVER_NS);
	}
	if (operation & LOCK_EX)
		file->inode->locked_by = file;
	file->shares_lock = operation & LOCK_SH;
	file->inode->n_sharing += file->shares_lock;
	return 0;
}

static void fill_in(const struct inode *inode, struct stat *status)
{
	memset(status, 0, sizeof(*status));
	status->st_mode = inode ? S_IFREG | 0600 : S_IFDIR | 0700;
	status->st_size = inode ? (off_t)inode->size : 0;
	status->st_ino = (ino_t)(uintptr_t)inode;
	status->st_nlink = 1;
}

int __wrap_fstat(int fd, struct stat *status)
{
	struct file *file = file_of(fd);

	if (!file)
		return __real_fstat(fd, status);
	fill_in(file->inode, status);
	return 0;
}

int __wrap_stat(const char *path, struct stat *status)
{
	struct folder_entry *entry;

	if (!is_ours(path))
		return __real_stat(path, status);
	entry = find(&here()->folder, path);
	if (!entry && strcmp(path, STATE_DIR))
		return fail(ENOENT);
	fill_in(entry ? entry->inode : NULL, status);
	return 0;
}

int __wrap_access(const char *path, int mode)
{
	if (!is_ours(path))
		return __real_access(path, mode);
	return strcmp(path, STATE_DIR) && !find(&here()->folder, path) ? fail(ENOENT) : 0;
}

ssize_t __wrap_pread(int fd, void *data, size_t n, off_t offset)
{
	struct file *file = file_of(fd);

	if (!file)
		return fail(EBADF);
	file->offset = (size_t)offset;
	return disk_read(file, data, n);
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t offset)
{
	struct file *file = file_of(fd);

	if (!file)
		return fail(EBADF);
	file->offset = (size_t)offset;
	return disk_write(file, data, n);
}

/* Of what was appended and not synced: nothing, a part, all, or zeros in its place. */
static void lose_unsynced(struct inode *inode)
{
	size_t size = inode->size, kept;

	if (size <= inode->durable_size ||
	    memcmp(inode->data, inode->durable, inode->durable_size)) {
		if (one_in(2))
			set_bytes(&inode->data, &inode->size, inode->durable, inode->durable_size);
	} else {
		kept = inode->durable_size + random_below(size - inode->durable_size + 1);
		if (one_in(4))
			memset(inode->data + kept, 0, size - kept);
		else
			inode->size = kept;
		inode->data[inode->size] = '\0';
	}
	set_bytes(&inode->durable, &inode->durable_size, inode->data, inode->size);
}

void disk_power_off(struct host *host)
{
	if (one_in(2)) /* what was done to the directory and not synced is lost, or not */
		host->folder = host->durable_folder;
	else
		host->durable_folder = host->folder;
	for (struct inode *inode = host->inodes; inode; inode = inode->next)
		lose_unsynced(inode);
}

const char *disk_durable_text(const struct host *host, const char *path)
{
	struct folder_entry *entry = find((struct folder *)&host->durable_folder, path);

	return entry ? (const char *)entry->inode->durable : NULL;
}

const char *disk_text(const struct host *host, const char *path)
{
	struct folder_entry *entry = find((struct folder *)&host->folder, path);

	return entry ? (const char *)entry->inode->data : NULL;
}
