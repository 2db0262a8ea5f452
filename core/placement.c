/* SPDX-License-Identifier: Apache-2.0 */
#include "core/placement.h"

#include <numa.h>
#include <sched.h>
#include <stdbool.h>

static bool known(int node)
{
	return node >= 0 && numa_available() >= 0 && node <= numa_max_node() &&
	       numa_max_node() > 0 && numa_bitmask_isbitset(numa_all_nodes_ptr, (unsigned)node);
}

void placement_bind_thread(int node)
{
	if (!known(node))
		return;
	numa_run_on_node(node);
	numa_set_preferred(node);
}

void placement_prefer(int node)
{
	if (known(node))
		numa_set_preferred(node);
	else if (numa_available() >= 0)
		numa_set_localalloc();
}

int placement_here(void)
{
	int cpu = sched_getcpu();

	return cpu < 0 || numa_available() < 0 ? -1 : numa_node_of_cpu(cpu);
}
