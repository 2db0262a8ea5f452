/* SPDX-License-Identifier: Apache-2.0 */
/* The machine from within: what its files share. */
#ifndef KVM_VMM_MACHINE_PRIVATE_H
#define KVM_VMM_MACHINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "kvm/dirty_log.h"
#include "kvm/dirty_ring.h"
#include "kvm/vcpu_state.h"
#include "kvm/vmm/guest/layout.h"
#include "kvm/vmm/machine.h"
#include "kvm/vmm/machine_cpuid.h"
#include "kvm/vmm/machine_memory.h"
#include "kvm/vmm/vcpu.h"

struct machine {
	struct machine_config config;
	struct machine_cpuid cpuid;
	uint32_t tsc_khz;
	int kvm_fd;
	int vm_fd;
	struct machine_memory memory;
	struct vcpu_state_host state_host;
	struct vcpus vcpus;
	struct ramlift_dirty_ring *ring; /* one of these two */
	struct ramlift_dirty_log *log;
};

/*
 * Make a machine, paused. cpuid NULL: that of this host, and the test guest is loaded; else RAM
 * stays empty and the vCPUs wait for their state. tsc_khz 0: that of this host.
 */
int machine_make(const struct machine_config *config, const struct machine_cpuid *cpuid,
		 uint32_t tsc_khz, struct machine **machine, struct ramlift_error *error);

/* 0, or a sentence for what in the configuration cannot be. */
int machine_config_check(const struct machine_config *config, struct ramlift_error *error);

#endif
