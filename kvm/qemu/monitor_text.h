/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU's human monitor prints about RAM, read. Pure: text in, numbers out. */
#ifndef KVM_QEMU_MONITOR_TEXT_H
#define KVM_QEMU_MONITOR_TEXT_H

#include <stdbool.h>
#include <stdint.h>

/* A line of "info ramblock". */
struct monitor_ramblock {
	char name[256];	     /* in the migration stream; empty: not migrated */
	uint64_t size_bytes; /* in use, which is what a migration moves */
	uint64_t hva;	     /* QEMU 8.0 and later; else 0 */
};

/* The next line that is a RAM block; *text moves on. false: there are no more. */
bool monitor_next_ramblock(const char **text, struct monitor_ramblock *block);

/*
 * "info mtree -f": the first range of guest-physical memory that a memory region of this name
 * fills, and where in the region it begins.
 */
bool monitor_find_region(const char *text, const char *region, uint64_t *gpa,
			 uint64_t *offset_bytes);

/* "gpa2hva": the address in QEMU, if it is in the memory region of this name. */
bool monitor_read_hva(const char *text, const char *region, uint64_t *hva);

#endif
