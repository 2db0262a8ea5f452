/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM: one memfd, mapped as one region for each NUMA node that it is split over, without a
 * split as one; the hole from 3 to 4 GiB cuts a region in two. Region i is memory slot i.
 */
#ifndef KVM_VMM_MACHINE_MEMORY_H
#define KVM_VMM_MACHINE_MEMORY_H

#include "kvm/vmm/machine.h"

#define MACHINE_MAX_REGIONS (MACHINE_MAX_NODES + 1)

struct machine_memory {
	int memfd;
	unsigned n_regions;
	struct ramlift_region regions[MACHINE_MAX_REGIONS];
	uint32_t slots[MACHINE_MAX_REGIONS];
};

/* The regions of a machine, of a configuration that passed its check: gpa, size_bytes,
 * page_size_bytes, memfd_offset, numa_node. No allocation. */
unsigned machine_memory_plan(const struct machine_config *config, struct ramlift_region *regions);

/* -ENOMEM and a sentence with what the host has and what the guest needs. Nothing is populated. */
int machine_memory_init(struct machine_memory *memory, const struct machine_config *config,
			struct ramlift_error *error);
int machine_memory_add_to_vm(const struct machine_memory *memory, int vm_fd,
			     struct ramlift_error *error);
void machine_memory_fini(struct machine_memory *memory);

/* The page of guest memory at gpa; it must be inside. */
void *machine_memory_at(const struct machine_memory *memory, uint64_t gpa);

#endif
