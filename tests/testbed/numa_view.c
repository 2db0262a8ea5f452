/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where another process is, as the kernel tells it: on which NUMA nodes the pages of its guest
 * memory and of its RDMA devices' queues lie, and on which its threads run. For the tests of
 * placement; it takes no word of the process itself. numa_view PID: one JSON object on standard
 * output.
 */
#include <dirent.h>
#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#define GUEST_FILE  "/memfd:ramlift-guest"
#define DEVICE_FILE "/dev/infiniband/"
#define MAX_NODES   8
#define CHUNK_PAGES 4096u

struct mapping {
	uint64_t start, end, offset_bytes;
	char file[256];
};

static long page_bytes;

static void die(const char *what)
{
	fprintf(stderr, "numa_view: %s: %s\n", what, strerror(errno));
	exit(1);
}

static FILE *open_proc(int pid, const char *file)
{
	char path[64];
	FILE *opened;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	opened = fopen(path, "re");
	if (!opened)
		die(path);
	return opened;
}

/* "guest", or the RDMA device that a uverbs file belongs to; NULL for a mapping of no interest. */
static const char *owner(const char *file, char *name, int size)
{
	char path[128];
	FILE *opened;

	if (!strncmp(file, GUEST_FILE, strlen(GUEST_FILE)))
		return "guest";
	if (strncmp(file, DEVICE_FILE, strlen(DEVICE_FILE)) != 0)
		return NULL;
	snprintf(path, sizeof(path), "/sys/class/infiniband_verbs/%.60s/ibdev",
		 file + strlen(DEVICE_FILE));
	opened = fopen(path, "re");
	if (!opened || !fgets(name, size, opened))
		die(path);
	fclose(opened);
	name[strcspn(name, "\n")] = 0;
	return name;
}

/* The memory policy of a mapping, like "bind:0"; "default" is the policy of whoever touches it. */
static void policy(int pid, uint64_t start, char *word, int size)
{
	FILE *file = open_proc(pid, "numa_maps");
	char line[1024], found[64];
	unsigned long long at;

	snprintf(word, (size_t)size, "unknown");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%llx %63s", &at, found) == 2 && at == start)
			snprintf(word, (size_t)size, "%s", found);
	}
	fclose(file);
}

/* Adds the pages of [hva, hva + n pages) to pages[node]; what is not in memory is in none. */
static void count_pages(int pid, uint64_t hva, unsigned n_pages, uint64_t *pages)
{
	static void *addresses[CHUNK_PAGES];
	static int nodes[CHUNK_PAGES];

	for (unsigned i = 0; i < n_pages; i++)
		addresses[i] = (void *)(uintptr_t)(hva + i * (uint64_t)page_bytes);
	if (numa_move_pages(pid, n_pages, addresses, NULL, nodes, 0) < 0)
		die("move_pages");
	for (unsigned i = 0; i < n_pages; i++) {
		if (nodes[i] >= 0 && nodes[i] < MAX_NODES)
			pages[nodes[i]]++;
	}
}

static json_t *describe_mapping(int pid, const struct mapping *mapping, const char *of)
{
	uint64_t pages[MAX_NODES] = { 0 };
	json_t *per_node = json_array();
	char word[64];

	for (uint64_t at = mapping->start; at < mapping->end;) {
		uint64_t left = (mapping->end - at) / (uint64_t)page_bytes;
		unsigned n_pages = left < CHUNK_PAGES ? (unsigned)left : CHUNK_PAGES;

		count_pages(pid, at, n_pages, pages);
		at += n_pages * (uint64_t)page_bytes;
	}
	for (int node = 0; node <= numa_max_node() && node < MAX_NODES; node++)
		json_array_append_new(per_node, json_integer((json_int_t)pages[node] * page_bytes));
	policy(pid, mapping->start, word, sizeof(word));
	return json_pack("{s:s, s:I, s:I, s:s, s:o}", "of", of, "offset_bytes",
			 (json_int_t)mapping->offset_bytes, "bytes",
			 (json_int_t)(mapping->end - mapping->start), "policy", word, "node_bytes",
			 per_node);
}

