/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM. Asks for head-room before it allocates: a guest that meets the OOM killer is lost. */
#include "kvm/vmm/machine_memory.h"

#include <errno.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/vmm/guest/layout.h"

#define GIB ((double)(1ull << 30))

unsigned machine_memory_plan(uint64_t memory_bytes, uint64_t page_size_bytes,
			     struct ramlift_region *regions)
{
	uint64_t low_bytes = memory_bytes < GUEST_HOLE_GPA ? memory_bytes : GUEST_HOLE_GPA;

	regions[0] = (struct ramlift_region){
		.gpa = 0,
		.size_bytes = low_bytes,
		.memfd = -1,
		.page_size_bytes = page_size_bytes,
	};
	if (low_bytes == memory_bytes)
		return 1;
	regions[1] = (struct ramlift_region){
		.gpa = GUEST_HOLE_GPA + GUEST_HOLE_BYTES,
		.size_bytes = memory_bytes - low_bytes,
		.memfd = -1,
		.memfd_offset = low_bytes,
		.page_size_bytes = page_size_bytes,
	};
	return 2;
}

/* The number after `key` in a file, or in all of it with key ""; UINT64_MAX when not to be had. */
static uint64_t read_number(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	uint64_t value = UINT64_MAX;
	char line[256];

	if (!file)
		return value;
	while (value == UINT64_MAX && fgets(line, sizeof(line), file)) {
		unsigned long long number;

		if (strncmp(line, key, strlen(key)) == 0 &&
		    sscanf(line + strlen(key), "%llu", &number) == 1)
			value = number;
	}
	fclose(file);
	return value;
}

static int check_huge_pages(uint64_t memory_bytes, uint64_t page_size_bytes,
			    struct ramlift_error *error)
{
	uint64_t needed = memory_bytes / page_size_bytes, free_pages, reserved;
	char dir[80], path[128];

	snprintf(dir, sizeof(dir), "/sys/kernel/mm/hugepages/hugepages-%llukB",
		 (unsigned long long)page_size_bytes >> 10);
	snprintf(path, sizeof(path), "%s/free_hugepages", dir);
	free_pages = read_number(path, "");
	snprintf(path, sizeof(path), "%s/resv_hugepages", dir);
	reserved = read_number(path, "");
	if (free_pages == UINT64_MAX || reserved == UINT64_MAX)
		return error_set(error, -ENOMEM, "this host has no huge pages of %llu MiB",
				 (unsigned long long)page_size_bytes >> 20);
	free_pages = free_pages > reserved ? free_pages - reserved : 0;
	if (free_pages < needed)
		return error_set(error, -ENOMEM,
				 "this host has %llu free huge pages of %llu MiB, the guest needs "
				 "%llu: raise "
				 "%s/nr_hugepages",
				 (unsigned long long)free_pages,
				 (unsigned long long)page_size_bytes >> 20,
				 (unsigned long long)needed, dir);
	return 0;
}

static int check_room(uint64_t memory_bytes, uint64_t page_size_bytes, struct ramlift_error *error)
{
	uint64_t available_kib;

	if (page_size_bytes != RAMLIFT_PAGE_BYTES)
		return check_huge_pages(memory_bytes, page_size_bytes, error);
	available_kib = read_number("/proc/meminfo", "MemAvailable:");
	if (available_kib < memory_bytes >> 10)
		return error_set(
			error, -ENOMEM,
			"this host has %.1f GiB of memory available, the guest needs %.1f GiB",
			(double)(available_kib << 10) / GIB, (double)memory_bytes / GIB);
	return 0;
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
	return 0;
}

int machine_memory_init(struct machine_memory *memory, uint64_t memory_bytes,
			uint64_t page_size_bytes, struct ramlift_error *error)
{
	int ret;

	*memory = (struct machine_memory){ .memfd = -1 };
	ret = check_room(memory_bytes, page_size_bytes, error);
	if (ret)
		return ret;
	memory->memfd = memfd_create("ramlift-guest", memfd_flags(page_size_bytes));
	if (memory->memfd < 0 || ftruncate(memory->memfd, (off_t)memory_bytes)) {
		ret = -errno;
		error_set(error, ret, "cannot make a file of %.1f GiB for guest memory: %s",
			  (double)memory_bytes / GIB, strerror(-ret));
		goto undo;
	}
	memory->n_regions = machine_memory_plan(memory_bytes, page_size_bytes, memory->regions);
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

	if (gpa >= region->size_bytes)
		region = &memory->regions[1];
	return (char *)region->hva + (gpa - region->gpa);
}
