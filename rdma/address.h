/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses as librdmacm wants them and as the user reads them. */
#ifndef RDMA_ADDRESS_H
#define RDMA_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#define ADDRESS_TEXT_BYTES 64

/* The numeric address, without the port. */
void address_text(const struct sockaddr *address, char text[ADDRESS_TEXT_BYTES]);

/* 0.0.0.0 or [::] */
bool address_is_wildcard(const struct sockaddr *address);

/* 127.0.0.0/8 or ::1 */
bool address_is_loopback(const struct sockaddr *address);

/* 169.254.0.0/16 or fe80::/10 */
bool address_is_link_local(const struct sockaddr *address);

/* Are both the same, ports aside, as far as the mask says (NULL: all of
 * it)? False across families. */
bool address_is_same(const struct sockaddr *one, const struct sockaddr *other,
		     const struct sockaddr *mask);

/* The same address with port 0, so that the kernel chooses one. -EAFNOSUPPORT: neither IPv4 nor
 * IPv6. */
int address_without_port(const struct sockaddr *address, struct sockaddr_storage *copy);

/* The port is in network order. The address is IPv4 or IPv6. */
void address_put_port(struct sockaddr_storage *address, in_port_t port);

#endif
