/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU that the guest sees. The source takes what its host supports; the destination makes the
 * guest with the source's, after it has checked that its own host supports all of it.
 */
#ifndef KVM_VMM_MACHINE_CPUID_H
#define KVM_VMM_MACHINE_CPUID_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

struct ramlift_error;

#define MACHINE_MAX_CPUID 256u

struct machine_cpuid {
	unsigned n;
	struct kvm_cpuid_entry2 entries[MACHINE_MAX_CPUID];
};

/* What this host supports, without nested virtualization. */
int machine_cpuid_of_host(int kvm_fd, struct machine_cpuid *cpuid, struct ramlift_error *error);

/* -EINVAL when the guest's CPU has a feature that the host's lacks. Pure. */
int machine_cpuid_check(const struct machine_cpuid *guest, const struct machine_cpuid *host,
			struct ramlift_error *error);

/* Give it to a vCPU, with the numbers that differ from one to the next filled in. */
int machine_cpuid_set(const struct machine_cpuid *cpuid, int vcpu_fd, unsigned vcpu,
		      unsigned n_vcpus, struct ramlift_error *error);

/* Whether the guest may use 1 GiB pages. */
bool machine_cpuid_has_1g_pages(const struct machine_cpuid *cpuid);

#endif
