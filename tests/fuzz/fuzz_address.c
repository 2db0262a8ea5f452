/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as an address. What is taken has a port and a family, and its text is one again. */
#include <errno.h>
#include <netdb.h>

#include "core/address.h"
#include "core/ramlift.h"
#include "tests/fuzz/fuzz.h"

int __real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		       struct addrinfo **found);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		       struct addrinfo **found);

/* The linker puts this in the place of getaddrinfo(): numbers only, no name server. */
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		       struct addrinfo **found)
{
	struct addrinfo numeric = *hints;

	numeric.ai_flags |= AI_NUMERICHOST;
	return __real_getaddrinfo(node, service, &numeric, found);
}

static void check(const char *text, int passive)
{
	struct ramlift_error error = { 0 };
	struct address address, again;
	int ret = address_parse(text, passive, &address, &error);

	if (ret) {
		CHECK(ret == -EINVAL || ret == -EHOSTUNREACH);
		CHECK(error.code == ret && error.text[0]);
		return;
	}
	CHECK(address.socket.ss_family == AF_INET || address.socket.ss_family == AF_INET6);
	CHECK(address.length <= sizeof(address.socket));
	CHECK(memchr(address.text, '\0', sizeof(address.text)));
	CHECK(!address_parse(address.text, passive, &again, NULL));
	CHECK(address_port(&again) == address_port(&address));
	CHECK(!strcmp(again.text, address.text));
	CHECK(!memcmp(&again.socket, &address.socket, sizeof(address.socket)));
	address_set_port(&address, 1);
	CHECK(address_port(&address) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_string(data, size);

	check(text, 0);
	check(text, 1);
	free(text);
	return 0;
}
