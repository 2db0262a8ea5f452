/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of this host's addresses belongs to an RDMA device: librdmacm knows, it is asked by binding
 * to one after the other. sysfs would only name a network interface, which may not be the one that
 * has the address (VLANs, bonds, IPoIB).
 */
#include "rdma/device_address.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/ramlift.h"
#include "rdma/address.h"
#include "rdma/cm.h"
#include "rdma/devices.h"

#define NAMES_BYTES 160

enum fit { UNFIT, ANY_FAMILY, SAME_FAMILY, SAME_NETWORK, SAME_ADDRESS };

static enum fit address_fit(const struct ifaddrs *entry, const struct sockaddr *near,
			    bool same_family)
{
	const struct sockaddr *address = entry->ifa_addr;

	if (!address || !(entry->ifa_flags & IFF_UP) ||
	    (address->sa_family != AF_INET && address->sa_family != AF_INET6) ||
	    address_is_loopback(address) || address_is_link_local(address))
		return UNFIT;
	if (!near || address->sa_family != near->sa_family)
		return same_family && near ? UNFIT : ANY_FAMILY;
	if (address_is_same(address, near, NULL))
		return SAME_ADDRESS;
	return entry->ifa_netmask && address_is_same(address, near, entry->ifa_netmask)
		       ? SAME_NETWORK
		       : SAME_FAMILY;
}

/* "mlx5_0, mlx5_1", as far as there is room; false: none. */
static bool list_names(char names[NAMES_BYTES])
{
	struct ibv_device **devices;
	int n = 0;
	size_t used = 0;

	names[0] = '\0';
	devices = ibv_get_device_list(&n);
	for (int i = 0; devices && i < n && used < NAMES_BYTES; i++)
		used += (size_t)snprintf(names + used, NAMES_BYTES - used, "%s%s", i ? ", " : "",
					 ibv_get_device_name(devices[i]));
	if (devices)
		ibv_free_device_list(devices);
	return names[0];
}

/* The name of the device's network interface: false where there is no such device. */
static bool find_device(const char *name, char netdev[IF_NAMESIZE])
{
	struct ibv_device **devices;
	bool found = false;
	int n = 0;

	devices = ibv_get_device_list(&n);
	for (int i = 0; devices && i < n && !found; i++) {
		found = !strcmp(ibv_get_device_name(devices[i]), name);
		if (found)
			rdma_device_netdev(devices[i], 1, netdev);
	}
	if (devices)
		ibv_free_device_list(devices);
	return found;
}

static int no_address_error(struct ramlift_error *error, const char *device, int family)
{
	const char *kind = family == AF_INET ? "IPv4" : family == AF_INET6 ? "IPv6" : "IP";
	char names[NAMES_BYTES], netdev[IF_NAMESIZE] = "";

	if (!find_device(device, netdev)) {
		if (!list_names(names))
			return error_set(error, -ENODEV,
					 "this host has no RDMA device '%s', and no other: use "
					 "--transport tcp, or set one up",
					 device);
		return error_set(error, -ENODEV, "this host has no RDMA device '%s': it has %s",
				 device, names);
	}
	return error_set(error, -ENODEV,
			 "RDMA device %s has no %s address: give its network interface one and "
			 "bring it up (ip address add ADDRESS dev %s)",
			 device, kind, netdev[0] ? netdev : "INTERFACE");
}

/* Does the device serve this address? 1, 0, or -errno. */
static int serves(struct rdma_event_channel *channel, const char *device,
		  const struct sockaddr_storage *address, bool *active, struct ramlift_error *error)
{
	struct sockaddr_storage copy = *address; /* librdmacm's parameter has no const */
	struct ibv_port_attr port;
	struct rdma_cm_id *id;
	int ret;

	if (rdma_create_id(channel, &id, NULL, RDMA_PS_TCP)) {
		ret = errno ? -errno : -EIO;
		return error_set(error, ret, "cannot look for RDMA device %s: %s", device,
				 strerror(-ret));
	}
	ret = !rdma_bind_addr(id, (struct sockaddr *)&copy) && id->verbs &&
	      !strcmp(ibv_get_device_name(id->verbs->device), device);
	if (ret)
		*active = !ibv_query_port(id->verbs, id->port_num, &port) &&
			  port.state == IBV_PORT_ACTIVE;
	rdma_destroy_id(id);
	return ret;
}

static int port_error(struct ramlift_error *error, const char *device)
{
	return error_set(error, -ENODEV,
			 "RDMA device %s is down: check its cable, and bring its network "
			 "interface up",
			 device);
}

int device_address_find(struct rdma_event_channel *channel, const char *device,
			const struct sockaddr *near, bool same_family,
			struct sockaddr_storage *address, struct ramlift_error *error)
{
	struct sockaddr_storage candidate, found;
	enum fit best = UNFIT;
	struct ifaddrs *list;
	bool active = false, usable = false;
	int ret = 0;

	if (getifaddrs(&list)) {
		ret = -errno;
		return error_set(error, ret, "cannot list this host's addresses: %s",
				 strerror(-ret));
	}
	for (const struct ifaddrs *at = list; at && ret >= 0; at = at->ifa_next) {
		enum fit fit = address_fit(at, near, same_family);

		if (fit <= best)
			continue;
		address_without_port(at->ifa_addr, &candidate);
		ret = serves(channel, device, &candidate, &active, error);
		if (ret <= 0)
			continue;
		best = fit;
		found = candidate;
		usable = active;
	}
	freeifaddrs(list);
	if (ret < 0)
		return ret;
	if (best == UNFIT)
		return no_address_error(error, device, same_family && near ? near->sa_family : 0);
	if (!usable)
		return port_error(error, device);
	*address = found;
	return 0;
}

int device_address_probe(const char *const *devices, unsigned n_devices,
			 struct ramlift_error *error)
{
	struct rdma_event_channel *channel = NULL;
	struct sockaddr_storage address;
	int ret;

	ret = cm_channel_open(&channel, error);
	for (unsigned i = 0; i < n_devices && !ret; i++) {
		for (unsigned k = 0; k < i && !ret; k++)
			if (!strcmp(devices[k], devices[i]))
				ret = error_set(error, -EINVAL,
						"RDMA device %s is named twice: name each once",
						devices[i]);
		if (!ret)
			ret = device_address_find(channel, devices[i], NULL, false, &address,
						  error);
	}
	if (channel)
		rdma_destroy_event_channel(channel);
	return ret;
}
