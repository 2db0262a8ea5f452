/* SPDX-License-Identifier: Apache-2.0 */
/* The dirty rings turned on, mapped and unmapped. Harvesting them is in dirty_ring.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/dirty_ring_private.h"

int ramlift_dirty_ring_enable(int vm_fd, unsigned entries, struct ramlift_error *error)
{
	static const uint32_t kinds[] = { KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING };
	struct kvm_enable_cap cap = { 0 };
	uint32_t bytes = entries * (uint32_t)sizeof(struct kvm_dirty_gfn);
	int most = 0, ret;

	if (!entries || entries & (entries - 1) || entries > RAMLIFT_DIRTY_RING_MAX_ENTRIES)
		return error_set(
			error, -EINVAL,
			"a dirty ring of %u entries cannot be: take a power of two, at most %u",
			entries, RAMLIFT_DIRTY_RING_MAX_ENTRIES);
	/* The older name promises the memory order that is needed here on x86 only. */
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && most <= 0; i++) {
		most = ioctl(vm_fd, KVM_CHECK_EXTENSION, kinds[i]);
		cap.cap = kinds[i];
	}
	if (most <= 0)
		return error_set(
			error, -EOPNOTSUPP,
			"this host's KVM has no dirty rings (Linux 5.11 or later on x86): use the "
			"dirty log (--dirty log)");
	if (bytes > (uint32_t)most)
		return error_set(
			error, -EINVAL,
			"a dirty ring of %u entries is more than this host's KVM takes: at most %u",
			entries, (unsigned)most / (unsigned)sizeof(struct kvm_dirty_gfn));
	cap.args[0] = bytes;
	if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap) == 0)
		return 0;
	ret = -errno;
	if (ret == -EINVAL)
		return error_set(
			error, ret,
			"this host's KVM refuses dirty rings of %u entries (it keeps up to 576 "
			"in reserve): take 1024 to %u",
			entries, (unsigned)most / (unsigned)sizeof(struct kvm_dirty_gfn));
	return error_set(error, ret, "cannot turn on dirty rings: KVM_ENABLE_CAP: %s",
			 strerror(-ret));
}

static size_t ring_bytes(const struct ramlift_dirty_ring *ring)
{
	return ring->entries * sizeof(struct kvm_dirty_gfn);
}

static int map_rings(struct ramlift_dirty_ring *ring, const int *vcpu_fds,
		     struct ramlift_error *error)
{
	off_t offset = KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE);

	for (unsigned i = 0; i < ring->n_rings; i++) {
		void *gfns = mmap(NULL, ring_bytes(ring), PROT_READ | PROT_WRITE, MAP_SHARED,
				  vcpu_fds[i], offset);
		int ret = -errno;

		if (gfns == MAP_FAILED)
			return error_set(error, ret, "cannot map the dirty ring of vCPU %u: %s", i,
					 strerror(-ret));
		ring->rings[i].gfns = gfns;
	}
	return 0;
}

static void init_locks(struct ramlift_dirty_ring *ring)
{
	pthread_mutex_init(&ring->harvest_lock, NULL);
	pthread_mutex_init(&ring->wait_lock, NULL);
	clock_cond_init(&ring->room);
	clock_cond_init(&ring->urgent);
}

int ramlift_dirty_ring_new(const struct ramlift_dirty_ring_config *config,
			   struct ramlift_dirty_ring **ring_out, struct ramlift_error *error)
{
	unsigned entries = config->entries;
	struct ramlift_dirty_ring *ring;
	int ret;

	if (!config->n_vcpus || !entries || entries & (entries - 1) ||
	    entries > RAMLIFT_DIRTY_RING_MAX_ENTRIES)
		return error_set(
			error, -EINVAL,
			"dirty rings need a vCPU, and a power of two up to %u as their size",
			RAMLIFT_DIRTY_RING_MAX_ENTRIES);
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return error_set(error, -ENOMEM, "no memory for the dirty rings");
	init_locks(ring);
	ring->entries = entries;
	ring->n_rings = config->n_vcpus;
	ring->rings = calloc(ring->n_rings, sizeof(*ring->rings));
	ring->stage = calloc((size_t)ring->n_rings * entries, sizeof(*ring->stage));
	if (!ring->rings || !ring->stage)
		ret = error_set(error, -ENOMEM, "no memory for the dirty rings of %u vCPUs",
				ring->n_rings);
	else
		ret = dirty_slots_init(&ring->slots, config->vm_fd, config->regions, config->slots,
				       config->n_regions, error);
	if (!ret)
		ret = map_rings(ring, config->vcpu_fds, error);
	if (ret) {
		ramlift_dirty_ring_free(ring);
		return ret;
	}
	*ring_out = ring;
	return 0;
}

void ramlift_dirty_ring_free(struct ramlift_dirty_ring *ring)
{
	if (!ring)
		return;
	for (unsigned i = 0; ring->rings && i < ring->n_rings; i++) {
		if (ring->rings[i].gfns)
			munmap(ring->rings[i].gfns, ring_bytes(ring));
	}
	pthread_cond_destroy(&ring->urgent);
	pthread_cond_destroy(&ring->room);
	pthread_mutex_destroy(&ring->wait_lock);
	pthread_mutex_destroy(&ring->harvest_lock);
	free(ring->stage);
	free(ring->rings);
	free(ring);
}
