/* SPDX-License-Identifier: Apache-2.0 */
#include "core/placement.h"

#include <numa.h>
#include <pthread.h>
#include <sched.h>

void placement_bind_thread(int node)
{
	static pthread_mutex_t filling = PTHREAD_MUTEX_INITIALIZER; /* libnuma's table of CPUs */

	if (node < 0 || numa_available() < 0 || !numa_max_node() || node > numa_max_node())
		return;
	pthread_mutex_lock(&filling);
	numa_run_on_node(node);
	pthread_mutex_unlock(&filling);
}

int placement_here(void)
{
	unsigned cpu, node;

	/* Not by libnuma, whose table of CPUs is not filled in by several threads at once. */
	return getcpu(&cpu, &node) || numa_available() < 0 ? -1 : (int)node;
}
