/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM of another process: which files it has mapped, and the same files mapped here.
 *
 * By /proc/PID/maps and /proc/PID/fd. It knows no QMP, and not which mapping is which RAM block:
 * that is inspect.h.
 */
#ifndef KVM_QEMU_MEMORY_H
#define KVM_QEMU_MEMORY_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/ramlift.h"

/* A part of a file that a process has mapped. */
struct memory_mapping {
	uint64_t hva; /* in that process */
	uint64_t size_bytes;
	uint64_t file_offset; /* in bytes */
	uint64_t device;      /* of the file, as st_dev */
	uint64_t inode;
	char path[PATH_MAX]; /* as in maps: "/memfd:NAME (deleted)", "/dev/shm/db1" */
	bool shared;
	bool writable;
	uint64_t page_size_bytes; /* of the file's pages; hugetlbfs: its huge pages */
};

/*
 * The writable mappings of files in a process, by hva; neighbours that are one piece of one file
 * are one mapping, however madvise(2) has split them. The caller frees the array. -EACCES: no right
 * to look; -ESRCH: no such process; -ENOMEM.
 */
int memory_list(pid_t pid, struct memory_mapping **mappings, unsigned *n_mappings,
		struct ramlift_error *error);

/*
 * A descriptor of the mapping's file for reading and writing; the caller closes it. It is checked
 * to be the same file. -EACCES, -ESRCH; -ENOENT: the file cannot be reached any more.
 */
int memory_open(pid_t pid, const struct memory_mapping *mapping, int *fd,
		struct ramlift_error *error);

/*
 * Map the same memory here, shared. Fills in all of region but its gpa, which the caller may choose
 * and which is left alone. The region owns fd afterwards; after a failure the caller still does.
 * -EINVAL: the file is smaller than the mapping; -ENOMEM and what mmap(2) says.
 */
int memory_map(int fd, const struct memory_mapping *mapping, struct ramlift_region *region,
	       struct ramlift_error *error);

/* Unmap it and close its file. A region of zeros is fine. */
void memory_unmap(struct ramlift_region *region);

/*
 * Make all of the region read as zeros, for a destination: what its QEMU wrote before the guest
 * came. Holes of the file stay holes, pages of zeros are not written. Nobody else may write it
 * meanwhile.
 */
int memory_clear(const struct ramlift_region *region, struct ramlift_error *error);

#endif
