/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's dirty rings as a dirty source. For VMMs with a ring per vCPU (KVM_CAP_DIRTY_LOG_RING); see
 * "KVM_CAP_DIRTY_LOG_RING/KVM_CAP_DIRTY_LOG_RING_ACQ_REL" in the kernel's
 * Documentation/virt/kvm/api.rst.
 *
 * Order of use: ramlift_dirty_ring_enable() before the first vCPU is made, ramlift_dirty_ring_new()
 * once all vCPUs and memory slots exist, then the operations go to the engine. Rings belong to the
 * process that created the VM: all calls come from there.
 */
#ifndef RAMLIFT_DIRTY_RING_H
#define RAMLIFT_DIRTY_RING_H

#include "ramlift.h" /* beside it where they are installed */

#ifdef __cplusplus
extern "C" {
#endif

#define RAMLIFT_DIRTY_RING_MAX_ENTRIES 65536u

struct ramlift_dirty_ring;

struct ramlift_dirty_ring_config {
	int vm_fd;
	const int *vcpu_fds; /* not needed after ramlift_dirty_ring_new() */
	unsigned n_vcpus;
	unsigned entries; /* per vCPU, as given to ramlift_dirty_ring_enable() */
	const struct ramlift_region *regions; /* those that the session is given */
	const uint32_t *slots; /* the memory slot of each region; writable RAM, no flags */
	unsigned n_regions;
};

/*
 * Give each vCPU of the VM a ring. entries is a power of two, at most
 * RAMLIFT_DIRTY_RING_MAX_ENTRIES. -EOPNOTSUPP: this host has no dirty rings; -EINVAL: KVM does not
 * take this size; -EBUSY and others: what KVM_ENABLE_CAP said, for instance that a vCPU exists.
 */
RAMLIFT_API int ramlift_dirty_ring_enable(int vm_fd, unsigned entries, struct ramlift_error *error);

/* Map the rings. Does not track anything yet. -EINVAL, -ENOMEM, or what mmap() of a ring said. */
RAMLIFT_API int ramlift_dirty_ring_new(const struct ramlift_dirty_ring_config *config,
				       struct ramlift_dirty_ring **ring,
				       struct ramlift_error *error);

/* The table for ramlift_source_config.dirty_source_ops; a static object. */
RAMLIFT_API const struct ramlift_dirty_source_ops *ramlift_dirty_ring_ops(void);

/*
 * For a vCPU's thread after KVM_EXIT_DIRTY_RING_FULL: have the ring harvested and wait until there
 * is room in it. Under a limit this is what slows the guest down: the wait may take seconds.
 * Returns early when give_up(context) is true; it is asked under a lock, so set what it looks at
 * first and call ramlift_dirty_ring_wake() then.
 */
RAMLIFT_API void ramlift_dirty_ring_wait(struct ramlift_dirty_ring *ring, unsigned vcpu,
					 bool (*give_up)(void *context), void *context);

/* Make all threads in ramlift_dirty_ring_wait() ask their give_up() again. Any thread. */
RAMLIFT_API void ramlift_dirty_ring_wake(struct ramlift_dirty_ring *ring);

/* Entries that named no page of any region, since the start. For diagnosis; any thread. */
RAMLIFT_API uint64_t ramlift_dirty_ring_strays(struct ramlift_dirty_ring *ring);

/* Unmap the rings; after stop(), when no vCPU's thread uses it any more. NULL is fine. */
RAMLIFT_API void ramlift_dirty_ring_free(struct ramlift_dirty_ring *ring);

#ifdef __cplusplus
}
#endif

#endif
