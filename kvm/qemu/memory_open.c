/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of the files that another process has mapped. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/qemu/memory.h"
#include "kvm/qemu/memory_private.h"

static uint64_t page_bytes(const struct statfs *file_system)
{
	return file_system->f_type == HUGETLBFS_MAGIC ? (uint64_t)file_system->f_bsize
						      : RAMLIFT_PAGE_BYTES;
}

uint64_t memory_path_page_bytes(const char *path)
{
	struct statfs file_system;

	return statfs(path, &file_system) ? RAMLIFT_PAGE_BYTES : page_bytes(&file_system);
}

uint64_t memory_fd_page_bytes(int fd)
{
	struct statfs file_system;

	return fstatfs(fd, &file_system) ? RAMLIFT_PAGE_BYTES : page_bytes(&file_system);
}

const struct memory_file *memory_file_find(const struct memory_file *files, unsigned n_files,
					   uint64_t device, uint64_t inode)
{
	for (unsigned i = 0; i < n_files; i++)
		if (files[i].device == device && files[i].inode == inode)
			return &files[i];
	return NULL;
}

static int read_files(DIR *folder, struct memory_file **files, unsigned *n_files)
{
	const struct dirent *entry;
	unsigned room = 0, n = 0;
	struct stat file;

	*files = NULL;
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.' || fstatat(dirfd(folder), entry->d_name, &file, 0) ||
		    !S_ISREG(file.st_mode))
			continue;
		if (n == room) {
			struct memory_file *grown;

			room = room * 2 + 64;
			grown = realloc(*files, room * sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			*files = grown;
		}
		(*files)[n++] = (struct memory_file){
			.device = file.st_dev,
			.inode = file.st_ino,
			.number = atoi(entry->d_name),
		};
	}
	*n_files = n;
	return 0;
}

int memory_files(pid_t pid, struct memory_file **files, unsigned *n_files,
		 struct ramlift_error *error)
{
	struct memory_file *found = NULL;
	char name[64];
	DIR *folder;
	int ret;

	snprintf(name, sizeof(name), "/proc/%d/fd", (int)pid);
	folder = opendir(name);
	if (!folder)
		return memory_proc_error(pid, -errno, error);
	ret = read_files(folder, &found, n_files);
	closedir(folder);
	if (ret) {
		free(found);
		return error_set(error, ret, "no memory for a list of files");
	}
	*files = found;
	return 0;
}

/* Open a name and see that it is the mapping's file; *why is what stood against it. */
static int try_open(const char *name, const struct memory_mapping *mapping, int *why)
{
	struct stat file;
	int fd = open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		*why = -errno;
		return -1;
	}
	if (fstat(fd, &file) || file.st_dev != mapping->device || file.st_ino != mapping->inode) {
		*why = -ENOENT;
		close(fd);
		return -1;
	}
	return fd;
}

/* Its entry bears the first piece's whole range, which merging has hidden. */
static int open_map_file(pid_t pid, const struct memory_mapping *mapping, int *why)
{
	const struct dirent *entry;
	char name[320];
	uint64_t begin;
	DIR *folder;
	int fd = -1;

	snprintf(name, sizeof(name), "/proc/%d/map_files", (int)pid);
	folder = opendir(name);
	if (!folder) {
		*why = -errno;
		return -1;
	}
	while (fd < 0 && (entry = readdir(folder))) {
		if (sscanf(entry->d_name, "%" SCNx64 "-", &begin) != 1 || begin != mapping->hva)
			continue;
		snprintf(name, sizeof(name), "/proc/%d/map_files/%s", (int)pid, entry->d_name);
		fd = try_open(name, mapping, why);
	}
	closedir(folder);
	return fd;
}

int memory_open(pid_t pid, const struct memory_mapping *mapping, int *result,
		struct ramlift_error *error)
{
	const struct memory_file *file;
	struct memory_file *files;
	char name[PATH_MAX + 64];
	int fd = -1, why = -ENOENT;
	unsigned n_files;
	int ret;

	ret = memory_files(pid, &files, &n_files, error);
	if (ret)
		return ret;
	file = memory_file_find(files, n_files, mapping->device, mapping->inode);
	if (file) {
		snprintf(name, sizeof(name), "/proc/%d/fd/%d", (int)pid, file->number);
		fd = try_open(name, mapping, &why);
	}
	free(files);
	if (fd < 0) {
		/* As QEMU sees it: libvirt gives it file systems of its own. */
		snprintf(name, sizeof(name), "/proc/%d/root%s", (int)pid, mapping->path);
		fd = try_open(name, mapping, &why);
	}
	if (fd < 0)
		fd = open_map_file(pid, mapping, &why);
	if (fd < 0)
		return error_set(error, why,
				 "cannot open the guest's memory %.200s of process %d for writing: "
				 "%s; run ramlift as root, or give QEMU a backend of type "
				 "memory-backend-memfd or memory-backend-file",
				 mapping->path, (int)pid, strerror(-why));
	*result = fd;
	return 0;
}
