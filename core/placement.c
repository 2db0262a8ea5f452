/* SPDX-License-Identifier: Apache-2.0 */
#include "core/placement.h"

#include <numa.h>
#include <sched.h>

void placement_bind_thread(int node)
{
	if (node >= 0 && numa_available() >= 0 && numa_max_node() > 0 && node <= numa_max_node())
		numa_run_on_node(node);
}

int placement_here(void)
{
	int cpu = sched_getcpu();

	return cpu < 0 || numa_available() < 0 ? -1 : numa_node_of_cpu(cpu);
}
