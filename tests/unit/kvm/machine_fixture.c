/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the machine share; see the header. */
#include "machine_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "kvm/vmm/machine_numa.h"

struct ramlift_error error;

void config_usual(struct machine_config *config, enum machine_dirty_mode mode)
{
	machine_config_init(config);
	config->memory_bytes = 32 * MIB;
	config->n_vcpus = 2;
	config->dirty_mode = mode;
	config->dirty_ring_entries = 1024;
	config->workload.hot_bytes = 4 * MIB;
	config->workload.pages_per_second = 20000;
}

struct machine_report report_of(struct machine *machine)
{
	struct machine_report report;

	machine_report(machine, &report);
	return report;
}

void assert_healthy(struct machine *machine)
{
	struct machine_report report = report_of(machine);

	if (report.failures)
		fail_msg("%llu failures: %s", (unsigned long long)report.failures,
			 report.first_failure);
	assert_string_equal(report.first_failure, "");
}

void wait_sweeps(struct machine *machine, uint64_t more)
{
	uint64_t until_ns = clock_now_ns() + PATIENCE_NS, wanted = report_of(machine).sweeps + more;

	while (report_of(machine).sweeps < wanted) {
		if (clock_now_ns() > until_ns)
			fail_msg("no sweep ended: %s", report_of(machine).first_failure);
		clock_sleep_until(clock_now_ns() + NS_PER_MS);
	}
}

void wait_written(struct machine *machine, uint64_t more)
{
	uint64_t until_ns = clock_now_ns() + PATIENCE_NS;
	uint64_t wanted = report_of(machine).pages_written + more;

	while (report_of(machine).pages_written < wanted && clock_now_ns() < until_ns)
		clock_sleep_until(clock_now_ns() + NS_PER_MS);
	assert_true(report_of(machine).pages_written >= wanted);
}

bool no_rings(void)
{
	struct machine_config config;
	struct machine *machine;
	int ret;

	config_usual(&config, MACHINE_DIRTY_RING);
	ret = machine_new(&config, &machine, &error);
	if (!ret)
		machine_free(machine);
	else
		print_message("%s\n", error.text);
	return ret == -EOPNOTSUPP;
}

int some_numa_node(void)
{
	for (int node = 0; node < MACHINE_NUMA_NODE_LIMIT; node++) {
		if (machine_numa_exists(node))
			return node;
	}
	print_message("this kernel has no NUMA nodes\n");
	return -1;
}

bool skip_without_kvm(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		perror("skipped: cannot open /dev/kvm");
		return true;
	}
	close(fd);
	return false;
}
