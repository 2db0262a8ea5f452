/* SPDX-License-Identifier: Apache-2.0 */
#include "core/rails.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "core/error.h"

int rails_probe(const struct ramlift_transport *transport, const char *const *rails,
		unsigned n_rails, const struct sockaddr *local, const struct sockaddr *peer,
		struct ramlift_error *error)
{
	if (!n_rails)
		return transport->probe(local, peer, error);
	if (!transport->probe_rails)
		return error_set(error, -ENODEV, "rails are RDMA devices: they do not go with %s",
				 transport->name);
	return transport->probe_rails(rails, n_rails, error);
}

unsigned rails_of_node(int numa_node, const int *rail_nodes, unsigned n_rails)
{
	unsigned own = 0;

	for (unsigned i = 0; i < n_rails; i++) {
		if (numa_node >= 0 && rail_nodes[i] == numa_node)
			own |= 1u << i;
	}
	return own ? own : (1u << n_rails) - 1;
}

/* Both kinds of address have the port in the same place; that is no rule, so each is asked. */
static in_port_t *port_of(struct sockaddr_storage *socket)
{
	return socket->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)socket)->sin6_port
					     : &((struct sockaddr_in *)socket)->sin_port;
}

void rail_address_pack(const struct sockaddr_storage *socket, bool named,
		       struct rail_address *address)
{
	struct sockaddr_storage copy = *socket;

	*address = (struct rail_address){ .port = ntohs(*port_of(&copy)) };
	if (!named)
		return;
	if (socket->ss_family == AF_INET6) {
		address->family = RAIL_FAMILY_INET6;
		memcpy(address->bytes, &((const struct sockaddr_in6 *)socket)->sin6_addr, 16);
	} else {
		address->family = RAIL_FAMILY_INET;
		memcpy(address->bytes, &((const struct sockaddr_in *)socket)->sin_addr, 4);
	}
}

void rail_address_unpack(const struct rail_address *address, const struct sockaddr_storage *control,
			 struct sockaddr_storage *socket)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)socket;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)socket;

	memset(socket, 0, sizeof(*socket));
	switch (address->family) {
	case RAIL_FAMILY_INET:
		v4->sin_family = AF_INET;
		memcpy(&v4->sin_addr, address->bytes, 4);
		break;
	case RAIL_FAMILY_INET6:
		v6->sin6_family = AF_INET6;
		memcpy(&v6->sin6_addr, address->bytes, 16);
		break;
	default:
		*socket = *control;
		break;
	}
	*port_of(socket) = htons(address->port);
}
