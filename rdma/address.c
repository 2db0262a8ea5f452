/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/address.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

union any_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_storage storage;
};

/* A copy that is aligned for every family, and padded with zeros; 0 bytes for other families. */
static socklen_t copy_address(const struct sockaddr *address, union any_address *copy)
{
	socklen_t length = address->sa_family == AF_INET    ? sizeof(copy->v4)
			   : address->sa_family == AF_INET6 ? sizeof(copy->v6)
							    : 0;

	memset(copy, 0, sizeof(*copy));
	memcpy(copy, address, length);
	return length;
}

void address_text(const struct sockaddr *address, char text[ADDRESS_TEXT_BYTES])
{
	union any_address copy;
	socklen_t length = copy_address(address, &copy);

	if (!length ||
	    getnameinfo(&copy.any, length, text, ADDRESS_TEXT_BYTES, NULL, 0, NI_NUMERICHOST))
		snprintf(text, ADDRESS_TEXT_BYTES, "that address");
}

bool address_is_wildcard(const struct sockaddr *address)
{
	union any_address copy;

	if (!copy_address(address, &copy))
		return false;
	if (copy.any.sa_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(&copy.v6.sin6_addr);
	return copy.v4.sin_addr.s_addr == htonl(INADDR_ANY);
}

bool address_is_loopback(const struct sockaddr *address)
{
	union any_address copy;

	if (!copy_address(address, &copy))
		return false;
	if (copy.any.sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&copy.v6.sin6_addr);
	return ntohl(copy.v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

bool address_is_link_local(const struct sockaddr *address)
{
	union any_address copy;

	if (!copy_address(address, &copy))
		return false;
	if (copy.any.sa_family == AF_INET6)
		return IN6_IS_ADDR_LINKLOCAL(&copy.v6.sin6_addr);
	return ntohl(copy.v4.sin_addr.s_addr) >> 16 == 0xa9fe;
}

/* The part that says who it is: how many bytes. */
static unsigned host_bytes(const union any_address *address, uint8_t bytes[16])
{
	if (address->any.sa_family == AF_INET6) {
		memcpy(bytes, &address->v6.sin6_addr, 16);
		return 16;
	}
	memcpy(bytes, &address->v4.sin_addr, 4);
	return 4;
}

bool address_is_same(const struct sockaddr *one, const struct sockaddr *other,
		     const struct sockaddr *mask)
{
	uint8_t bytes[3][16];
	union any_address copies[3];
	unsigned n;

	if (one->sa_family != other->sa_family || !copy_address(one, &copies[0]) ||
	    !copy_address(other, &copies[1]))
		return false;
	n = host_bytes(&copies[0], bytes[0]);
	host_bytes(&copies[1], bytes[1]);
	memset(bytes[2], 0xff, n);
	if (mask) {
		/* The kernel gives masks the family of their addresses, but let nobody depend on
		 * it. */
		if (mask->sa_family != one->sa_family || !copy_address(mask, &copies[2]))
			return false;
		host_bytes(&copies[2], bytes[2]);
	}
	for (unsigned i = 0; i < n; i++)
		if ((bytes[0][i] ^ bytes[1][i]) & bytes[2][i])
			return false;
	return true;
}

int address_without_port(const struct sockaddr *address, struct sockaddr_storage *copy)
{
	union any_address any;

	if (!copy_address(address, &any))
		return -EAFNOSUPPORT;
	*copy = any.storage;
	address_put_port(copy, 0);
	return 0;
}

void address_put_port(struct sockaddr_storage *address, in_port_t port)
{
	union any_address any = { .storage = *address };

	if (any.any.sa_family == AF_INET6)
		any.v6.sin6_port = port;
	else
		any.v4.sin_port = port;
	*address = any.storage;
}
