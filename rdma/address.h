/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses as librdmacm wants them and as the user reads them. */
#ifndef RDMA_ADDRESS_H
#define RDMA_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#define ADDRESS_TEXT_BYTES 64

/* The numeric address, without the port. */
void address_text(const struct sockaddr *address, char text[ADDRESS_TEXT_BYTES]);

/* 0.0.0.0 or [::] */
bool address_is_wildcard(const struct sockaddr *address);

/* 127.0.0.0/8 or ::1 */
bool address_is_loopback(const struct sockaddr *address);

/* The same address with port 0, so that the kernel chooses one. -EAFNOSUPPORT: neither IPv4 nor
 * IPv6. */
int address_without_port(const struct sockaddr *address, struct sockaddr_storage *copy);

#endif
