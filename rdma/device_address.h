/* SPDX-License-Identifier: Apache-2.0 */
/* From an RDMA device's name to the IP address of this host at which it can be reached. */
#ifndef RDMA_DEVICE_ADDRESS_H
#define RDMA_DEVICE_ADDRESS_H

#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <sys/socket.h>

struct ramlift_error;

/*
 * The device's address, without port, that is nearest to another one (which may be NULL): that one
 * itself, else one of its network, else of its family, else, unless it must be of that family, any.
 * -ENODEV: no such device, it has no such address, or its port is down; what to do is in error.
 */
int device_address_find(struct rdma_event_channel *channel, const char *device,
			const struct sockaddr *near, bool same_family,
			struct sockaddr_storage *address, struct ramlift_error *error);

/* May these devices be an endpoint's rails? 0, -ENODEV, -EINVAL: one is named twice. */
int device_address_probe(const char *const *devices, unsigned n_devices,
			 struct ramlift_error *error);

#endif
