/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared memory of a QEMU guest, mapped here, as the regions of a session. Guest-physical
 * addresses are QEMU's business: regions lie one behind the other in the order of the blocks.
 */
#ifndef KVM_QEMU_GUEST_RAM_H
#define KVM_QEMU_GUEST_RAM_H

#include <sys/types.h>

#include "core/ramlift.h"
#include "kvm/qemu/memory.h"

struct guest_ram {
	struct ramlift_region regions[RAMLIFT_MAX_REGIONS];
	unsigned n_regions;
};

/* Map one more block of process pid; the next region is its. What memory_open() and memory_map()
 * return, and -E2BIG. */
int guest_ram_add(struct guest_ram *ram, pid_t pid, const struct memory_mapping *mapping,
		  struct ramlift_error *error);

/* Say where the regions of an offer are, which are as many as this has; their addresses in the
 * guest are the offer's. */
void guest_ram_give(const struct guest_ram *ram, struct ramlift_region *regions);

/* Make a part of one region read as zeros; see memory_clear(). Any thread. */
int guest_ram_clear(const struct guest_ram *ram, void *hva, uint64_t size_bytes,
		    struct ramlift_error *error);

/* Unmap all. Idempotent. */
void guest_ram_fini(struct guest_ram *ram);

#endif
