/* SPDX-License-Identifier: Apache-2.0 */
/* Whether this host has room for a guest: a guest that meets the OOM killer is lost. */
#ifndef KVM_VMM_MACHINE_ROOM_H
#define KVM_VMM_MACHINE_ROOM_H

#include "core/ramlift.h"

/* -ENOMEM and a sentence with what the host, or one of its NUMA nodes, has and what the regions
 * need. They all have the same page size. */
int machine_room_check(const struct ramlift_region *regions, unsigned n_regions,
		       struct ramlift_error *error);

#endif
