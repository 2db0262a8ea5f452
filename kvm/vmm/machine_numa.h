/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory and this host's NUMA nodes: which nodes exist, which one takes the place of one of
 * another host, and how memory is bound to one. Knows nothing of KVM.
 */
#ifndef KVM_VMM_MACHINE_NUMA_H
#define KVM_VMM_MACHINE_NUMA_H

#include <stdbool.h>

#include "kvm/vmm/machine.h"

/* Whether there is such a node, and this process may use its memory. */
bool machine_numa_exists(int node);

/* -EINVAL and a sentence unless all nodes of the configuration exist here; -1 stands for any. */
int machine_numa_check(const struct machine_config *config, struct ramlift_error *error);

/*
 * The source's nodes in the configuration become nodes of this host: those that the map names by
 * the map, others stay where they exist, and are left open where they do not. -EINVAL: the map
 * leads to a node that does not exist here.
 */
int machine_numa_translate(struct machine_config *config, const struct machine_numa_map *map,
			   struct ramlift_error *error);

/* Have a region's memory come from its node and from nowhere else; before anything touches it. */
int machine_numa_bind(const struct ramlift_region *region, struct ramlift_error *error);

#endif
