/* SPDX-License-Identifier: Apache-2.0 */
/* The RDMA devices of this host, one entry a port, for `ramlift devices`. */
#ifndef RDMA_DEVICES_H
#define RDMA_DEVICES_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

struct ibv_device;
struct ramlift_error;

struct rdma_device_info {
	char name[64];
	unsigned port;
	const char *state;	/* "active", "down", ...: static strings */
	const char *link_layer; /* "ethernet", "infiniband" or "unknown" */
	bool active;
	double speed_gbps; /* width times lane speed, 0 unknown; soft-RoCE claims what it likes */
	unsigned active_mtu_bytes;
	int numa_node;		  /* as device_node() */
	char netdev[IF_NAMESIZE]; /* "" where there is none */
	uint64_t guid;		  /* of the node, in host order */
};

/* 0 with count 0 and list NULL where there is no device. The caller frees *list. */
int rdma_devices_list(struct rdma_device_info **list, unsigned *count, struct ramlift_error *error);

/* The network interface that a port belongs to; "" where there is none. */
void rdma_device_netdev(const struct ibv_device *device, unsigned port, char netdev[IF_NAMESIZE]);

#endif
