/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM that behaves; see the header. */
#include "fake_kvm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct fake_kvm *the_kvm;

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static size_t ring_offset(void)
{
	return (size_t)KVM_DIRTY_LOG_PAGE_OFFSET * (size_t)sysconf(_SC_PAGESIZE);
}

static void init_ring(struct fake_kvm *kvm, unsigned vcpu)
{
	size_t bytes = kvm->entries * sizeof(struct kvm_dirty_gfn);

	kvm->vcpu_fds[vcpu] = memfd_create("vcpu", MFD_CLOEXEC);
	if (kvm->vcpu_fds[vcpu] < 0 ||
	    ftruncate(kvm->vcpu_fds[vcpu], (off_t)(ring_offset() + bytes)))
		abort();
	kvm->rings[vcpu].gfns = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
				     kvm->vcpu_fds[vcpu], (off_t)ring_offset());
	if (kvm->rings[vcpu].gfns == MAP_FAILED)
		abort();
}

void fake_kvm_init(struct fake_kvm *kvm, unsigned n_vcpus, unsigned entries,
		   const uint64_t *n_pages)
{
	*kvm = (struct fake_kvm){
		.vm_fd = memfd_create("vm", MFD_CLOEXEC),
		.n_vcpus = n_vcpus,
		.entries = entries,
		.has_ring = true,
		.has_ring_acq_rel = true,
		.has_manual_protect = true,
	};
	pthread_mutex_init(&kvm->lock, NULL);
	for (unsigned i = 0; i < FAKE_KVM_REGIONS; i++) {
		kvm->slots[i] = FAKE_KVM_FIRST_SLOT + i;
		kvm->regions[i] = (struct ramlift_region){
			.gpa = (uint64_t)i << 32,
			.size_bytes = n_pages[i] * 4096,
			.hva = (void *)(uintptr_t)((i + 1ull) << 40),
			.memfd = -1,
			.page_size_bytes = 4096,
		};
		kvm->written[i] = calloc(n_pages[i], sizeof(bool));
		kvm->bitmap[i] = calloc((n_pages[i] + 63) / 64, sizeof(uint64_t));
		kvm->memory[i] = calloc(n_pages[i], sizeof(uint64_t));
	}
	for (unsigned i = 0; i < n_vcpus; i++)
		init_ring(kvm, i);
	the_kvm = kvm;
}

void fake_kvm_fini(struct fake_kvm *kvm)
{
	the_kvm = NULL;
	for (unsigned i = 0; i < kvm->n_vcpus; i++) {
		munmap(kvm->rings[i].gfns, kvm->entries * sizeof(struct kvm_dirty_gfn));
		close(kvm->vcpu_fds[i]);
	}
	for (unsigned i = 0; i < FAKE_KVM_REGIONS; i++) {
		free(kvm->written[i]);
		free(kvm->bitmap[i]);
		free((void *)kvm->memory[i]);
	}
	pthread_mutex_destroy(&kvm->lock);
	close(kvm->vm_fd);
}

static uint64_t pages_of(const struct fake_kvm *kvm, unsigned region)
{
	return kvm->regions[region].size_bytes / 4096;
}

static void push(struct fake_kvm *kvm, unsigned vcpu, uint32_t slot, uint64_t offset)
{
	struct fake_ring *ring = &kvm->rings[vcpu];
	struct kvm_dirty_gfn *gfn = &ring->gfns[ring->dirty++ % kvm->entries];

	if (__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) != 0)
		abort(); /* overrun: the harvester touched what is not its own */
	gfn->slot = slot;
	gfn->offset = offset;
	__atomic_store_n(&gfn->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
}

void fake_kvm_push(struct fake_kvm *kvm, unsigned vcpu, uint32_t slot, uint64_t offset)
{
	pthread_mutex_lock(&kvm->lock);
	push(kvm, vcpu, slot, offset);
	pthread_mutex_unlock(&kvm->lock);
}

bool fake_kvm_write(struct fake_kvm *kvm, unsigned vcpu, unsigned region, uint64_t page,
		    uint64_t value)
{
	struct fake_ring *ring = &kvm->rings[vcpu];
	bool room;

	pthread_mutex_lock(&kvm->lock);
	room = !kvm->enabled_cap || ring->dirty - ring->reset < kvm->entries - FAKE_KVM_RESERVED;
	if (room) {
		if (kvm->tracked[region] && !kvm->written[region][page]) {
			kvm->written[region][page] = true;
			if (kvm->enabled_cap)
				push(kvm, vcpu, kvm->slots[region], page);
			else
				kvm->bitmap[region][page / 64] |= 1ull << (page % 64);
		}
		kvm->memory[region][page] = value;
	}
	pthread_mutex_unlock(&kvm->lock);
	return room;
}

static unsigned region_of(const struct fake_kvm *kvm, uint32_t slot)
{
	for (unsigned i = 0; i < FAKE_KVM_REGIONS; i++) {
		if (kvm->slots[i] == slot)
			return i;
	}
	return FAKE_KVM_REGIONS;
}

