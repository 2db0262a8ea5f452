/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes; see the header. */
#include "kvm/vmm/machine_numa.h"

#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"

bool machine_numa_exists(int node)
{
	return node >= 0 && numa_available() >= 0 && node <= numa_max_node() &&
	       numa_bitmask_isbitset(numa_all_nodes_ptr, (unsigned)node);
}

/* "0, 1 and so on", as the host has them. */
static void list_nodes(char *text, size_t room)
{
	size_t used = 0;

	text[0] = '\0';
	for (int node = 0; numa_available() >= 0 && node <= numa_max_node(); node++) {
		if (machine_numa_exists(node) && used < room)
			used += (size_t)snprintf(text + used, room - used, "%s%d", used ? "," : "",
						 node);
	}
}

static int no_such_node(int node, const char *what, struct ramlift_error *error)
{
	char nodes[128];

	list_nodes(nodes, sizeof(nodes));
	return error_set(error, -EINVAL,
			 "%s NUMA node %d, which this host does not have or does not allow: "
			 "it has %s (numactl -H)",
			 what, node, nodes[0] ? nodes : "none");
}

int machine_numa_check(const struct machine_config *config, struct ramlift_error *error)
{
	for (unsigned i = 0; i < config->n_numa_nodes; i++) {
		int node = config->numa_nodes[i];

		if (node >= 0 && !machine_numa_exists(node))
			return no_such_node(node, "the guest's memory is to be on", error);
	}
	return 0;
}

int machine_numa_map_check(const struct machine_numa_map *map, struct ramlift_error *error)
{
	for (unsigned i = 0; i < map->n; i++) {
		if (!machine_numa_exists(map->to[i]))
			return no_such_node(map->to[i], "--numa-map leads to", error);
	}
	return 0;
}

static int translate(int node, const struct machine_numa_map *map)
{
	for (unsigned i = 0; i < map->n; i++) {
		if (map->from[i] == node)
			return map->to[i];
	}
	return machine_numa_exists(node) ? node : -1;
}

int machine_numa_translate(struct machine_config *config, const struct machine_numa_map *map,
			   struct ramlift_error *error)
{
	/* Looked at again: nodes go offline. */
	int ret = machine_numa_map_check(map, error);

	if (ret)
		return ret;
	for (unsigned i = 0; i < config->n_numa_nodes; i++)
		config->numa_nodes[i] = translate(config->numa_nodes[i], map);
	return 0;
}

int machine_numa_bind(const struct ramlift_region *region, struct ramlift_error *error)
{
	struct bitmask *mask;
	int ret = 0;

	if (region->numa_node < 0)
		return 0;
	mask = numa_allocate_nodemask();
	if (!mask)
		return error_set(error, -ENOMEM, "no memory for a set of NUMA nodes");
	numa_bitmask_setbit(mask, (unsigned)region->numa_node);
	/* One more than there are: the kernel does not count the last bit. */
	if (mbind(region->hva, region->size_bytes, MPOL_BIND, mask->maskp, mask->size + 1, 0))
		ret = -errno;
	numa_bitmask_free(mask);
	return ret ? error_set(error, ret, "cannot bind guest memory to NUMA node %d: mbind: %s",
			       region->numa_node, strerror(-ret))
		   : 0;
}
