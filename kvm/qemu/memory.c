/* SPDX-License-Identifier: Apache-2.0 */
/* The mappings of another process, out of /proc/PID/maps (proc(5)). */
#include "kvm/qemu/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "core/error.h"
#include "kvm/qemu/memory_private.h"

#define MAX_MAPPINGS 65536u

struct list {
	struct memory_mapping *mappings;
	unsigned n;
	unsigned room;
};

int memory_proc_error(pid_t pid, int code, struct ramlift_error *error)
{
	if (code == -EACCES || code == -EPERM)
		return error_set(error, -EACCES,
				 "the memory of process %d may not be looked at: run ramlift as "
				 "root, or as the user that QEMU runs as",
				 (int)pid);
	if (code == -ENOENT || code == -ESRCH)
		return error_set(error, -ESRCH, "there is no process %d", (int)pid);
	return error_set(error, code, "cannot look at process %d: %s", (int)pid, strerror(-code));
}

/* A writable piece of a file; false for all other lines. */
static bool parse(const char *line, struct memory_mapping *mapping)
{
	uint64_t begin, end, offset, inode;
	unsigned device_major, device_minor;
	char permissions[5];
	int path_at = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &begin,
		   &end, permissions, &offset, &device_major, &device_minor, &inode,
		   &path_at) < 7 ||
	    !path_at)
		return false;
	if (!inode || strlen(permissions) < 4 || permissions[1] != 'w' || end <= begin)
		return false;
	*mapping = (struct memory_mapping){
		.hva = begin,
		.size_bytes = end - begin,
		.file_offset = offset,
		.device = makedev(device_major, device_minor),
		.inode = inode,
		.shared = permissions[3] == 's',
		.writable = true,
	};
	snprintf(mapping->path, sizeof(mapping->path), "%s", line + path_at);
	mapping->path[strcspn(mapping->path, "\n")] = '\0';
	return true;
}

static bool continues(const struct memory_mapping *mapping, const struct memory_mapping *next)
{
	return next->device == mapping->device && next->inode == mapping->inode &&
	       next->shared == mapping->shared && next->hva == mapping->hva + mapping->size_bytes &&
	       next->file_offset == mapping->file_offset + mapping->size_bytes;
}

static int append(struct list *list, const struct memory_mapping *mapping)
{
	struct memory_mapping *grown;

	if (list->n && continues(&list->mappings[list->n - 1], mapping)) {
		list->mappings[list->n - 1].size_bytes += mapping->size_bytes;
		return 0;
	}
	if (list->n == list->room) {
		if (list->room >= MAX_MAPPINGS)
			return -E2BIG;
		list->room = list->room * 2 + 16;
		grown = realloc(list->mappings, list->room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		list->mappings = grown;
	}
	list->mappings[list->n++] = *mapping;
	return 0;
}

static int read_maps(pid_t pid, struct list *list)
{
	struct memory_mapping mapping;
	char name[64], *line = NULL;
	size_t room = 0;
	FILE *maps;
	int ret = 0;

	snprintf(name, sizeof(name), "/proc/%d/maps", (int)pid);
	maps = fopen(name, "re");
	if (!maps)
		return -errno;
	while (!ret && getline(&line, &room, maps) > 0)
		if (parse(line, &mapping))
			ret = append(list, &mapping);
	if (!ret && ferror(maps))
		ret = -EIO;
	free(line);
	fclose(maps);
	return ret;
}

/* By the descriptor, which also reaches files that have no name any more, or have it elsewhere. */
static void find_page_sizes(pid_t pid, struct list *list, const struct memory_file *files,
			    unsigned n_files)
{
	char name[64];

	for (unsigned i = 0; i < list->n; i++) {
		struct memory_mapping *mapping = &list->mappings[i];
		const struct memory_file *file =
			memory_file_find(files, n_files, mapping->device, mapping->inode);

		if (file)
			snprintf(name, sizeof(name), "/proc/%d/fd/%d", (int)pid, file->number);
		mapping->page_size_bytes = memory_path_page_bytes(file ? name : mapping->path);
	}
}

int memory_list(pid_t pid, struct memory_mapping **mappings, unsigned *n_mappings,
		struct ramlift_error *error)
{
	struct memory_file *files;
	struct list list = { 0 };
	unsigned n_files;
	int ret;

	ret = memory_files(pid, &files, &n_files, error);
	if (ret)
		return ret;
	ret = read_maps(pid, &list);
	if (!ret) {
		find_page_sizes(pid, &list, files, n_files);
		*mappings = list.mappings;
		*n_mappings = list.n;
	} else {
		free(list.mappings);
		memory_proc_error(pid, ret, error);
	}
	free(files);
	return ret;
}
