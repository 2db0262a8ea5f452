/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/address.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
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

int address_without_port(const struct sockaddr *address, struct sockaddr_storage *copy)
{
	union any_address any;

	if (!copy_address(address, &any))
		return -EAFNOSUPPORT;
	if (any.any.sa_family == AF_INET6)
		any.v6.sin6_port = 0;
	else
		any.v4.sin_port = 0;
	*copy = any.storage;
	return 0;
}
