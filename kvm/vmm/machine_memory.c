/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM planned, mapped and given to KVM; see the header. */
#include "kvm/vmm/machine_memory.h"

#include <errno.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/vmm/guest/layout.h"
#include "kvm/vmm/machine_numa.h"
#include "kvm/vmm/machine_room.h"

#define GIB ((double)(1ull << 30))

/* A part of RAM, as one region or, across the hole, two; offsets are those in the memfd, which has
 * no hole. */
static unsigned plan_part(struct ramlift_region *regions, uint64_t begin, uint64_t end,
			  uint64_t page_size_bytes, int numa_node)
{
	bool split = begin < GUEST_HOLE_GPA && end > GUEST_HOLE_GPA;

	regions[0] = (struct ramlift_region){
		.gpa = begin < GUEST_HOLE_GPA ? begin : begin + GUEST_HOLE_BYTES,
		.size_bytes = (split ? GUEST_HOLE_GPA : end) - begin,
		.memfd = -1,
		.memfd_offset = begin,
		.page_size_bytes = page_size_bytes,
		.numa_node = numa_node,
	};
	return split ? 1 + plan_part(regions + 1, GUEST_HOLE_GPA, end, page_size_bytes, numa_node)
		     : 1;
}

unsigned machine_memory_plan(const struct machine_config *config, struct ramlift_region *regions)
{
	uint64_t page = config->page_size_bytes, n_pages = config->memory_bytes / page;
	unsigned n_parts = config->n_numa_nodes ? config->n_numa_nodes : 1, n = 0;
	uint64_t begin = 0;

	for (unsigned i = 0; i < n_parts; i++) {
		uint64_t end = begin + (n_pages / n_parts + (i < n_pages % n_parts)) * page;

		n += plan_part(regions + n, begin, end, page,
			       config->n_numa_nodes ? config->numa_nodes[i] : -1);
		begin = end;
	}
	return n;
}

static unsigned memfd_flags(uint64_t page_size_bytes)
{
	unsigned shift = (unsigned)__builtin_ctzll(page_size_bytes);

	return MFD_CLOEXEC |
	       (page_size_bytes == RAMLIFT_PAGE_BYTES ? 0 : MFD_HUGETLB | shift << MFD_HUGE_SHIFT);
}

static int map_region(struct machine_memory *memory, struct ramlift_region *region,
		      struct ramlift_error *error)
{
	void *hva = mmap(NULL, region->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			 memory->memfd, (off_t)region->memfd_offset);
	int ret = -errno;

	if (hva == MAP_FAILED)
		return error_set(error, ret, "cannot map %.1f GiB of guest memory: %s",
				 (double)region->size_bytes / GIB, strerror(-ret));
	region->hva = hva;
	region->memfd = memory->memfd;
	(void)madvise(hva, region->size_bytes, MADV_DONTDUMP); /* core dumps stay small */
	return machine_numa_bind(region, error);
}

int machine_memory_init(struct machine_memory *memory, const struct machine_config *config,
			struct ramlift_error *error)
{
	int ret;

	*memory = (struct machine_memory){ .memfd = -1 };
	memory->n_regions = machine_memory_plan(config, memory->regions);
	ret = machine_room_check(memory->regions, memory->n_regions, error);
	if (ret)
		return ret;
	memory->memfd = memfd_create("ramlift-guest", memfd_flags(config->page_size_bytes));
	if (memory->memfd < 0 || ftruncate(memory->memfd, (off_t)config->memory_bytes)) {
		ret = -errno;
		error_set(error, ret, "cannot make a file of %.1f GiB for guest memory: %s",
			  (double)config->memory_bytes / GIB, strerror(-ret));
		goto undo;
	}
	for (unsigned i = 0; i < memory->n_regions; i++) {
		memory->slots[i] = i;
		ret = map_region(memory, &memory->regions[i], error);
		if (ret)
			goto undo;
	}
	return 0;

undo:
	machine_memory_fini(memory);
	return ret;
}

int machine_memory_add_to_vm(const struct machine_memory *memory, int vm_fd,
			     struct ramlift_error *error)
{
	for (unsigned i = 0; i < memory->n_regions; i++) {
		struct kvm_userspace_memory_region slot = {
			.slot = memory->slots[i],
			.guest_phys_addr = memory->regions[i].gpa,
			.memory_size = memory->regions[i].size_bytes,
			.userspace_addr = (uintptr_t)memory->regions[i].hva,
		};

		if (ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot)) {
			int ret = -errno;

			return error_set(error, ret,
					 "cannot give the guest its memory: "
					 "KVM_SET_USER_MEMORY_REGION: %s",
					 strerror(-ret));
		}
	}
	return 0;
}

void machine_memory_fini(struct machine_memory *memory)
{
	for (unsigned i = 0; i < memory->n_regions; i++) {
		if (memory->regions[i].hva)
			munmap(memory->regions[i].hva, memory->regions[i].size_bytes);
	}
	if (memory->memfd >= 0)
		close(memory->memfd);
	*memory = (struct machine_memory){ .memfd = -1 };
}

void *machine_memory_at(const struct machine_memory *memory, uint64_t gpa)
{
	const struct ramlift_region *region = &memory->regions[0];

	while (gpa >= region->gpa + region->size_bytes)
		region++;
	return (char *)region->hva + (gpa - region->gpa);
}
