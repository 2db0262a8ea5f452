/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's CPUID: taken from the host, compared, and given to vCPUs. */
#include "kvm/vmm/machine_cpuid.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/error.h"

#define BIT(n) (1u << (n))

enum cpuid_register { EAX, EBX, ECX, EDX };

static uint32_t *register_of(struct kvm_cpuid_entry2 *entry, enum cpuid_register which)
{
	uint32_t *registers[] = { &entry->eax, &entry->ebx, &entry->ecx, &entry->edx };

	return registers[which];
}

static const struct kvm_cpuid_entry2 *find(const struct machine_cpuid *cpuid, uint32_t function,
					   uint32_t index)
{
	for (unsigned i = 0; i < cpuid->n; i++) {
		const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

		if (entry->function == function &&
		    (entry->index == index || !(entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
			return entry;
	}
	return NULL;
}

static void clear_bits(struct machine_cpuid *cpuid, uint32_t function, enum cpuid_register which,
		       uint32_t bits)
{
	for (unsigned i = 0; i < cpuid->n; i++) {
		if (cpuid->entries[i].function == function)
			*register_of(&cpuid->entries[i], which) &= ~bits;
	}
}

int machine_cpuid_of_host(int kvm_fd, struct machine_cpuid *cpuid, struct ramlift_error *error)
{
	struct kvm_cpuid2 *supported =
		calloc(1, sizeof(*supported) + MACHINE_MAX_CPUID * sizeof(supported->entries[0]));
	int ret = 0;

	if (!supported)
		return error_set(error, -ENOMEM, "no memory for the CPU's features");
	supported->nent = MACHINE_MAX_CPUID;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, supported)) {
		ret = error_set(error, -errno, "cannot get this CPU's features from KVM: %s",
				strerror(errno));
		goto out;
	}
	cpuid->n = supported->nent;
	memcpy(cpuid->entries, supported->entries, cpuid->n * sizeof(cpuid->entries[0]));
	/* Nested state is not moved: no VMX, no SVM. */
	clear_bits(cpuid, 1, ECX, BIT(5));
	clear_bits(cpuid, 0x80000001, ECX, BIT(2));
out:
	free(supported);
	return ret;
}

int machine_cpuid_check(const struct machine_cpuid *guest, const struct machine_cpuid *host,
			struct ramlift_error *error)
{
	/* The registers in which each bit is a feature. */
	static const struct {
		uint32_t function, index;
		enum cpuid_register which;
		uint32_t ignore; /* tells of the moment, not of the CPU */
	} features[] = {
		{ 1, 0, ECX, BIT(27) /* OSXSAVE */ },
		{ 1, 0, EDX, 0 },
		{ 7, 0, EBX, 0 },
		{ 7, 0, ECX, BIT(4) /* OSPKE */ },
		{ 7, 0, EDX, 0 },
		{ 7, 1, EAX, 0 },
		{ 0xd, 0, EAX, 0 },
		{ 0xd, 1, EAX, 0 },
		{ 0x80000001, 0, ECX, 0 },
		{ 0x80000001, 0, EDX, 0 },
		{ 0x80000008, 0, EBX, 0 },
	};

	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		const struct kvm_cpuid_entry2 *entry =
			find(guest, features[i].function, features[i].index);
		const struct kvm_cpuid_entry2 *ours =
			find(host, features[i].function, features[i].index);
		struct kvm_cpuid_entry2 theirs = { 0 }, have = { 0 };
		uint32_t missing;

		if (entry)
			theirs = *entry;
		if (ours)
			have = *ours;
		missing = *register_of(&theirs, features[i].which) &
			  ~*register_of(&have, features[i].which) & ~features[i].ignore;
		if (missing)
			return error_set(
				error, -EINVAL,
				"this host's CPU lacks features that the guest uses: CPUID "
				"0x%x.%u %s, bits 0x%x; start the guest on the older of the two "
				"CPUs",
				features[i].function, features[i].index,
				(const char *[]){ "EAX", "EBX", "ECX", "EDX" }[features[i].which],
				missing);
	}
	return 0;
}

/* APIC ids and the topology, which say which vCPU this is. */
static void number(struct kvm_cpuid_entry2 *entry, unsigned vcpu, unsigned n_vcpus)
{
	switch (entry->function) {
	case 1:
		entry->ebx = (entry->ebx & 0xffff) | n_vcpus << 16 | vcpu << 24;
		break;
	case 0xb:
	case 0x1f:
		entry->edx = vcpu;
		break;
	case 0x8000001e:
		entry->eax = vcpu;
		break;
	default:
		break;
	}
}

int machine_cpuid_set(const struct machine_cpuid *cpuid, int vcpu_fd, unsigned vcpu,
		      unsigned n_vcpus, struct ramlift_error *error)
{
	struct kvm_cpuid2 *set = calloc(1, sizeof(*set) + cpuid->n * sizeof(set->entries[0]));
	int ret = 0;

	if (!set)
		return error_set(error, -ENOMEM, "no memory for the CPU's features");
	set->nent = cpuid->n;
	memcpy(set->entries, cpuid->entries, cpuid->n * sizeof(set->entries[0]));
	for (unsigned i = 0; i < cpuid->n; i++)
		number(&set->entries[i], vcpu, n_vcpus);
	if (ioctl(vcpu_fd, KVM_SET_CPUID2, set))
		ret = error_set(error, -errno, "KVM does not take the CPUID of vCPU %u: %s", vcpu,
				strerror(errno));
	free(set);
	return ret;
}

bool machine_cpuid_has_1g_pages(const struct machine_cpuid *cpuid)
{
	const struct kvm_cpuid_entry2 *entry = find(cpuid, 0x80000001, 0);

	return entry && entry->edx & BIT(26);
}
