/* SPDX-License-Identifier: Apache-2.0 */
/* Turning dirty tracking on and off for the memory slots of a guest; shared by ring and log. */
#ifndef KVM_DIRTY_SLOTS_H
#define KVM_DIRTY_SLOTS_H

#include "core/ramlift.h"

struct dirty_slots {
	int vm_fd;
	unsigned n;
	struct ramlift_region regions[RAMLIFT_MAX_REGIONS];
	uint32_t slots[RAMLIFT_MAX_REGIONS];
};

/* -EINVAL when there are none or too many regions. */
int dirty_slots_init(struct dirty_slots *slots, int vm_fd, const struct ramlift_region *regions,
		     const uint32_t *slot_numbers, unsigned n, struct ramlift_error *error);

/* Track writes to all slots, or to none on failure. */
int dirty_slots_track(const struct dirty_slots *slots, struct ramlift_error *error);
void dirty_slots_untrack(const struct dirty_slots *slots);

/* The region that has the memory slot; n when none has. */
unsigned dirty_slots_find(const struct dirty_slots *slots, uint32_t slot);

static inline uint64_t dirty_slots_pages(const struct dirty_slots *slots, unsigned region)
{
	return slots->regions[region].size_bytes / RAMLIFT_PAGE_BYTES;
}

#endif
