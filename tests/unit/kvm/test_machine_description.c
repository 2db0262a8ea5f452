/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's description, and the comparison of CPUs: pure, so without a machine. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/vmm/guest/layout.h"
#include "kvm/vmm/machine_description.h"
#include "kvm/vmm/machine_memory.h"

static void make(struct machine_description *description)
{
	memset(description, 0, sizeof(*description));
	machine_config_init(&description->config);
	description->config.n_vcpus = 5;
	description->config.memory_bytes = 5ull << 30;
	description->config.dirty_mode = MACHINE_DIRTY_LOG;
	description->config.workload.pattern = WORKLOAD_SKEWED;
	description->config.n_numa_nodes = 3;
	description->config.numa_nodes[0] = 1;
	description->config.numa_nodes[1] = -1;
	description->config.numa_nodes[2] = 1023;
	description->tsc_khz = 2400000;
	description->cpuid.n = 3;
	for (unsigned i = 0; i < 3; i++)
		description->cpuid.entries[i] = (struct kvm_cpuid_entry2){
			.function = i,
			.index = 1,
			.flags = 1,
			.eax = 10 + i,
			.edx = 0xffffffff,
		};
}

static void test_round_trip(void **state)
{
	struct machine_description before, after;
	void *bytes;
	size_t n;

	(void)state;
	make(&before);
	assert_int_equal(machine_description_encode(&before, &bytes, &n), 0);
	assert_int_equal(machine_description_decode(bytes, n, &after, NULL), 0);
	assert_int_equal(after.config.memory_bytes, before.config.memory_bytes);
	assert_int_equal(after.config.page_size_bytes, before.config.page_size_bytes);
	assert_int_equal(after.config.n_vcpus, 5);
	assert_int_equal(after.config.dirty_mode, MACHINE_DIRTY_LOG);
	assert_int_equal(after.config.dirty_ring_entries, before.config.dirty_ring_entries);
	assert_int_equal(after.config.workload.hot_bytes, before.config.workload.hot_bytes);
	assert_int_equal(after.config.workload.pages_per_second, 1000);
	assert_int_equal(after.config.workload.pattern, WORKLOAD_SKEWED);
	assert_int_equal(after.config.workload.fill_percent, 75);
	assert_int_equal(after.config.n_numa_nodes, 3);
	assert_memory_equal(after.config.numa_nodes, before.config.numa_nodes, 3 * sizeof(int));
	assert_int_equal(after.tsc_khz, 2400000);
	assert_int_equal(after.cpuid.n, 3);
	assert_int_equal(after.cpuid.entries[2].eax, 12);
	assert_int_equal(after.cpuid.entries[2].edx, 0xffffffff);
	free(bytes);
}

static void test_damaged(void **state)
{
	struct machine_description made;
	uint8_t *bytes;
	void *encoded;
	size_t n;

	(void)state;
	make(&made);
	assert_int_equal(machine_description_encode(&made, &encoded, &n), 0);
	bytes = encoded;
	for (size_t length = 0; length < n; length++) {
		void *copy = malloc(length ? length : 1); /* exact, for the sanitizer */

		memcpy(copy, bytes, length);
		assert_int_equal(machine_description_decode(copy, length, &made, NULL), -EINVAL);
		free(copy);
	}
	for (size_t at = 0; at < n; at++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			int ret;

			bytes[at] ^= 1u << bit;
			ret = machine_description_decode(bytes, n, &made, NULL);
			assert_true(ret == 0 || ret == -EINVAL);
			if (!ret) {
				assert_true(made.config.workload.pattern <= WORKLOAD_SKEWED);
				assert_true(made.cpuid.n <= MACHINE_MAX_CPUID);
				assert_true(made.config.n_numa_nodes <= MACHINE_MAX_NODES);
			}
			bytes[at] ^= 1u << bit;
		}
	}
	free(encoded);
}

static void test_cpu_features(void **state)
{
	struct machine_cpuid host = { .n = 2 }, guest = { .n = 2 };
	struct ramlift_error error;

	(void)state;
	host.entries[0] = (struct kvm_cpuid_entry2){ .function = 1, .ecx = 0xff0 };
	host.entries[1] = (struct kvm_cpuid_entry2){ .function = 7, .flags = 1, .ebx = 0x5 };
	guest = host;
	assert_int_equal(machine_cpuid_check(&guest, &host, &error), 0);
	guest.entries[0].ecx = 0x0f0;
	guest.entries[1].ebx = 0x1;
	assert_int_equal(machine_cpuid_check(&guest, &host, &error), 0);
	guest.entries[1].ebx = 0x3;
	assert_int_equal(machine_cpuid_check(&guest, &host, &error), -EINVAL);
	assert_non_null(strstr(error.text, "CPUID 0x7.0 EBX, bits 0x2"));
	guest.entries[1].ebx = 0x1;
	guest.entries[1].index = 1; /* a leaf that the host does not have */
	guest.entries[1].eax = 0x10;
	assert_int_equal(machine_cpuid_check(&guest, &host, &error), -EINVAL);
	guest.n = 0;
	assert_int_equal(machine_cpuid_check(&guest, &host, &error), 0);
}

