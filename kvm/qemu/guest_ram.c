/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/guest_ram.h"

#include <errno.h>
#include <unistd.h>

#include "core/error.h"

int guest_ram_add(struct guest_ram *ram, pid_t pid, const struct memory_mapping *mapping,
		  struct ramlift_error *error)
{
	struct ramlift_region *region = &ram->regions[ram->n_regions];
	int fd, ret;

	if (ram->n_regions == RAMLIFT_MAX_REGIONS)
		return error_set(error, -E2BIG, "a guest with more than %u memory backends",
				 RAMLIFT_MAX_REGIONS);
	ret = memory_open(pid, mapping, &fd, error);
	if (ret)
		return ret;
	ret = memory_map(fd, mapping, region, error);
	if (ret) {
		close(fd);
		return ret;
	}
	region->gpa = ram->n_regions ? region[-1].gpa + region[-1].size_bytes : 0;
	ram->n_regions++;
	return 0;
}

void guest_ram_give(const struct guest_ram *ram, struct ramlift_region *regions)
{
	for (unsigned i = 0; i < ram->n_regions; i++) {
		uint64_t gpa = regions[i].gpa;

		regions[i] = ram->regions[i];
		regions[i].gpa = gpa;
	}
}

int guest_ram_clear(const struct guest_ram *ram, void *hva, uint64_t size_bytes,
		    struct ramlift_error *error)
{
	for (unsigned i = 0; i < ram->n_regions; i++) {
		struct ramlift_region part = ram->regions[i];
		uint64_t offset = (uint64_t)((char *)hva - (char *)part.hva);

		if (hva < part.hva || offset >= part.size_bytes)
			continue;
		part.hva = hva;
		part.memfd_offset += offset;
		part.size_bytes = size_bytes;
		return memory_clear(&part, error);
	}
	return error_set(error, -EINVAL, "a slice is not in guest memory");
}

void guest_ram_fini(struct guest_ram *ram)
{
	for (unsigned i = 0; i < ram->n_regions; i++)
		memory_unmap(&ram->regions[i]);
	ram->n_regions = 0;
}
