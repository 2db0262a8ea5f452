/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's life: made, run, paused, freed. What it consists of is in the machine_*.c files. */
#include "kvm/vmm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/vmm/machine_boot.h"
#include "kvm/vmm/machine_numa.h"
#include "kvm/vmm/machine_private.h"

#define MIB	      (1ull << 20)
#define TSS_GPA	      0xfffbd000ull /* three pages in the hole below 4 GiB, which Intel CPUs need */
#define FILL_USUAL    75u
#define TSC_TOLERANCE 100 /* one part in */

void machine_config_init(struct machine_config *config)
{
	*config = (struct machine_config){
		.memory_bytes = 256 * MIB,
		.page_size_bytes = RAMLIFT_PAGE_BYTES,
		.n_vcpus = 1,
		.dirty_mode = MACHINE_DIRTY_RING,
		.dirty_ring_entries = 4096,
		.workload = {
			.hot_bytes = 16 * MIB,
			.pages_per_second = 1000,
			.pattern = WORKLOAD_UNIFORM,
			.fill_percent = FILL_USUAL,
		},
	};
}

uint64_t machine_stamped_bytes(const struct machine_config *config)
{
	uint64_t n_pages = config->memory_bytes / GUEST_PAGE_BYTES;
	uint64_t share = (n_pages - guest_first_page(n_pages)) / config->n_vcpus;
	unsigned fill = config->workload.fill_percent ? config->workload.fill_percent : FILL_USUAL;

	return share * fill / 100 * config->n_vcpus * GUEST_PAGE_BYTES;
}

static int check_nodes(const struct machine_config *config, struct ramlift_error *error)
{
	unsigned n = config->n_numa_nodes;

	if (n > MACHINE_MAX_NODES || n > config->memory_bytes / config->page_size_bytes)
		return error_set(error, -EINVAL,
				 "the guest's memory cannot be split over %u NUMA nodes: take at "
				 "most %u, and no more than it has host pages",
				 n, MACHINE_MAX_NODES);
	for (unsigned i = 0; i < n; i++) {
		if (config->numa_nodes[i] < -1 || config->numa_nodes[i] >= MACHINE_NUMA_NODE_LIMIT)
			return error_set(error, -EINVAL,
					 "the guest's memory is to be on NUMA node %d: they are "
					 "numbered from 0 to %d",
					 config->numa_nodes[i], MACHINE_NUMA_NODE_LIMIT - 1);
	}
	return 0;
}

int machine_config_check(const struct machine_config *config, struct ramlift_error *error)
{
	uint64_t page = config->page_size_bytes;
	const struct workload *workload = &config->workload;

	if (page != 4096 && page != 2 * MIB && page != 1024 * MIB)
		return error_set(
			error, -EINVAL,
			"guest memory on pages of %llu bytes cannot be: take 4 KiB, 2 MiB or 1 GiB",
			(unsigned long long)page);
	if (config->memory_bytes < 16 * MIB || config->memory_bytes % page ||
	    config->memory_bytes > 500 * 1024 * MIB)
		return error_set(
			error, -EINVAL,
			"a guest of %llu bytes cannot be: take a multiple of its page size from "
			"16 MiB to 500 GiB",
			(unsigned long long)config->memory_bytes);
	if (!config->n_vcpus || config->n_vcpus > MACHINE_MAX_VCPUS)
		return error_set(error, -EINVAL, "a guest has 1 to %u vCPUs, not %u",
				 MACHINE_MAX_VCPUS, config->n_vcpus);
	if (workload->hot_bytes > config->memory_bytes)
		return error_set(
			error, -EINVAL,
			"the guest's hot set of %llu MiB is larger than its memory of %llu MiB",
			(unsigned long long)workload->hot_bytes / MIB,
			(unsigned long long)config->memory_bytes / MIB);
	if (workload->pattern > WORKLOAD_SKEWED || workload->fill_percent > 100)
		return error_set(
			error, -EINVAL,
			"the guest's workload has a pattern or a fill that does not exist");
	return check_nodes(config, error);
}

