/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM: one memfd, mapped as one region below 3 GiB and a second one from 4 GiB on. Region i
 * is memory slot i.
 */
#ifndef KVM_VMM_MACHINE_MEMORY_H
#define KVM_VMM_MACHINE_MEMORY_H

#include "core/ramlift.h"

#define MACHINE_MAX_REGIONS 2u

struct machine_memory {
	int memfd;
	unsigned n_regions;
	struct ramlift_region regions[MACHINE_MAX_REGIONS];
	uint32_t slots[MACHINE_MAX_REGIONS];
};

/* The regions of a guest of that size: gpa, size_bytes, page_size_bytes, memfd_offset. No
 * allocation. */
unsigned machine_memory_plan(uint64_t memory_bytes, uint64_t page_size_bytes,
			     struct ramlift_region *regions);

/* -ENOMEM and a sentence with what the host has and what the guest needs. */
int machine_memory_init(struct machine_memory *memory, uint64_t memory_bytes,
			uint64_t page_size_bytes, struct ramlift_error *error);
int machine_memory_add_to_vm(const struct machine_memory *memory, int vm_fd,
			     struct ramlift_error *error);
void machine_memory_fini(struct machine_memory *memory);

/* The page of guest memory at gpa; it must be inside. */
void *machine_memory_at(const struct machine_memory *memory, uint64_t gpa);

#endif
