/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load the test guest and set its vCPUs up, straight at user level of 64-bit long mode with
 * identity page tables. All of this happens before the first start; later the VMM writes no guest
 * memory, as dirty rings would not see it.
 */
#include "kvm/vmm/machine_boot.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/error.h"
#include "kvm/vmm/machine_private.h"

#define GIB (1ull << 30)
#define MIB (1ull << 20)

/* Present, writable, for user level; accessed and dirty already, so that the CPU need not write the
 * tables. */
#define PTE_TABLE 0x27ull
#define PTE_LARGE 0xe7ull

#define CR0_PE	       (1ull << 0)
#define CR0_MP	       (1ull << 1)
#define CR0_ET	       (1ull << 4)
#define CR0_NE	       (1ull << 5)
#define CR0_WP	       (1ull << 16)
#define CR0_PG	       (1ull << 31)
#define CR4_PAE	       (1ull << 5)
#define CR4_OSFXSR     (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define RFLAGS_ALWAYS  (1ull << 1)
#define RFLAGS_IOPL3   (3ull << 12)
#define EFER_LME       (1ull << 8)
#define EFER_LMA       (1ull << 10)

extern const unsigned char guest_image[], guest_image_end[];

static uint64_t end_of_ram(const struct machine_memory *memory)
{
	const struct ramlift_region *last = &memory->regions[memory->n_regions - 1];

	return last->gpa + last->size_bytes;
}

static int build_page_tables(struct machine *machine, struct ramlift_error *error)
{
	uint64_t n_gib = (end_of_ram(&machine->memory) + GIB - 1) / GIB;
	uint64_t *pml4 = machine_memory_at(&machine->memory, GUEST_PML4_GPA);
	uint64_t *pdpt = machine_memory_at(&machine->memory, GUEST_PDPT_GPA);
	uint64_t *pds = machine_memory_at(&machine->memory, GUEST_PDS_GPA);
	bool large = machine_cpuid_has_1g_pages(&machine->cpuid);

	if (n_gib > (large ? 512 : GUEST_MAX_PDS))
		return error_set(error, -EINVAL, "the test guest takes up to %llu GiB on this CPU",
				 large ? 511ull : GUEST_MAX_PDS - 1);
	pml4[0] = GUEST_PDPT_GPA | PTE_TABLE;
	for (uint64_t i = 0; i < n_gib; i++) {
		if (large) {
			pdpt[i] = i * GIB | PTE_LARGE;
			continue;
		}
		pdpt[i] = (GUEST_PDS_GPA + i * GUEST_PAGE_BYTES) | PTE_TABLE;
		for (uint64_t j = 0; j < 512; j++)
			pds[i * 512 + j] = (i * GIB + j * 2 * MIB) | PTE_LARGE;
	}
	return 0;
}

static void write_boot_parameters(struct machine *machine)
{
	static const uint64_t patterns[] = {
		[WORKLOAD_UNIFORM] = GUEST_UNIFORM,
		[WORKLOAD_SEQUENTIAL] = GUEST_SEQUENTIAL,
		[WORKLOAD_SKEWED] = GUEST_SKEWED,
	};
	const struct machine_config *config = &machine->config;
	uint64_t n_pages = config->memory_bytes / GUEST_PAGE_BYTES;
	struct guest_boot boot = {
		.n_vcpus = config->n_vcpus,
		.n_pages = n_pages,
		.first_page = guest_first_page(n_pages),
		.hot_pages = config->workload.hot_bytes / GUEST_PAGE_BYTES,
		.fill_percent = config->workload.fill_percent,
		.pattern = patterns[config->workload.pattern],
	};

	memcpy(machine_memory_at(&machine->memory, GUEST_BOOT_GPA), &boot, sizeof(boot));
	memcpy(machine_memory_at(&machine->memory, GUEST_PROGRAM_GPA), guest_image,
	       (uintptr_t)guest_image_end - (uintptr_t)guest_image);
}

static int set_special_registers(int vcpu_fd)
{
	const struct kvm_segment code = {
		.selector = 0x1b,
		.dpl = 3,
		.limit = 0xffffffff,
		.type = 0xb, /* execute, read, accessed */
		.present = 1,
		.s = 1,
		.l = 1,
		.g = 1,
	};
	struct kvm_segment data = code;
	struct kvm_sregs sregs;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs))
		return -errno;
	data.selector = 0x23;
	data.type = 0x3; /* read, write, accessed */
	data.l = 0;
	data.db = 1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	sregs.cr3 = GUEST_PML4_GPA;
	sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	sregs.efer = EFER_LME | EFER_LMA;
	return ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) ? -errno : 0;
}

static int set_registers(int vcpu_fd, unsigned vcpu)
{
	struct kvm_regs regs = {
		.rip = GUEST_PROGRAM_GPA,
		.rsp = GUEST_STACKS_GPA + (vcpu + 1) * GUEST_PAGE_BYTES,
		.rdi = vcpu,
		.rflags = RFLAGS_ALWAYS | RFLAGS_IOPL3, /* interrupts off */
	};
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	int ret = set_special_registers(vcpu_fd);

	if (ret)
		return ret;
	if (ioctl(vcpu_fd, KVM_SET_REGS, &regs) || ioctl(vcpu_fd, KVM_SET_MP_STATE, &runnable))
		return -errno;
	return 0;
}

int machine_boot(struct machine *machine, struct ramlift_error *error)
{
	int ret = build_page_tables(machine, error);

	if (ret)
		return ret;
	write_boot_parameters(machine);
	for (unsigned i = 0; i < machine->config.n_vcpus; i++) {
		ret = set_registers(machine->vcpus.list[i].fd, i);
		if (ret)
			return error_set(error, ret, "cannot set the registers of vCPU %u: %s", i,
					 strerror(-ret));
	}
	return 0;
}