static int open_vm(struct machine *machine, struct ramlift_error *error)
{
	int ret;

	machine->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (machine->kvm_fd < 0) {
		ret = -errno;
		if (ret == -ENOENT || ret == -ENODEV || ret == -ENXIO)
			return error_set(error, ret,
					 "this host has no /dev/kvm: turn on virtualization in its "
					 "firmware, or "
					 "nested virtualization if it is a guest, and load "
					 "kvm_intel or kvm_amd");
		if (ret == -EACCES || ret == -EPERM)
			return error_set(
				error, ret,
				"no permission to use /dev/kvm: add this user to the group kvm");
		return error_set(error, ret, "cannot open /dev/kvm: %s", strerror(-ret));
	}
	ret = ioctl(machine->kvm_fd, KVM_GET_API_VERSION, 0);
	if (ret != KVM_API_VERSION)
		return error_set(error, -EOPNOTSUPP, "/dev/kvm has API version %d, %d is needed",
				 ret, KVM_API_VERSION);
	if (ioctl(machine->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0)
		return error_set(
			error, -EOPNOTSUPP,
			"this host's KVM has no immediate exit: Linux 4.12 or later is needed");
	machine->vm_fd = ioctl(machine->kvm_fd, KVM_CREATE_VM, 0);
	if (machine->vm_fd < 0) {
		ret = -errno;
		return error_set(error, ret, "cannot make a virtual machine: KVM_CREATE_VM: %s",
				 strerror(-ret));
	}
	return 0;
}

/*
 * Local APICs in the kernel, no other interrupt controllers: the test guest has no devices, and so
 * there is no further state to move. It can do without APICs, too.
 */
static void set_up_platform(struct machine *machine)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	(void)ioctl(machine->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA);
	(void)ioctl(machine->vm_fd, KVM_ENABLE_CAP, &split);
}

/*
 * The guest's TSC goes on at the source's frequency. CPUs that cannot scale it give their own; a
 * difference of up to 1 % is put up with, by which the guest's clocks are wrong from then on: hosts
 * of one kind calibrate to values some hundred ppm apart.
 */
static int set_tsc_khz(const struct machine *machine, int vcpu_fd, struct ramlift_error *error)
{
	int64_t wanted = machine->tsc_khz, have, apart;

	if (!wanted)
		return 0;
	have = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);
	if (have == wanted || ioctl(vcpu_fd, KVM_SET_TSC_KHZ, (unsigned long)wanted) == 0)
		return 0;
	apart = have < wanted ? wanted - have : have - wanted;
	if (have <= 0 || apart <= wanted / TSC_TOLERANCE)
		return 0;
	return error_set(error, -EINVAL,
			 "the guest's TSC runs at %u kHz, this host's at %d, and its CPU cannot "
			 "scale that",
			 (unsigned)wanted, (int)have);
}

static int make_vcpu(struct machine *machine, unsigned index, struct ramlift_error *error)
{
	const struct machine_config *config = &machine->config;
	const struct workload *workload = &config->workload;
	uint64_t rate = workload->pages_per_second / config->n_vcpus;
	struct vcpu_pace pace;
	int ret, fd = ioctl(machine->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);

	if (fd < 0) {
		ret = -errno;
		return error_set(error, ret, "cannot make vCPU %u: KVM_CREATE_VCPU: %s", index,
				 strerror(-ret));
	}
	/* The first vCPUs take what is left over; 0 would mean flat out. */
	rate += index < workload->pages_per_second % config->n_vcpus;
	vcpu_pace_init(&pace, workload->pages_per_second && !rate ? 0 : workload->hot_bytes / 4096,
		       rate, config->memory_bytes / 4096 / config->n_vcpus);
	ret = vcpus_add(&machine->vcpus, fd, &pace, error);
	if (ret)
		return ret;
	ret = set_tsc_khz(machine, fd, error);
	if (ret)
		return ret;
	return machine_cpuid_set(&machine->cpuid, fd, index, config->n_vcpus, error);
}

static int make_vcpus(struct machine *machine, struct ramlift_error *error)
{
	int ret = 0, khz;

	for (unsigned i = 0; i < machine->config.n_vcpus && !ret; i++)
		ret = make_vcpu(machine, i, error);
	if (ret)
		return ret;
	khz = ioctl(machine->vcpus.list[0].fd, KVM_GET_TSC_KHZ, 0);
	machine->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
	return 0;
}

static int make_ring(struct machine *machine, struct ramlift_error *error)
{
	int vcpu_fds[MACHINE_MAX_VCPUS], ret;
	const struct ramlift_dirty_ring_config config = {
		.vm_fd = machine->vm_fd,
		.vcpu_fds = vcpu_fds,
		.n_vcpus = machine->vcpus.n,
		.entries = machine->config.dirty_ring_entries,
		.regions = machine->memory.regions,
		.slots = machine->memory.slots,
		.n_regions = machine->memory.n_regions,
	};

	for (unsigned i = 0; i < machine->vcpus.n; i++)
		vcpu_fds[i] = machine->vcpus.list[i].fd;
	ret = ramlift_dirty_ring_new(&config, &machine->ring, error);
	machine->vcpus.ring = machine->ring;
	return ret;
}

static int make_log(struct machine *machine, struct ramlift_error *error)
{
	const struct ramlift_dirty_log_config config = {
		.vm_fd = machine->vm_fd,
		.regions = machine->memory.regions,
		.slots = machine->memory.slots,
		.n_regions = machine->memory.n_regions,
	};

	return ramlift_dirty_log_new(&config, &machine->log, error);
}