static json_t *mappings(int pid)
{
	FILE *file = open_proc(pid, "maps");
	json_t *array = json_array();
	char line[1024], name[64];
	const char *of;

	while (fgets(line, sizeof(line), file)) {
		unsigned long long start, end, offset;
		struct mapping mapping;

		if (sscanf(line, "%llx-%llx %*s %llx %*s %*s %255s", &start, &end, &offset,
			   mapping.file) != 4)
			continue;
		mapping.start = start;
		mapping.end = end;
		mapping.offset_bytes = offset;
		of = owner(mapping.file, name, sizeof(name));
		if (of)
			json_array_append_new(array, describe_mapping(pid, &mapping, of));
	}
	fclose(file);
	return array;
}

/* One line of a file about a thread; false when the thread has ended meanwhile. */
static bool read_thread(int pid, int tid, const char *what, char *line, int size)
{
	char path[64];
	FILE *file;
	bool ok;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, what);
	file = fopen(path, "re");
	if (!file)
		return false;
	ok = fgets(line, size, file);
	fclose(file);
	if (ok)
		line[strcspn(line, "\n")] = 0;
	return ok;
}

/* The CPU that a thread ran on last: the 39th field of its stat, whose second ends with ")". */
static int last_cpu(const char *stat)
{
	const char *at = strrchr(stat, ')');

	for (int field = 2; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at) : -1;
}

/* The nodes on whose CPUs a thread may run; none when it has ended. */
static json_t *allowed_nodes(int tid)
{
	struct bitmask *cpus = numa_allocate_cpumask();
	bool allowed[MAX_NODES] = { false };
	json_t *array = json_array();

	if (numa_sched_getaffinity(tid, cpus) < 0)
		numa_bitmask_clearall(cpus);
	for (int cpu = 0; cpu < numa_num_configured_cpus(); cpu++) {
		int node = numa_bitmask_isbitset(cpus, (unsigned)cpu) ? numa_node_of_cpu(cpu) : -1;

		if (node >= 0 && node < MAX_NODES)
			allowed[node] = true;
	}
	for (int node = 0; node < MAX_NODES; node++) {
		if (allowed[node])
			json_array_append_new(array, json_integer(node));
	}
	numa_bitmask_free(cpus);
	return array;
}

static void add_thread(json_t *array, int pid, int tid)
{
	char name[32], stat[1024];
	int cpu;

	if (!read_thread(pid, tid, "comm", name, sizeof(name)) ||
	    !read_thread(pid, tid, "stat", stat, sizeof(stat)))
		return;
	cpu = last_cpu(stat);
	json_array_append_new(array, json_pack("{s:i, s:s, s:i, s:i, s:o}", "tid", tid, "name",
					       name, "cpu", cpu, "node", numa_node_of_cpu(cpu),
					       "allowed_nodes", allowed_nodes(tid)));
}

static json_t *threads(int pid)
{
	json_t *array = json_array();
	const struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		die(path);
	while ((entry = readdir(dir))) {
		int tid = atoi(entry->d_name);

		if (tid > 0)
			add_thread(array, pid, tid);
	}
	closedir(dir);
	return array;
}

int main(int argc, char **argv)
{
	json_t *all;
	int pid;

	if (argc != 2 || (pid = atoi(argv[1])) <= 0) {
		fprintf(stderr, "usage: numa_view PID\n");
		return 2;
	}
	if (numa_available() < 0) {
		fprintf(stderr, "numa_view: this kernel knows no NUMA nodes\n");
		return 77;
	}
	page_bytes = numa_pagesize();
	all = json_pack("{s:o, s:o}", "mappings", mappings(pid), "threads", threads(pid));
	json_dumpf(all, stdout, JSON_INDENT(1));
	printf("\n");
	json_decref(all);
	return 0;
}
