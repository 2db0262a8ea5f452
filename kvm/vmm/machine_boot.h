/* SPDX-License-Identifier: Apache-2.0 */
/* The first start of the test guest: program, page tables and boot parameters in RAM, and vCPUs
 * that stand at the program's entry in long mode. */
#ifndef KVM_VMM_MACHINE_BOOT_H
#define KVM_VMM_MACHINE_BOOT_H

struct machine;
struct ramlift_error;

int machine_boot(struct machine *machine, struct ramlift_error *error);

#endif
