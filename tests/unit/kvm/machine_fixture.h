/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the machine on the real /dev/kvm share. */
#ifndef TESTS_UNIT_KVM_MACHINE_FIXTURE_H
#define TESTS_UNIT_KVM_MACHINE_FIXTURE_H

#include "unit.h"

#include "kvm/vmm/machine.h"

#define MIB	    (1ull << 20)
#define PATIENCE_NS (100 * NS_PER_S) /* hosts may be emulated themselves */

extern struct ramlift_error error;

#define assert_ok(call)                                                                            \
	do {                                                                                       \
		error.text[0] = '\0';                                                              \
		if ((call) != 0)                                                                   \
			fail_msg("%s: %s", #call, error.text);                                     \
	} while (0)

/* 32 MiB, two vCPUs, 20,000 pages/s to 4 MiB. */
void config_usual(struct machine_config *config, enum machine_dirty_mode mode);

/* Whether this host has no dirty rings; says so. */
bool no_rings(void);

/* A NUMA node with memory, or -1 where this kernel has none; says so. */
int some_numa_node(void);

struct machine_report report_of(struct machine *machine);
void assert_healthy(struct machine *machine);

/* Until the guest has stamped all its pages and gone through them so many times more. */
void wait_sweeps(struct machine *machine, uint64_t more);
void wait_written(struct machine *machine, uint64_t more);

/* Run the tests, or exit with 77 where there is no /dev/kvm. */
#define run_on_kvm(name, tests)                                                                    \
	(skip_without_kvm() ? 77 : cmocka_run_group_tests_name(name, tests, NULL, NULL))
bool skip_without_kvm(void);

#endif
