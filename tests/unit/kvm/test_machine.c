/* SPDX-License-Identifier: Apache-2.0 */
/* The machine on the real /dev/kvm: the guest runs, stops, and refuses what cannot be. */
#include "machine_fixture.h"

#include <errno.h>
#include <numaif.h>
#include <string.h>

#include "core/clock.h"
#include "kvm/vmm/guest/layout.h"

static void test_guest_runs(void **state)
{
	struct machine_config config;
	struct machine *machine;
	struct machine_report report;

	(void)state;
	config_usual(&config, MACHINE_DIRTY_LOG);
	assert_ok(machine_new(&config, &machine, &error));
	assert_false(report_of(machine).running);
	assert_int_equal(report_of(machine).pages_written, 0);
	assert_ok(machine_resume(machine, &error));
	assert_ok(machine_resume(machine, &error));
	assert_true(report_of(machine).running);
	wait_sweeps(machine, 1);
	wait_written(machine, 1000);
	assert_healthy(machine);

	assert_ok(machine_pause(machine, &error));
	assert_ok(machine_pause(machine, &error));
	report = report_of(machine);
	clock_sleep_until(clock_now_ns() + 20 * NS_PER_MS);
	assert_int_equal(report_of(machine).pages_written, report.pages_written);
	assert_true(report.pages_written >= 32 * MIB / 4096 / 2);
	for (unsigned i = 0; i < 50; i++) {
		assert_ok(machine_resume(machine, &error));
		assert_ok(machine_pause(machine, &error));
	}
	assert_ok(machine_resume(machine, &error));
	wait_written(machine, 100);
	assert_healthy(machine);
	machine_free(machine);
}

static void test_patterns(void **state)
{
	struct machine_config config;
	struct machine *machine;

	(void)state;
	for (unsigned pattern = WORKLOAD_UNIFORM; pattern <= WORKLOAD_SKEWED; pattern++) {
		config_usual(&config, MACHINE_DIRTY_LOG);
		config.n_vcpus = 1 + pattern;
		config.workload.pattern = (enum workload_pattern)pattern;
		config.workload.pages_per_second = 0; /* flat out */
		assert_ok(machine_new(&config, &machine, &error));
		assert_ok(machine_resume(machine, &error));
		wait_sweeps(machine, 2);
		assert_healthy(machine);
		machine_free(machine);
	}
}

static void test_idle(void **state)
{
	struct machine_config config;
	struct machine *machine;
	uint64_t written;

	(void)state;
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.workload.hot_bytes = 0;
	assert_ok(machine_new(&config, &machine, &error));
	assert_ok(machine_resume(machine, &error));
	wait_sweeps(machine, 1);
	written = report_of(machine).pages_written;
	wait_sweeps(machine, 1);
	assert_int_equal(report_of(machine).pages_written, written);
	assert_healthy(machine);
	machine_free(machine);
}

/* RAM above the hole at 3 GiB is a second region, and is found by the guest. */
static void test_two_regions(void **state)
{
	struct machine_config config;
	const struct ramlift_region *regions;
	struct machine *machine;
	uint64_t first, share;
	const uint64_t *page;
	unsigned n_regions;
	int ret;

	(void)state;
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.memory_bytes = 3072 * MIB + 256 * MIB;
	config.workload.fill_percent = 1;
	config.n_vcpus = 16; /* so that the share of the last one is in the second region */
	ret = machine_new(&config, &machine, &error);
	if (ret == -ENOMEM) {
		print_message("%s\n", error.text);
		skip();
	}
	assert_int_equal(ret, 0);
	regions = machine_regions(machine, &n_regions);
	assert_int_equal(n_regions, 2);
	assert_int_equal(regions[1].gpa, 4096 * MIB);
	assert_int_equal(regions[1].memfd_offset, 3072 * MIB);
	first = guest_first_page(config.memory_bytes / 4096);
	share = (config.memory_bytes / 4096 - first) / 16;
	page = (const uint64_t *)((uint8_t *)regions[1].hva + guest_page_gpa(first + 15 * share) -
				  regions[1].gpa);
	assert_ok(machine_resume(machine, &error));
	wait_written(machine, share / 100 * 16);
	assert_healthy(machine);
	assert_int_equal(page[2], first + 15 * share); /* the stamp names its page */
	machine_free(machine);
}

/* RAM in several parts: they lie in one file, and where the host says. */
static void test_numa_nodes(void **state)
{
	const struct ramlift_region *regions;
	struct machine_config config;
	struct machine *machine;
	unsigned n_regions;

	(void)state;
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.n_numa_nodes = 3;
	config.numa_nodes[0] = config.numa_nodes[2] = some_numa_node();
	config.numa_nodes[1] = -1;
	if (config.numa_nodes[0] < 0)
		skip();
	assert_ok(machine_new(&config, &machine, &error));
	regions = machine_regions(machine, &n_regions);
	assert_int_equal(n_regions, 3);
	assert_ok(machine_resume(machine, &error));
	wait_sweeps(machine, 1);
	assert_healthy(machine);
	for (unsigned i = 0; i < 3; i++) {
		int wanted = config.numa_nodes[i], mode = -1, node = -1;

		assert_int_equal(regions[i].numa_node, wanted);
		assert_int_equal(get_mempolicy(&mode, NULL, 0, regions[i].hva, MPOL_F_ADDR), 0);
		assert_int_equal(mode, wanted < 0 ? MPOL_DEFAULT : MPOL_BIND);
		assert_int_equal(
			get_mempolicy(&node, NULL, 0, regions[i].hva, MPOL_F_ADDR | MPOL_F_NODE),
			0);
		if (wanted >= 0)
			assert_int_equal(node, wanted);
	}
	machine_free(machine);
}

static void assert_refused(const struct machine_config *config, int expected, const char *words)
{
	struct machine *machine = NULL;
	int ret = machine_new(config, &machine, &error);

	print_message("%s\n", error.text);
	assert_int_equal(ret, expected);
	assert_null(machine);
	assert_non_null(strstr(error.text, words));
}

static void test_refusals(void **state)
{
	struct machine_config config;

	(void)state;
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.memory_bytes = 499ull << 30;
	assert_refused(&config, -ENOMEM, "the guest needs 499.0 GiB");
	config.page_size_bytes = 1 << 30;
	assert_refused(&config, -ENOMEM, "huge pages of 1024 MiB");
	config.memory_bytes = 8 * MIB;
	config.page_size_bytes = 2 * MIB;
	assert_refused(&config, -EINVAL, "16 MiB");
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.n_vcpus = 17;
	assert_refused(&config, -EINVAL, "vCPUs");
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.n_numa_nodes = 2;
	config.numa_nodes[1] = 1023;
	assert_refused(&config, -EINVAL, "NUMA node 1023, which this host does not have");
	config.numa_nodes[1] = 1024;
	assert_refused(&config, -EINVAL, "numbered from 0 to 1023");
	config.numa_nodes[1] = -2;
	assert_refused(&config, -EINVAL, "numbered from 0 to 1023");
	config.n_numa_nodes = 17;
	assert_refused(&config, -EINVAL, "cannot be split over 17");
	config_usual(&config, MACHINE_DIRTY_RING);
	config.dirty_ring_entries = 1000;
	if (!no_rings())
		assert_refused(&config, -EINVAL, "power of two");
	machine_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guest_runs), cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_idle),	   cmocka_unit_test(test_two_regions),
		cmocka_unit_test(test_numa_nodes), cmocka_unit_test(test_refusals),
	};

	return run_on_kvm("machine", tests);
}
