/* SPDX-License-Identifier: Apache-2.0 */
#include "core/placement.h"

#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

static bool known(int node)
{
	return node >= 0 && numa_available() >= 0 && node <= numa_max_node() &&
	       numa_max_node() > 0 && numa_bitmask_isbitset(numa_all_nodes_ptr, (unsigned)node);
}

void placement_bind_thread(int node)
{
	static pthread_mutex_t filling = PTHREAD_MUTEX_INITIALIZER; /* libnuma's table of CPUs */

	if (!known(node))
		return;
	pthread_mutex_lock(&filling);
	numa_run_on_node(node);
	pthread_mutex_unlock(&filling);
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
	unsigned cpu, node;

	/* Not by libnuma, whose table of CPUs is not filled in by several threads at once. */
	return getcpu(&cpu, &node) || numa_available() < 0 ? -1 : (int)node;
}