/* More nodes, with the bytes for them, than there may be. */
static void test_too_many_nodes(void **state)
{
	struct machine_description made, *many;
	struct ramlift_error error;
	uint8_t *larger;
	void *bytes;
	size_t n;

	(void)state;
	make(&made);
	made.config.n_numa_nodes = MACHINE_MAX_NODES;
	assert_int_equal(machine_description_encode(&made, &bytes, &n), 0);
	larger = calloc(1, n + sizeof(uint32_t));
	assert_non_null(larger);
	memcpy(larger, bytes, n);
	larger[70]++; /* how many there are: the last field but one byte of the head */
	many = malloc(sizeof(*many));
	assert_non_null(many);
	assert_int_equal(machine_description_decode(larger, n + sizeof(uint32_t), many, &error),
			 -EINVAL);
	assert_non_null(strstr(error.text, "17 NUMA nodes"));
	free(many);
	free(larger);
	free(bytes);
}

static unsigned plan(uint64_t memory_bytes, uint64_t page_size_bytes, const int *nodes,
		     unsigned n_nodes, struct ramlift_region *regions)
{
	struct machine_config config;

	machine_config_init(&config);
	config.memory_bytes = memory_bytes;
	config.page_size_bytes = page_size_bytes;
	config.n_numa_nodes = n_nodes;
	for (unsigned i = 0; i < n_nodes; i++)
		config.numa_nodes[i] = nodes[i];
	return machine_memory_plan(&config, regions);
}

static void test_memory_plan(void **state)
{
	struct ramlift_region regions[MACHINE_MAX_REGIONS];

	(void)state;
	assert_int_equal(plan(3ull << 30, 4096, NULL, 0, regions), 1);
	assert_int_equal(regions[0].size_bytes, 3ull << 30);
	assert_int_equal(regions[0].numa_node, -1);
	assert_int_equal(plan(64ull << 30, 1 << 30, NULL, 0, regions), 2);
	assert_int_equal(regions[0].size_bytes, 3ull << 30);
	assert_int_equal(regions[1].gpa, 4ull << 30);
	assert_int_equal(regions[1].size_bytes, 61ull << 30);
	assert_int_equal(regions[1].memfd_offset, 3ull << 30);
}

/* The part that a host page falls into: the first ones have one page more where it does not come
 * out even. */
static unsigned part_of(uint64_t page, uint64_t n_pages, unsigned n_parts)
{
	uint64_t end = 0;
	unsigned part = 0;

	for (;; part++) {
		end += n_pages / n_parts + (part < n_pages % n_parts);
		if (page < end)
			return part;
	}
}

static void check_plan(const struct ramlift_region *regions, unsigned n, uint64_t memory_bytes,
		       uint64_t page, unsigned n_parts)
{
	uint64_t at = 0, n_pages = memory_bytes / page;

	assert_in_range(n, n_parts, n_parts + 1);
	for (unsigned i = 0; i < n; i++) {
		const struct ramlift_region *region = &regions[i];
		unsigned part = part_of(at / page, n_pages, n_parts);

		assert_int_equal(region->memfd_offset, at);
		assert_int_equal(region->gpa, at < GUEST_HOLE_GPA ? at : at + GUEST_HOLE_BYTES);
		assert_true(region->size_bytes && region->size_bytes % page == 0);
		at += region->size_bytes;
		assert_true(region->gpa >= GUEST_HOLE_GPA || at <= GUEST_HOLE_GPA);
		assert_int_equal(region->numa_node, 100 + part);
		assert_int_equal(part_of(at / page - 1, n_pages, n_parts), part);
	}
	assert_int_equal(at, memory_bytes);
}

/* Equal parts in whole host pages, one after the other, and only the hole cuts one in two. */
static void test_memory_plan_on_nodes(void **state)
{
	static const struct {
		uint64_t memory_bytes, page;
	} sizes[] = {
		{ 7ull << 30, 1ull << 30 }, { 64ull << 20, 2ull << 20 },
		{ 2ull << 30, 2ull << 20 }, { 3ull << 30, 4096 },
		{ 6ull << 30, 4096 },	    { (64ull << 20) + 4096, 4096 },
	};
	struct ramlift_region regions[MACHINE_MAX_REGIONS];
	int nodes[MACHINE_MAX_NODES];

	(void)state;
	for (unsigned i = 0; i < MACHINE_MAX_NODES; i++)
		nodes[i] = 100 + (int)i;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (unsigned n_nodes = 1; n_nodes <= 7; n_nodes++) {
			unsigned n =
				plan(sizes[i].memory_bytes, sizes[i].page, nodes, n_nodes, regions);

			check_plan(regions, n, sizes[i].memory_bytes, sizes[i].page, n_nodes);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_cpu_features), cmocka_unit_test(test_too_many_nodes),
		cmocka_unit_test(test_memory_plan),  cmocka_unit_test(test_memory_plan_on_nodes),
	};

	return cmocka_run_group_tests_name("machine_description", tests, NULL, NULL);
}
