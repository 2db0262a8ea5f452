/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hwloc knows where devices are. Loading its topology costs 20 to 50 ms on a host with two CPUs,
 * more on larger ones: it is loaded once in a process, and only where there is something to choose.
 * A device that is plugged in later has no known node.
 */
#include "rdma/device_node.h"

#include <hwloc.h>
#include <infiniband/verbs.h>
#include <net/if.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <string.h>

#include "rdma/devices.h"

static hwloc_topology_t topology; /* NULL: it could not be loaded; only read once it is there */

/*
 * Nodes and devices, nothing else; but groups, to which hwloc attaches both where a node is no
 * whole package. The x86 component would send this thread around all CPUs.
 */
static void load_topology(void)
{
	hwloc_topology_t loading;

	if (hwloc_topology_init(&loading))
		return;
	hwloc_topology_set_all_types_filter(loading, HWLOC_TYPE_FILTER_KEEP_NONE);
	hwloc_topology_set_type_filter(loading, HWLOC_OBJ_GROUP, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
	hwloc_topology_set_io_types_filter(loading, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
	hwloc_topology_set_components(loading, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
	hwloc_topology_set_flags(
		loading, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED | HWLOC_TOPOLOGY_FLAG_NO_DISTANCES |
				 HWLOC_TOPOLOGY_FLAG_NO_MEMATTRS | HWLOC_TOPOLOGY_FLAG_NO_CPUKINDS);
	if (hwloc_topology_load(loading))
		hwloc_topology_destroy(loading);
	else
		topology = loading;
}

static hwloc_obj_t find_device(hwloc_obj_osdev_type_t type, const char *name)
{
	hwloc_obj_t device = NULL;

	while ((device = hwloc_get_next_osdev(topology, device)))
		if (device->attr->osdev.type == type && device->name && !strcmp(device->name, name))
			break;
	return device;
}

/* Several nodes are one place only where they are kinds of memory of the same CPUs: then ordinary
 * memory comes first. */
static int node_of(hwloc_obj_t device)
{
	hwloc_obj_t place = hwloc_get_non_io_ancestor_obj(topology, device);
	int first = hwloc_bitmap_first(place->nodeset);
	hwloc_obj_t node = hwloc_get_numanode_obj_by_os_index(topology, (unsigned)first);

	for (int i = first; i >= 0; i = hwloc_bitmap_next(place->nodeset, i)) {
		hwloc_obj_t other = hwloc_get_numanode_obj_by_os_index(topology, (unsigned)i);

		if (!node || !other || !hwloc_bitmap_isequal(node->cpuset, other->cpuset))
			return -1;
	}
	return first;
}

int device_node(const struct ibv_device *device)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	char netdev[IF_NAMESIZE];
	hwloc_obj_t found;

	if (numa_available() < 0 || numa_max_node() == 0)
		return 0;
	pthread_once(&once, load_topology);
	if (!topology)
		return -1;
	found = find_device(HWLOC_OBJ_OSDEV_OPENFABRICS, device->name);
	if (!found) {
		rdma_device_netdev(device, 1, netdev);
		found = find_device(HWLOC_OBJ_OSDEV_NETWORK, netdev);
	}
	return found ? node_of(found) : -1;
}

/* Not numa_set_preferred(): it writes to standard error where a container forbids it. */
void memory_policy_prefer(int node, struct memory_policy *before)
{
	unsigned long nodes[MEMORY_POLICY_WORDS] = { 0 };

	before->mode = -1;
	if (node < 0 || node >= (int)MEMORY_POLICY_MAX_NODES || numa_max_node() == 0)
		return;
	if (get_mempolicy(&before->mode, before->nodes, MEMORY_POLICY_MAX_NODES, NULL, 0)) {
		before->mode = -1;
		return;
	}
	nodes[(unsigned)node / MEMORY_POLICY_WORD_BITS] =
		1ul << (unsigned)node % MEMORY_POLICY_WORD_BITS;
	set_mempolicy(MPOL_PREFERRED, nodes, MEMORY_POLICY_MAX_NODES);
}

void memory_policy_restore(const struct memory_policy *before)
{
	if (before->mode >= 0)
		set_mempolicy(before->mode, before->nodes, MEMORY_POLICY_MAX_NODES);
}
