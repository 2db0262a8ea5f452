/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "data_path.h"
#include "guest.h"
#include "host.h"
#include "memory.h"

void process_exit(void)
{
	struct process *process = world.current->process;
	unsigned n;
	size_t bytes = memory_of(process, &n);

	if (n)
		violated("%s leaks %u allocations, %zu bytes", process->name, n, bytes);
	if (descriptors_open(process))
		violated("%s leaves %u descriptors open", process->name, descriptors_open(process));
	if (data_path_endpoints(process))
		violated("%s leaves lanes open", process->name);
	for (struct task *task = world.tasks; task; task = task->next) {
		if (task->process == process && task != world.current && task->state != TASK_DEAD)
			violated("%s leaves the thread %s behind", process->name, task->name);
	}
	process_kill(process);
}

static void clean_up_after(struct process *process)
{
	data_path_forget(process);
	copies_forget(process);
	descriptors_close_all(process);
	memory_forget(process);
}

void hosts_begin(void)
{
	process_ended = clean_up_after;
	network_begin();
	for (unsigned i = 0; i < MAX_HOSTS; i++) {
		snprintf(hosts[i].name, sizeof(hosts[i].name), "%c", 'A' + (int)i);
		hosts[i].address.s_addr = htonl(0x0a000001u + i);
		hosts[i].up = true;
		disk_begin(&hosts[i]);
	}
}

void hosts_end(void)
{
	for (unsigned i = 0; i < MAX_HOSTS; i++)
		disk_end(&hosts[i]);
	network_end();
}

void host_power_off(struct host *host)
{
	struct process *own = NULL;

	if (!host->up)
		return;
	happened(5, "host %s loses power", host->name);
	host->up = false;
	network_power_off(host);
	for (struct process *process = world.processes; process; process = process->next) {
		if (process->host != host || !process->alive)
			continue;
		if (world.current && world.current->process == process)
			own = process; /* it does not come back from there */
		else
			process_kill(process);
	}
	disk_power_off(host);
	if (own)
		process_kill(own);
}

void host_power_on(struct host *host)
{
	happened(6, "host %s is up again", host->name);
	host->up = true;
}
