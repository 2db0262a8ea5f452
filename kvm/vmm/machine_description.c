/* SPDX-License-Identifier: Apache-2.0 */
/* The description's bytes; see the header. */
#include "kvm/vmm/machine_description.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

#define DESCRIPTION_MAGIC   0x454e4948434d4c52ull /* "RLMCHINE" */
#define DESCRIPTION_VERSION 2u

struct head {
	uint64_t magic;
	uint32_t version;
	uint32_t n_vcpus;
	uint64_t memory_bytes;
	uint64_t page_size_bytes;
	uint64_t hot_bytes;
	uint64_t pages_per_second;
	uint32_t pattern;
	uint32_t fill_percent;
	uint32_t dirty_mode;
	uint32_t dirty_ring_entries;
	uint32_t tsc_khz;
	uint16_t n_cpuid;
	uint16_t n_numa_nodes;
};

struct cpuid_record {
	uint32_t function, index, flags, eax, ebx, ecx, edx;
};

/* The head, the nodes, the CPUID entries. */
static size_t size_of(unsigned n_numa_nodes, unsigned n_cpuid)
{
	return sizeof(struct head) + n_numa_nodes * sizeof(uint32_t) +
	       n_cpuid * sizeof(struct cpuid_record);
}

int machine_description_encode(const struct machine_description *description, void **bytes,
			       size_t *n_bytes)
{
	const struct machine_config *config = &description->config;
	const struct machine_cpuid *cpuid = &description->cpuid;
	size_t n = size_of(config->n_numa_nodes, cpuid->n);
	uint8_t *made = malloc(n), *at = made;
	struct head head = {
		.magic = htole64(DESCRIPTION_MAGIC),
		.version = htole32(DESCRIPTION_VERSION),
		.n_vcpus = htole32(config->n_vcpus),
		.memory_bytes = htole64(config->memory_bytes),
		.page_size_bytes = htole64(config->page_size_bytes),
		.hot_bytes = htole64(config->workload.hot_bytes),
		.pages_per_second = htole64(config->workload.pages_per_second),
		.pattern = htole32(config->workload.pattern),
		.fill_percent = htole32(config->workload.fill_percent),
		.dirty_mode = htole32(config->dirty_mode),
		.dirty_ring_entries = htole32(config->dirty_ring_entries),
		.tsc_khz = htole32(description->tsc_khz),
		.n_cpuid = htole16((uint16_t)cpuid->n),
		.n_numa_nodes = htole16((uint16_t)config->n_numa_nodes),
	};

	if (!made)
		return -ENOMEM;
	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	for (unsigned i = 0; i < config->n_numa_nodes; i++, at += sizeof(uint32_t)) {
		uint32_t node = htole32((uint32_t)config->numa_nodes[i]);

		memcpy(at, &node, sizeof(node));
	}
	for (unsigned i = 0; i < cpuid->n; i++, at += sizeof(struct cpuid_record)) {
		const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
		struct cpuid_record record = {
			.function = htole32(entry->function),
			.index = htole32(entry->index),
			.flags = htole32(entry->flags),
			.eax = htole32(entry->eax),
			.ebx = htole32(entry->ebx),
			.ecx = htole32(entry->ecx),
			.edx = htole32(entry->edx),
		};

		memcpy(at, &record, sizeof(record));
	}
	*bytes = made;
	*n_bytes = n;
	return 0;
}

static void decode_nodes(const uint8_t *nodes, unsigned n, struct machine_config *config)
{
	config->n_numa_nodes = n;
	for (unsigned i = 0; i < n; i++) {
		uint32_t node;

		memcpy(&node, nodes + i * sizeof(node), sizeof(node));
		config->numa_nodes[i] = (int32_t)le32toh(node);
	}
}

static void decode_cpuid(const uint8_t *records, uint32_t n, struct machine_cpuid *cpuid)
{
	cpuid->n = n;
	for (unsigned i = 0; i < n; i++) {
		struct cpuid_record record;

		memcpy(&record, records + i * sizeof(record), sizeof(record));
		cpuid->entries[i] = (struct kvm_cpuid_entry2){
			.function = le32toh(record.function),
			.index = le32toh(record.index),
			.flags = le32toh(record.flags),
			.eax = le32toh(record.eax),
			.ebx = le32toh(record.ebx),
			.ecx = le32toh(record.ecx),
			.edx = le32toh(record.edx),
		};
	}
}

int machine_description_decode(const void *bytes, size_t n_bytes,
			       struct machine_description *description, struct ramlift_error *error)
{
	struct head head;
	const uint8_t *nodes = (const uint8_t *)bytes + sizeof(head);
	uint32_t n_cpuid, n_nodes;

	if (n_bytes < sizeof(head))
		return error_set(error, -EINVAL, "the machine's description has only %zu bytes",
				 n_bytes);
	memcpy(&head, bytes, sizeof(head));
	if (le64toh(head.magic) != DESCRIPTION_MAGIC)
		return error_set(error, -EINVAL,
				 "the machine's description is not one of this program");
	if (le32toh(head.version) != DESCRIPTION_VERSION)
		return error_set(
			error, -EINVAL,
			"the machine's description has version %u, this side reads version %u: use "
			"the same release on both sides",
			le32toh(head.version), DESCRIPTION_VERSION);
	n_cpuid = le16toh(head.n_cpuid);
	n_nodes = le16toh(head.n_numa_nodes);
	if (n_cpuid > MACHINE_MAX_CPUID || n_nodes > MACHINE_MAX_NODES ||
	    n_bytes != size_of(n_nodes, n_cpuid))
		return error_set(error, -EINVAL,
				 "the machine's description has %zu bytes, which is wrong for %u "
				 "NUMA nodes and %u CPUID entries",
				 n_bytes, n_nodes, n_cpuid);
	/* Before they become enums. */
	if (le32toh(head.pattern) > WORKLOAD_SKEWED || le32toh(head.dirty_mode) > MACHINE_DIRTY_LOG)
		return error_set(
			error, -EINVAL,
			"the machine's description has a pattern %u and a dirty mode %u, which do "
			"not exist",
			le32toh(head.pattern), le32toh(head.dirty_mode));
	*description = (struct machine_description){
		.config = {
			.memory_bytes = le64toh(head.memory_bytes),
			.page_size_bytes = le64toh(head.page_size_bytes),
			.n_vcpus = le32toh(head.n_vcpus),
			.dirty_mode = (enum machine_dirty_mode)le32toh(head.dirty_mode),
			.dirty_ring_entries = le32toh(head.dirty_ring_entries),
			.workload = {
				.hot_bytes = le64toh(head.hot_bytes),
				.pages_per_second = le64toh(head.pages_per_second),
				.pattern = (enum workload_pattern)le32toh(head.pattern),
				.fill_percent = le32toh(head.fill_percent),
			},
		},
		.tsc_khz = le32toh(head.tsc_khz),
	};
	decode_nodes(nodes, n_nodes, &description->config);
	decode_cpuid(nodes + n_nodes * sizeof(uint32_t), n_cpuid, &description->cpuid);
	return 0;
}
