/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where devices are. hwloc reads a host of its own making here, below a temporary folder: a package
 * with two NUMA nodes, fake0 on the first, fake1's network interface on the second, which has
 * memory of another kind as a third, and fake2 nowhere.
 */
#include <errno.h>
#include <ftw.h>
#include <infiniband/verbs.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake.h"
#include "fake_device.h"
#include "pair.h"
#include "rdma/device_node.h"

static char root[] = "/tmp/ramlift-host-XXXXXX";
static char infiniband[64];
static int max_node;

/* In the place of libnuma's. */
int numa_max_node(void)
{
	return max_node;
}

static void make_folders(char *path)
{
	for (char *slash = path + sizeof(root); (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(path, 0700);
		*slash = '/';
	}
}

static void make_file(const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	make_folders(path);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void make_link(const char *name, const char *target)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	make_folders(path);
	assert_int_equal(symlink(target, path), 0);
}

static void make_cpu(unsigned cpu)
{
	static const char *const files[] = { "core_id",	     "thread_siblings",
					     "core_cpus",    "core_siblings",
					     "package_cpus", "physical_package_id" };
	char own[16], bit[16], name[128];
	const char *const texts[] = { own, bit, bit, "f", "f", "0" };

	snprintf(own, sizeof(own), "%u", cpu);
	snprintf(bit, sizeof(bit), "%x", 1u << cpu);
	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(name, sizeof(name), "sys/devices/system/cpu/cpu%u/topology/%s", cpu,
			 files[i]);
		make_file(name, texts[i]);
	}
}

static void make_node(unsigned node, const char *cpus)
{
	char name[128], meminfo[64];

	snprintf(name, sizeof(name), "sys/devices/system/node/node%u/cpumap", node);
	make_file(name, cpus);
	snprintf(name, sizeof(name), "sys/devices/system/node/node%u/meminfo", node);
	snprintf(meminfo, sizeof(meminfo), "Node %u MemTotal: 1048576 kB\n", node);
	make_file(name, meminfo);
}

static void make_pci_device(const char *path, const char *class, const char *cpus)
{
	static const char *const files[] = { "vendor", "device", "class", "local_cpus", "config" };
	const char *const texts[] = { "0x15b3", "0x1017", class, cpus, "" };
	char name[128], target[128];

	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(name, sizeof(name), "sys/devices/%s/%s", path, files[i]);
		make_file(name, texts[i]);
	}
	snprintf(name, sizeof(name), "sys/bus/pci/devices%s", strrchr(path, '/'));
	snprintf(target, sizeof(target), "../../../devices/%s", path);
	make_link(name, target);
}

static int make_host(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(root));
	for (unsigned cpu = 0; cpu < 4; cpu++)
		make_cpu(cpu);
	make_file("sys/devices/system/cpu/online", "0-3");
	make_file("sys/devices/system/node/online", "0-2");
	make_node(0, "3");
	make_node(1, "c");
	make_node(2, "0");
	make_link("sys/devices/system/node/node2/access0/initiators/node1", "../../../node1");
	make_pci_device("pci0000:00/0000:00:01.0", "0x020700", "3");
	make_file("sys/devices/pci0000:00/0000:00:01.0/infiniband/fake0/node_guid", "");
	make_link("sys/class/infiniband/fake0",
		  "../../devices/pci0000:00/0000:00:01.0/infiniband/fake0");
	make_pci_device("pci0000:80/0000:80:01.0", "0x020000", "c");
	make_file("sys/devices/pci0000:80/0000:80:01.0/virtio1/net/fakeeth1/mtu", "4200");
	make_link("sys/class/net/fakeeth1",
		  "../../devices/pci0000:80/0000:80:01.0/virtio1/net/fakeeth1");
	make_file("sys/devices/virtual/infiniband/fake1/parent", "fakeeth1\n");
	make_link("sys/class/infiniband/fake1", "../../devices/virtual/infiniband/fake1");
	setenv("HWLOC_FSROOT", root, 1);
	snprintf(infiniband, sizeof(infiniband), "%s/sys/class/infiniband", root);
	fake_sysfs(infiniband);
	return 0;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *ftw)
{
	(void)status, (void)kind, (void)ftw;
	return remove(path);
}

static int remove_host(void **state)
{
	(void)state;
	return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int node_of(unsigned device)
{
	return device_node(fake_context(device)->device);
}

/* Before hwloc is asked for the first time. */
static void test_one_node(void **state)
{
	(void)state;
	max_node = 0;
	fake_plug(3);
	for (unsigned device = 0; device < 3; device++)
		assert_int_equal(node_of(device), 0);
}

static void test_devices_on_nodes(void **state)
{
	(void)state;
	max_node = 2;
	fake_plug(3);
	assert_int_equal(node_of(0), 0);
	assert_int_equal(node_of(1), 1);
	assert_int_equal(node_of(2), -1);
}

/* Without padding, to be compared as bytes. */
struct policy {
	unsigned long nodes[MEMORY_POLICY_WORDS];
	int mode, zero;
};

static struct policy current_policy(void)
{
	struct policy policy = { .mode = -1 };

	assert_int_equal(
		get_mempolicy(&policy.mode, policy.nodes, MEMORY_POLICY_MAX_NODES, NULL, 0), 0);
	return policy;
}

static void test_policy_comes_back(void **state)
{
	struct policy usual = { .mode = MPOL_BIND, .nodes = { 1 } }, now;
	struct memory_policy before;

	(void)state;
	max_node = 2;
	if (set_mempolicy(usual.mode, usual.nodes, MEMORY_POLICY_MAX_NODES))
		skip();
	memory_policy_prefer(0, &before);
	now = current_policy();
	assert_int_equal(now.mode, MPOL_PREFERRED);
	assert_int_equal(now.nodes[0], 1);
	memory_policy_restore(&before);
	now = current_policy();
	assert_memory_equal(&now, &usual, sizeof(now));
	/* Not known, not there, not possible: nothing changes. */
	for (int node = -1; node < 5000; node += 1000) {
		memory_policy_prefer(node, &before);
		now = current_policy();
		if (node)
			assert_memory_equal(&now, &usual, sizeof(now));
		memory_policy_restore(&before);
		now = current_policy();
		assert_memory_equal(&now, &usual, sizeof(now));
	}
	assert_int_equal(set_mempolicy(MPOL_DEFAULT, NULL, 0), 0);
}

/* The host that runs the tests need not have a node 1: fake0, on node 0, tells. */
static void test_queues_on_their_nodes(void **state)
{
	struct policy usual = current_policy(), now;
	struct pair pair;

	(void)state;
	if (set_mempolicy(MPOL_DEFAULT, NULL, 0))
		skip();
	max_node = 2;
	pair_init(&pair, 2);
	pair_name_rails(&pair, 2);
	pair_open(&pair);
	assert_int_equal(transport->rail_node(pair.destination, 0), 0);
	assert_int_equal(transport->rail_node(pair.destination, 1), 1);
	assert_int_equal(transport->rail_node(pair.source, 0), 1);
	assert_int_equal(transport->rail_node(pair.source, 1), 0);
	assert_int_equal(fake_queue_node(0), 0);
	assert_int_not_equal(fake_queue_node(1), 0);
	now = current_policy();
	assert_memory_equal(&now, &usual, sizeof(now));
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_node),
		cmocka_unit_test(test_devices_on_nodes),
		cmocka_unit_test(test_policy_comes_back),
		cmocka_unit_test(test_queues_on_their_nodes),
	};

	return cmocka_run_group_tests(tests, make_host, remove_host);
}
