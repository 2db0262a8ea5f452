/* SPDX-License-Identifier: Apache-2.0 */
/* Asks libibverbs for devices and ports, and sysfs for what it does not
 * tell: network interfaces. */
#include "rdma/devices.h"

#include <endian.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/ramlift.h"
#include "rdma/device_node.h"

static const char *state_text(enum ibv_port_state state)
{
	static const char *const texts[] = {
		[IBV_PORT_NOP] = "unknown",   [IBV_PORT_DOWN] = "down",
		[IBV_PORT_INIT] = "init",     [IBV_PORT_ARMED] = "armed",
		[IBV_PORT_ACTIVE] = "active", [IBV_PORT_ACTIVE_DEFER] = "deferred",
	};

	return (unsigned)state < sizeof(texts) / sizeof(texts[0]) ? texts[state] : "unknown";
}

static const char *link_layer_text(uint8_t link_layer)
{
	switch (link_layer) {
	case IBV_LINK_LAYER_ETHERNET:
		return "ethernet";
	case IBV_LINK_LAYER_INFINIBAND:
	case IBV_LINK_LAYER_UNSPECIFIED: /* what InfiniBand drivers said before there was RoCE */
		return "infiniband";
	default:
		return "unknown";
	}
}

/* Codes of the InfiniBand specification's PortInfo (LinkWidthActive, LinkSpeedActive). */
static double speed_gbps(uint8_t width, uint8_t speed)
{
	static const struct {
		uint8_t code;
		double lanes;
	} widths[] = { { 1, 1 }, { 2, 4 }, { 4, 8 }, { 8, 12 }, { 16, 2 } };
	static const struct {
		uint8_t code;
		double gbps;
	} speeds[] = { { 1, 2.5 }, { 2, 5 },   { 4, 10 },  { 8, 10 },
		       { 16, 14 }, { 32, 25 }, { 64, 50 }, { 128, 100 } };
	double lanes = 0, gbps = 0;

	for (unsigned i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
		if (widths[i].code == width)
			lanes = widths[i].lanes;
	for (unsigned i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++)
		if (speeds[i].code == speed)
			gbps = speeds[i].gbps;
	return lanes * gbps;
}

/* The first line of a file of sysfs; false where there is none. */
static bool read_line(const char *path, char *line, int size)
{
	FILE *file = fopen(path, "re");
	bool ok = file && fgets(line, size, file);

	if (file)
		fclose(file);
	if (ok)
		line[strcspn(line, "\n")] = 0;
	return ok;
}

void rdma_device_netdev(const struct ibv_device *device, unsigned port, char netdev[IF_NAMESIZE])
{
	char path[IBV_SYSFS_PATH_MAX + 64];

	netdev[0] = '\0';
	/* By port; soft devices on older kernels have only a parent. */
	snprintf(path, sizeof(path), "%s/ports/%u/gid_attrs/ndevs/0", device->ibdev_path, port);
	if (read_line(path, netdev, IF_NAMESIZE))
		return;
	snprintf(path, sizeof(path), "%s/parent", device->ibdev_path);
	read_line(path, netdev, IF_NAMESIZE);
}

static void fill_port(struct ibv_context *context, unsigned port, struct rdma_device_info *info)
{
	struct ibv_port_attr attr;

	*info = (struct rdma_device_info){ .port = port,
					   .state = "unknown",
					   .link_layer = "unknown" };
	snprintf(info->name, sizeof(info->name), "%s", ibv_get_device_name(context->device));
	info->guid = be64toh(ibv_get_device_guid(context->device));
	if (!ibv_query_port(context, (uint8_t)port, &attr)) {
		info->state = state_text(attr.state);
		info->active = attr.state == IBV_PORT_ACTIVE;
		info->link_layer = link_layer_text(attr.link_layer);
		info->speed_gbps = speed_gbps(attr.active_width, attr.active_speed);
		info->active_mtu_bytes =
			attr.active_mtu >= IBV_MTU_256 && attr.active_mtu <= IBV_MTU_4096
				? 128u << attr.active_mtu
				: 0;
	}
	rdma_device_netdev(context->device, port, info->netdev);
	info->numa_node = device_node(context->device);
}

static int add_device(struct ibv_device *device, struct rdma_device_info **list, unsigned *count,
		      struct ramlift_error *error)
{
	struct ibv_context *context = ibv_open_device(device);
	struct rdma_device_info *grown;
	struct ibv_device_attr attr;
	int ret;

	if (!context) {
		ret = errno ? -errno : -EIO;
		return error_set(error, ret,
				 "cannot open RDMA device %s: %s; may this user open "
				 "/dev/infiniband/uverbs*?",
				 ibv_get_device_name(device), strerror(-ret));
	}
	ret = -ibv_query_device(context, &attr);
	if (ret) {
		error_set(error, ret, "cannot ask RDMA device %s for its limits: %s",
			  ibv_get_device_name(device), strerror(-ret));
		goto err_close;
	}
	grown = realloc(*list, (*count + attr.phys_port_cnt + 1ul) * sizeof(**list));
	if (!grown) {
		ret = error_set(error, -ENOMEM, "not enough memory for the list of devices");
		goto err_close;
	}
	*list = grown;
	for (unsigned port = 1; port <= attr.phys_port_cnt; port++)
		fill_port(context, port, &grown[(*count)++]);
err_close:
	ibv_close_device(context);
	return ret;
}

int rdma_devices_list(struct rdma_device_info **list, unsigned *count, struct ramlift_error *error)
{
	struct rdma_device_info *found = NULL;
	struct ibv_device **devices;
	unsigned n_found = 0;
	int n = 0, ret = 0;

	devices = ibv_get_device_list(&n);
	if (!devices) {
		ret = errno ? -errno : -EIO;
		/* A kernel without RDMA is a host without devices. */
		if (ret != -ENOSYS && ret != -ENOENT && ret != -ENODEV)
			return error_set(error, ret, "cannot list RDMA devices: %s",
					 strerror(-ret));
		ret = 0;
		n = 0;
	}
	for (int i = 0; i < n && !ret; i++)
		ret = add_device(devices[i], &found, &n_found, error);
	if (devices)
		ibv_free_device_list(devices);
	if (ret) {
		free(found);
		return ret;
	}
	*list = found;
	*count = n_found;
	return 0;
}
