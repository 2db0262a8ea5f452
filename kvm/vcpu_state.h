/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's state, from KVM into a state and back; x86-64. CPUID is not in it: a vCPU is made with
 * the source's CPUID before its state is loaded. Nested guests are not moved; do not offer VMX or
 * SVM.
 */
#ifndef KVM_VCPU_STATE_H
#define KVM_VCPU_STATE_H

#include "kvm/state_blob.h"

struct kvm_msr_list;

/* What this host's KVM can tell of a vCPU. */
struct vcpu_state_host {
	struct kvm_msr_list *msrs;
	size_t xsave_bytes;
	bool xsave2;
	bool sregs2;
};

int vcpu_state_host_init(struct vcpu_state_host *host, int kvm_fd, int vm_fd,
			 struct ramlift_error *error);
void vcpu_state_host_fini(struct vcpu_state_host *host);

/* The vCPU is out of KVM_RUN and has no exit half done. MSRs that KVM lists but does not read are
 * left out. */
int vcpu_state_save(const struct vcpu_state_host *host, int vcpu_fd, unsigned vcpu,
		    struct state_writer *writer, struct ramlift_error *error);

/* The vCPU has its CPUID and has not run. -EINVAL: among others, an MSR that KVM does not set,
 * unless the vCPU has its value already or it counts time. */
int vcpu_state_load(const struct vcpu_state_host *host, int vcpu_fd, const struct state_vcpu *state,
		    struct ramlift_error *error);

/* The VM's clock (kvmclock). It goes on from the saved value: the guest
 * does not see the downtime. */
int vm_clock_save(int vm_fd, struct state_writer *writer, struct ramlift_error *error);
int vm_clock_load(int vm_fd, const struct state_view *view, struct ramlift_error *error);

#endif
