/* SPDX-License-Identifier: Apache-2.0 */
/* Which descriptor of a process is which file; for memory.c and memory_open.c. */
#ifndef KVM_QEMU_MEMORY_PRIVATE_H
#define KVM_QEMU_MEMORY_PRIVATE_H

#include <stdint.h>
#include <sys/types.h>

struct ramlift_error;

struct memory_file {
	uint64_t device;
	uint64_t inode;
	int number; /* in /proc/PID/fd */
};

/* The regular files that a process has open. The caller frees the array.
 * -EACCES, -ESRCH, -ENOMEM. */
int memory_files(pid_t pid, struct memory_file **files, unsigned *n_files,
		 struct ramlift_error *error);

/* The first of that file, or NULL. */
const struct memory_file *memory_file_find(const struct memory_file *files, unsigned n_files,
					   uint64_t device, uint64_t inode);

/* The size of the pages of the file behind a path or a descriptor; 4 KiB if it cannot be told. */
uint64_t memory_path_page_bytes(const char *path);
uint64_t memory_fd_page_bytes(int fd);

/* What failed in /proc/PID, with what to do about it. */
int memory_proc_error(pid_t pid, int code, struct ramlift_error *error);

#endif