/* The guest's CPU: this host's, or the given one if this host has all of it. */
static int choose_cpuid(struct machine *machine, const struct machine_cpuid *given,
			struct ramlift_error *error)
{
	int ret = machine_cpuid_of_host(machine->kvm_fd, &machine->cpuid, error);

	if (ret || !given)
		return ret;
	ret = machine_cpuid_check(given, &machine->cpuid, error);
	machine->cpuid = *given;
	return ret;
}

/* A guest that comes from a host with rings to one without goes on with the log: there nobody can
 * choose. */
static int enable_ring(struct machine *machine, const struct machine_cpuid *given,
		       struct ramlift_error *error)
{
	struct machine_config *config = &machine->config;
	struct ramlift_error why;
	int ret;

	if (config->dirty_mode != MACHINE_DIRTY_RING)
		return 0;
	ret = ramlift_dirty_ring_enable(machine->vm_fd, config->dirty_ring_entries, &why);
	if (ret == -EOPNOTSUPP && given) {
		config->dirty_mode = MACHINE_DIRTY_LOG;
		return 0;
	}
	return ret ? error_set(error, ret, "%s", why.text) : 0;
}

static int build(struct machine *machine, const struct machine_cpuid *cpuid,
		 struct ramlift_error *error)
{
	const struct machine_config *config = &machine->config;
	int ret = open_vm(machine, error);

	if (ret)
		return ret;
	machine->vcpus.run_bytes = (size_t)ioctl(machine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	ret = choose_cpuid(machine, cpuid, error);
	if (ret)
		return ret;
	set_up_platform(machine);
	ret = enable_ring(machine, cpuid, error); /* before the first vCPU */
	if (ret)
		return ret;
	ret = machine_memory_init(&machine->memory, config, error);
	if (ret)
		return ret;
	ret = machine_memory_add_to_vm(&machine->memory, machine->vm_fd, error);
	if (ret)
		return ret;
	ret = vcpu_state_host_init(&machine->state_host, machine->kvm_fd, machine->vm_fd, error);
	if (ret)
		return ret;
	ret = make_vcpus(machine, error);
	if (ret)
		return ret;
	ret = config->dirty_mode == MACHINE_DIRTY_RING ? make_ring(machine, error)
						       : make_log(machine, error);
	if (ret)
		return ret;
	if (!cpuid) {
		ret = machine_boot(machine, error);
		if (ret)
			return ret;
	}
	return vcpus_start(&machine->vcpus, error);
}

int machine_make(const struct machine_config *config, const struct machine_cpuid *cpuid,
		 uint32_t tsc_khz, struct machine **machine_out, struct ramlift_error *error)
{
	struct machine *machine;
	int ret = machine_config_check(config, error);

	if (!ret)
		ret = machine_numa_check(config, error);
	if (ret)
		return ret;
	machine = calloc(1, sizeof(*machine));
	if (!machine)
		return error_set(error, -ENOMEM, "no memory for a machine");
	machine->config = *config;
	if (!machine->config.workload.fill_percent)
		machine->config.workload.fill_percent = FILL_USUAL;
	machine->tsc_khz = tsc_khz;
	machine->kvm_fd = machine->vm_fd = machine->memory.memfd = -1;
	vcpus_init(&machine->vcpus);
	ret = build(machine, cpuid, error);
	if (ret) {
		machine_free(machine);
		return ret;
	}
	*machine_out = machine;
	return 0;
}

int machine_new(const struct machine_config *config, struct machine **machine,
		struct ramlift_error *error)
{
	return machine_make(config, NULL, 0, machine, error);
}

int machine_resume(struct machine *machine, struct ramlift_error *error)
{
	(void)error;
	vcpus_resume(&machine->vcpus);
	return 0;
}

int machine_pause(struct machine *machine, struct ramlift_error *error)
{
	return vcpus_pause(&machine->vcpus, error);
}

const struct machine_config *machine_config(const struct machine *machine)
{
	return &machine->config;
}

const struct ramlift_region *machine_regions(const struct machine *machine, unsigned *n_regions)
{
	*n_regions = machine->memory.n_regions;
	return machine->memory.regions;
}

const struct ramlift_dirty_source_ops *machine_dirty_source(struct machine *machine, void **source)
{
	*source = machine->ring ? (void *)machine->ring : machine->log;
	return machine->ring ? ramlift_dirty_ring_ops() : ramlift_dirty_log_ops();
}

void machine_free(struct machine *machine)
{
	if (!machine)
		return;
	vcpus_fini(&machine->vcpus);
	ramlift_dirty_ring_free(machine->ring);
	ramlift_dirty_log_free(machine->log);
	vcpu_state_host_fini(&machine->state_host);
	if (machine->vm_fd >= 0)
		close(machine->vm_fd);
	machine_memory_fini(&machine->memory);
	if (machine->kvm_fd >= 0)
		close(machine->kvm_fd);
	free(machine);
}
