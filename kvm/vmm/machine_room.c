/* SPDX-License-Identifier: Apache-2.0 */
/* Room for a guest, as the kernel tells it in /proc and /sys; see the header. */
#include "kvm/vmm/machine_room.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"

#define GIB ((double)(1ull << 30))

#define UNKNOWN UINT64_MAX

/* The number after `key` in a file, or in all of it with key ""; UNKNOWN when not to be had. */
static uint64_t read_number(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	uint64_t value = UNKNOWN;
	char line[256];

	if (!file)
		return value;
	while (value == UNKNOWN && fgets(line, sizeof(line), file)) {
		unsigned long long number;

		if (strncmp(line, key, strlen(key)) == 0 &&
		    sscanf(line + strlen(key), "%llu", &number) == 1)
			value = number;
	}
	fclose(file);
	return value;
}

static double gib_of_kib(uint64_t kib)
{
	return (double)kib * 1024 / GIB;
}

static int check_pages(uint64_t needed_bytes, struct ramlift_error *error)
{
	uint64_t available_kib = read_number("/proc/meminfo", "MemAvailable:");

	if (available_kib >= needed_bytes >> 10)
		return 0;
	return error_set(error, -ENOMEM,
			 "this host has %.1f GiB of memory available, the guest needs %.1f GiB",
			 gib_of_kib(available_kib), (double)needed_bytes / GIB);
}

/* What is free, and what the page cache would give up: the kernel has no MemAvailable of a node. */
static int check_node_pages(int node, uint64_t needed_bytes, struct ramlift_error *error)
{
	static const char *const keys[] = { "MemFree:", "Active(file):", "Inactive(file):" };
	uint64_t available_kib = 0;
	char path[80], key[48];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		uint64_t kib;

		snprintf(key, sizeof(key), "Node %d %s", node, keys[i]);
		kib = read_number(path, key);
		available_kib += kib == UNKNOWN ? 0 : kib;
	}
	if (available_kib >= needed_bytes >> 10)
		return 0;
	return error_set(error, -ENOMEM,
			 "NUMA node %d has %.1f GiB of memory available, the guest needs %.1f GiB "
			 "of it",
			 node, gib_of_kib(available_kib), (double)needed_bytes / GIB);
}

/* Free huge pages in a folder of /sys; others may have reserved some of them. */
static uint64_t free_huge_pages(const char *dir)
{
	uint64_t free_pages, reserved;
	char path[160];

	snprintf(path, sizeof(path), "%s/free_hugepages", dir);
	free_pages = read_number(path, "");
	snprintf(path, sizeof(path), "%s/resv_hugepages", dir);
	reserved = read_number(path, "");
	if (free_pages == UNKNOWN || reserved == UNKNOWN) /* nodes do not tell what is reserved */
		return free_pages;
	return free_pages > reserved ? free_pages - reserved : 0;
}

/* node -1: of the whole host. */
static int check_huge_pages(int node, uint64_t needed_bytes, uint64_t page_size_bytes,
			    struct ramlift_error *error)
{
	uint64_t needed = needed_bytes / page_size_bytes, have;
	unsigned long long mib = page_size_bytes >> 20, kib = page_size_bytes >> 10;
	char dir[120], where[32] = "this host";

	if (node < 0) {
		snprintf(dir, sizeof(dir), "/sys/kernel/mm/hugepages/hugepages-%llukB", kib);
	} else {
		snprintf(dir, sizeof(dir),
			 "/sys/devices/system/node/node%d/hugepages/hugepages-%llukB", node, kib);
		snprintf(where, sizeof(where), "NUMA node %d", node);
	}
	have = free_huge_pages(dir);
	if (have == UNKNOWN)
		return error_set(error, -ENOMEM, "%s has no huge pages of %llu MiB", where, mib);
	if (have >= needed)
		return 0;
	return error_set(error, -ENOMEM,
			 "%s has %llu free huge pages of %llu MiB, the guest needs %llu: raise "
			 "%s/nr_hugepages",
			 where, (unsigned long long)have, mib, (unsigned long long)needed, dir);
}

static uint64_t bytes_of_node(const struct ramlift_region *regions, unsigned n_regions, int node)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n_regions; i++)
		bytes += regions[i].numa_node == node ? regions[i].size_bytes : 0;
	return bytes;
}

int machine_room_check(const struct ramlift_region *regions, unsigned n_regions,
		       struct ramlift_error *error)
{
	uint64_t all_bytes = 0, page = regions[0].page_size_bytes;
	bool huge = page != RAMLIFT_PAGE_BYTES;
	int ret;

	for (unsigned i = 0; i < n_regions; i++)
		all_bytes += regions[i].size_bytes;
	ret = huge ? check_huge_pages(-1, all_bytes, page, error) : check_pages(all_bytes, error);
	for (unsigned i = 0; i < n_regions && !ret; i++) {
		int node = regions[i].numa_node;
		uint64_t bytes = bytes_of_node(regions, n_regions, node);

		if (node >= 0)
			ret = huge ? check_huge_pages(node, bytes, page, error)
				   : check_node_pages(node, bytes, error);
	}
	return ret;
}
