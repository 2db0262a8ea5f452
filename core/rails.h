/* SPDX-License-Identifier: Apache-2.0 */
/* Rails as the engine sees them: can they be had, which carry a region, where do their lanes
 * connect. No device is known here. */
#ifndef CORE_RAILS_H
#define CORE_RAILS_H

#include <sys/socket.h>

#include "core/wire.h"

/*
 * Can this transport be used: with the rails that are named, or, where none is, at local or towards
 * peer, of which one is NULL? 0, -ENODEV.
 */
int rails_probe(const struct ramlift_transport *transport, const char *const *rails,
		unsigned n_rails, const struct sockaddr *local, const struct sockaddr *peer,
		struct ramlift_error *error);

/*
 * The rails, as bits, that carry memory of a NUMA node: those of the node itself; all of them where
 * there is none, or the node is not known.
 */
unsigned rails_of_node(int numa_node, const int *rail_nodes, unsigned n_rails);

/* For the message ACCEPT; a rail that was not named is reached where the control connection is. */
void rail_address_pack(const struct sockaddr_storage *socket, bool named,
		       struct rail_address *address);

/* Back to a socket address; control is that of the control connection. */
void rail_address_unpack(const struct rail_address *address, const struct sockaddr_storage *control,
			 struct sockaddr_storage *socket);

#endif
