/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A KVM that behaves, as far as dirty tracking goes: memory slots whose pages are write-protected,
 * real rings in mappable files, a dirty log. A write to a protected page makes an entry (or sets a
 * bit) and takes the protection off; a reset (or clear) puts it on again, for harvested pages only.
 * Tests link with --wrap=ioctl. One at a time.
 */
#ifndef TESTS_UNIT_KVM_FAKE_KVM_H
#define TESTS_UNIT_KVM_FAKE_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/ramlift.h"

#define FAKE_KVM_REGIONS    2u
#define FAKE_KVM_MAX_VCPUS  4u
#define FAKE_KVM_RESERVED   64u /* entries that stay free, as in KVM */
#define FAKE_KVM_FIRST_SLOT 7u	/* region i is slot 7 + i */

struct fake_ring {
	struct kvm_dirty_gfn *gfns;
	uint32_t dirty; /* next entry to write */
	uint32_t reset; /* next entry to reset */
};

struct fake_kvm {
	pthread_mutex_t lock;
	int vm_fd;
	unsigned n_vcpus;
	int vcpu_fds[FAKE_KVM_MAX_VCPUS];
	unsigned entries;
	struct fake_ring rings[FAKE_KVM_MAX_VCPUS];
	struct ramlift_region regions[FAKE_KVM_REGIONS];
	uint32_t slots[FAKE_KVM_REGIONS];
	bool tracked[FAKE_KVM_REGIONS];
	bool *written[FAKE_KVM_REGIONS]; /* since it was last protected */
	uint64_t *bitmap[FAKE_KVM_REGIONS];
	_Atomic uint64_t *memory[FAKE_KVM_REGIONS]; /* one word a page */

	/* What it can do, and how it fails. */
	bool has_ring, has_ring_acq_rel, has_manual_protect, manual_protect;
	unsigned fail_set_region; /* the n-th from now fails; 0: none */
	int fail_reset;		  /* errno */
	bool interrupt_resets;	  /* every second reset stops half way with EINTR */
	unsigned resets, clears, fetches, enabled_cap;

	/* Called without the lock before and after each ioctl that protects. */
	void (*around)(void *context, bool after);
	void *context;
};

void fake_kvm_init(struct fake_kvm *kvm, unsigned n_vcpus, unsigned entries,
		   const uint64_t *n_pages);
void fake_kvm_fini(struct fake_kvm *kvm);

/* A guest's write. False: the vCPU's ring is full, nothing was written. */
bool fake_kvm_write(struct fake_kvm *kvm, unsigned vcpu, unsigned region, uint64_t page,
		    uint64_t value);

/* An entry out of nowhere. */
void fake_kvm_push(struct fake_kvm *kvm, unsigned vcpu, uint32_t slot, uint64_t offset);

#endif
