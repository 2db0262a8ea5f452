/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift devices`: the RDMA devices of this host, a line a port. */
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "core/ramlift.h"
#include "kvm/vmm/command.h"
#include "rdma/devices.h"

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, "one JSON object on standard output", 0 },
	{ 0 },
};

static error_t parse(int key, char *text, struct argp_state *state)
{
	bool *json = state->input;

	(void)text;
	if (key != 'j')
		return ARGP_ERR_UNKNOWN;
	*json = true;
	return 0;
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "List the RDMA devices of this host: port, state, speed, MTU, NUMA node, network "
	       "interface.\v"
	       "A soft-RoCE device claims a speed that it does not have.",
};

static json_t *device_json(const struct rdma_device_info *device)
{
	json_t *object = json_object();
	char guid[17];

	snprintf(guid, sizeof(guid), "%016llx", (unsigned long long)device->guid);
	json_object_set_new(object, "name", json_string(device->name));
	json_object_set_new(object, "port", json_integer(device->port));
	json_object_set_new(object, "state", json_string(device->state));
	json_object_set_new(object, "active", json_boolean(device->active));
	json_object_set_new(object, "link_layer", json_string(device->link_layer));
	json_object_set_new(object, "speed_gbit_per_s", json_real(device->speed_gbps));
	json_object_set_new(object, "active_mtu_bytes", json_integer(device->active_mtu_bytes));
	json_object_set_new(object, "numa_node", json_integer(device->numa_node));
	json_object_set_new(object, "netdev", json_string(device->netdev));
	json_object_set_new(object, "guid", json_string(guid));
	return object;
}

static void print_json(const struct rdma_device_info *devices, unsigned count)
{
	json_t *array = json_array(), *all;

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(array, device_json(&devices[i]));
	all = json_pack("{s:o}", "devices", array);
	json_dumpf(all, stdout, JSON_INDENT(2));
	printf("\n");
	json_decref(all);
}

static void print_table(const struct rdma_device_info *devices, unsigned count)
{
	char speed[32], node[16];

	printf("%-16s %4s  %-8s %-10s %10s %6s %5s  %s\n", "DEVICE", "PORT", "STATE", "LINK",
	       "SPEED", "MTU", "NUMA", "NETDEV");
	for (unsigned i = 0; i < count; i++) {
		const struct rdma_device_info *device = &devices[i];

		snprintf(speed, sizeof(speed), device->speed_gbps > 0 ? "%.3g Gbit/s" : "-",
			 device->speed_gbps);
		snprintf(node, sizeof(node), device->numa_node >= 0 ? "%d" : "-",
			 device->numa_node);
		printf("%-16s %4u  %-8s %-10s %10s %6u %5s  %s\n", device->name, device->port,
		       device->state, device->link_layer, speed, device->active_mtu_bytes, node,
		       device->netdev[0] ? device->netdev : "-");
	}
}

int cmd_devices(int argc, char **argv)
{
	struct rdma_device_info *devices = NULL;
	struct ramlift_error error = { .code = 0 };
	unsigned count = 0;
	bool json = false;

	command_parse(&argp, argc, argv, &json);
	if (rdma_devices_list(&devices, &count, &error))
		return command_failed("devices", &error);
	if (json)
		print_json(devices, count);
	else if (count)
		print_table(devices, count);
	if (!count)
		fprintf(stderr, "ramlift devices: this host has no RDMA device; make a soft-RoCE "
				"one with 'modprobe rdma_rxe' and 'rdma link add rxe0 type rxe "
				"netdev eth0', with your own network interface for eth0\n");
	free(devices);
	return count ? COMMAND_DONE : COMMAND_FAILED;
}
