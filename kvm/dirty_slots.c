/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty tracking of memory slots, on and off. When KVM_SET_USER_MEMORY_REGION with
 * KVM_MEM_LOG_DIRTY_PAGES has returned, every further write to the slot is tracked.
 */
#include "kvm/dirty_slots.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/error.h"

int dirty_slots_init(struct dirty_slots *slots, int vm_fd, const struct ramlift_region *regions,
		     const uint32_t *slot_numbers, unsigned n, struct ramlift_error *error)
{
	if (n == 0 || n > RAMLIFT_MAX_REGIONS)
		return error_set(error, -EINVAL,
				 "dirty tracking takes 1 to %u regions of guest memory, not %u",
				 RAMLIFT_MAX_REGIONS, n);
	slots->vm_fd = vm_fd;
	slots->n = n;
	memcpy(slots->regions, regions, n * sizeof(*regions));
	memcpy(slots->slots, slot_numbers, n * sizeof(*slot_numbers));
	return 0;
}

static int set_flags(const struct dirty_slots *slots, unsigned i, uint32_t flags)
{
	struct kvm_userspace_memory_region slot = {
		.slot = slots->slots[i],
		.flags = flags,
		.guest_phys_addr = slots->regions[i].gpa,
		.memory_size = slots->regions[i].size_bytes,
		.userspace_addr = (uintptr_t)slots->regions[i].hva,
	};

	return ioctl(slots->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
}

int dirty_slots_track(const struct dirty_slots *slots, struct ramlift_error *error)
{
	for (unsigned i = 0; i < slots->n; i++) {
		int ret = set_flags(slots, i, KVM_MEM_LOG_DIRTY_PAGES);

		if (!ret)
			continue;
		while (i--)
			set_flags(slots, i, 0);
		return error_set(error, ret,
				 "cannot turn on dirty tracking of guest memory: "
				 "KVM_SET_USER_MEMORY_REGION: %s",
				 strerror(-ret));
	}
	return 0;
}

void dirty_slots_untrack(const struct dirty_slots *slots)
{
	for (unsigned i = 0; i < slots->n; i++)
		set_flags(slots, i, 0);
}

unsigned dirty_slots_find(const struct dirty_slots *slots, uint32_t slot)
{
	unsigned i = 0;

	while (i < slots->n && slots->slots[i] != slot)
		i++;
	return i;
}