static int reset_rings(struct fake_kvm *kvm)
{
	unsigned n = 0, most = UINT32_MAX;

	if (kvm->fail_reset)
		return -kvm->fail_reset;
	if (kvm->interrupt_resets && kvm->resets++ % 2 == 0)
		most = 3;
	for (unsigned i = 0; i < kvm->n_vcpus; i++) {
		struct fake_ring *ring = &kvm->rings[i];

		for (;;) {
			struct kvm_dirty_gfn *gfn = &ring->gfns[ring->reset % kvm->entries];
			unsigned region = region_of(kvm, gfn->slot);

			if (!(__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) &
			      KVM_DIRTY_GFN_F_RESET))
				break;
			if (n == most)
				return -EINTR;
			if (region < FAKE_KVM_REGIONS && gfn->offset < pages_of(kvm, region))
				kvm->written[region][gfn->offset] = false;
			__atomic_store_n(&gfn->flags, 0, __ATOMIC_RELEASE);
			ring->reset++;
			n++;
		}
	}
	return (int)n;
}

static int set_region(struct fake_kvm *kvm, const struct kvm_userspace_memory_region *slot)
{
	unsigned i = region_of(kvm, slot->slot);

	if (kvm->fail_set_region && --kvm->fail_set_region == 0)
		return -ENOMEM;
	if (i == FAKE_KVM_REGIONS || slot->guest_phys_addr != kvm->regions[i].gpa ||
	    slot->memory_size != kvm->regions[i].size_bytes ||
	    slot->userspace_addr != (uintptr_t)kvm->regions[i].hva)
		return -EINVAL;
	kvm->tracked[i] = slot->flags & KVM_MEM_LOG_DIRTY_PAGES;
	memset(kvm->written[i], 0, pages_of(kvm, i) * sizeof(bool));
	memset(kvm->bitmap[i], 0, (pages_of(kvm, i) + 63) / 64 * sizeof(uint64_t));
	return 0;
}

static int get_log(struct fake_kvm *kvm, const struct kvm_dirty_log *log)
{
	unsigned i = region_of(kvm, log->slot);
	size_t words;

	if (i == FAKE_KVM_REGIONS || !kvm->tracked[i])
		return -ENOENT;
	kvm->fetches++;
	words = (pages_of(kvm, i) + 63) / 64;
	memcpy(log->dirty_bitmap, kvm->bitmap[i], words * sizeof(uint64_t));
	if (!kvm->manual_protect) {
		memset(kvm->bitmap[i], 0, words * sizeof(uint64_t));
		memset(kvm->written[i], 0, pages_of(kvm, i) * sizeof(bool));
	}
	return 0;
}

static int clear_log(struct fake_kvm *kvm, const struct kvm_clear_dirty_log *log)
{
	unsigned i = region_of(kvm, log->slot);
	const uint64_t *bits = log->dirty_bitmap;

	if (i == FAKE_KVM_REGIONS || !kvm->tracked[i] || log->first_page % 64 ||
	    log->first_page > pages_of(kvm, i) ||
	    log->num_pages > pages_of(kvm, i) - log->first_page ||
	    (log->num_pages < pages_of(kvm, i) - log->first_page && log->num_pages % 64))
		return -EINVAL;
	kvm->clears++;
	for (uint64_t n = 0; n < log->num_pages; n++) {
		uint64_t page = log->first_page + n;

		if (!(bits[n / 64] >> (n % 64) & 1))
			continue;
		kvm->bitmap[i][page / 64] &= ~(1ull << (page % 64));
		kvm->written[i][page] = false;
	}
	return 0;
}

static int enable_cap(struct fake_kvm *kvm, const struct kvm_enable_cap *cap)
{
	if (cap->cap == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) {
		kvm->manual_protect = kvm->has_manual_protect;
		return kvm->has_manual_protect ? 0 : -EINVAL;
	}
	if (cap->args[0] != kvm->entries * sizeof(struct kvm_dirty_gfn))
		return -EINVAL;
	kvm->enabled_cap = cap->cap;
	return 0;
}

static int extension(const struct fake_kvm *kvm, unsigned long cap)
{
	if ((cap == KVM_CAP_DIRTY_LOG_RING && kvm->has_ring) ||
	    (cap == KVM_CAP_DIRTY_LOG_RING_ACQ_REL && kvm->has_ring_acq_rel))
		return 16 * 65536;
	return 0;
}

static int dispatch(struct fake_kvm *kvm, unsigned long request, void *argument)
{
	switch (request) {
	case KVM_CHECK_EXTENSION:
		return extension(kvm, (unsigned long)argument);
	case KVM_ENABLE_CAP:
		return enable_cap(kvm, argument);
	case KVM_SET_USER_MEMORY_REGION:
		return set_region(kvm, argument);
	case KVM_RESET_DIRTY_RINGS:
		return reset_rings(kvm);
	case KVM_GET_DIRTY_LOG:
		return get_log(kvm, argument);
	case KVM_CLEAR_DIRTY_LOG:
		return clear_log(kvm, argument);
	default:
		return -ENOTTY;
	}
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	struct fake_kvm *kvm = the_kvm;
	bool protects = request == KVM_RESET_DIRTY_RINGS || request == KVM_GET_DIRTY_LOG ||
			request == KVM_CLEAR_DIRTY_LOG;
	va_list arguments;
	void *argument;
	int ret;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (!kvm || fd != kvm->vm_fd)
		return __real_ioctl(fd, request, argument);

	if (protects && kvm->around)
		kvm->around(kvm->context, false);
	pthread_mutex_lock(&kvm->lock);
	ret = dispatch(kvm, request, argument);
	pthread_mutex_unlock(&kvm->lock);
	if (protects && kvm->around)
		kvm->around(kvm->context, true);
	if (ret >= 0)
		return ret;
	errno = -ret;
	return -1;
}
