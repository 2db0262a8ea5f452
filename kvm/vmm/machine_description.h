/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's description: what the destination must know to make the same machine. Pure, so that
 * any bytes can be tried on it. Little-endian: a head of fixed layout, then the NUMA nodes that RAM
 * is split over, then the CPUID entries.
 */
#ifndef KVM_VMM_MACHINE_DESCRIPTION_H
#define KVM_VMM_MACHINE_DESCRIPTION_H

#include <stddef.h>

#include "kvm/vmm/machine.h"
#include "kvm/vmm/machine_cpuid.h"

struct machine_description {
	struct machine_config config;
	uint32_t tsc_khz;
	struct machine_cpuid cpuid;
};

/* Into memory from malloc(). -ENOMEM. */
int machine_description_encode(const struct machine_description *description, void **bytes,
			       size_t *n_bytes);

/* -EINVAL with a sentence. The configuration still has to pass machine_config_check(). */
int machine_description_decode(const void *bytes, size_t n_bytes,
			       struct machine_description *description,
			       struct ramlift_error *error);

#endif
