/* SPDX-License-Identifier: Apache-2.0 */
/* The host's addresses, and which device serves which: see fake.h. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "fake_device.h"

#define NO_DEVICE FAKE_MAX_DEVICES

static const struct {
	const char *interface, *address;
	unsigned prefix_bits;
	bool down;
	unsigned device;
} addresses[] = {
	{ "lo", "127.0.0.1", 8, false, NO_DEVICE },
	{ "mgmt0", "192.168.7.1", 24, false, NO_DEVICE },
	{ "fakeeth0", FAKE_ADDRESS, 24, false, 0 },
	{ "fakeeth1", "fe80::1", 64, false, 1 },
	{ "fakeeth1", "fd00::1", 64, false, 1 },
	{ "fakeeth1", "169.254.3.3", 16, false, 1 },
	{ "fakeeth1.9", "10.9.0.1", 24, true, 1 },
	{ "fakeeth1", FAKE_ADDRESS_1, 24, false, 1 },
	{ "fakeeth1.2", FAKE_ADDRESS_1_VLAN, 24, false, 1 },
};

#define N_ADDRESSES (sizeof(addresses) / sizeof(addresses[0]))

struct entry_storage {
	struct ifaddrs entry;
	struct sockaddr_storage address, mask;
};

static void parse(const char *text, struct sockaddr_storage *storage)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in v4 = { .sin_family = AF_INET };

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
		memcpy(storage, &v4, sizeof(v4));
	} else {
		assert(inet_pton(AF_INET6, text, &v6.sin6_addr) == 1);
		memcpy(storage, &v6, sizeof(v6));
	}
}

/* Where the address itself lies. */
static uint8_t *host_bytes(struct sockaddr_storage *storage, size_t *n)
{
	bool v6 = storage->ss_family == AF_INET6;

	*n = v6 ? 16 : 4;
	return (uint8_t *)storage + (v6 ? offsetof(struct sockaddr_in6, sin6_addr)
					: offsetof(struct sockaddr_in, sin_addr));
}

static void fill_mask(struct sockaddr_storage *mask, int family, unsigned prefix_bits)
{
	size_t n;

	mask->ss_family = (sa_family_t)family;
	memset(host_bytes(mask, &n), 0xff, prefix_bits / 8);
}

int getifaddrs(struct ifaddrs **list)
{
	struct entry_storage *entries;

	if (fake_fails(ENOBUFS))
		return -1;
	entries = malloc(N_ADDRESSES * sizeof(*entries));
	memset(entries, 0, N_ADDRESSES * sizeof(*entries));
	for (unsigned i = 0; i < N_ADDRESSES; i++) {
		struct ifaddrs *entry = &entries[i].entry;

		parse(addresses[i].address, &entries[i].address);
		fill_mask(&entries[i].mask, entries[i].address.ss_family, addresses[i].prefix_bits);
		entry->ifa_name = (char *)(uintptr_t)addresses[i].interface;
		entry->ifa_flags = addresses[i].down ? 0 : IFF_UP;
		entry->ifa_addr = (struct sockaddr *)&entries[i].address;
		entry->ifa_netmask = (struct sockaddr *)&entries[i].mask;
		entry->ifa_next = i + 1 < N_ADDRESSES ? &entries[i + 1].entry : NULL;
	}
	*list = &entries[0].entry;
	fake_count(1);
	return 0;
}

void freeifaddrs(struct ifaddrs *list)
{
	free(list);
	fake_count(-1);
}

struct ibv_context *fake_device_at(const struct sockaddr *address)
{
	struct sockaddr_storage asked = { 0 }, have;
	const uint8_t *wanted;
	size_t n;

	memcpy(&asked, address,
	       address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					      : sizeof(struct sockaddr_in));
	wanted = host_bytes(&asked, &n);
	for (unsigned i = 0; i < N_ADDRESSES; i++) {
		memset(&have, 0, sizeof(have));
		parse(addresses[i].address, &have);
		if (have.ss_family == asked.ss_family && !memcmp(host_bytes(&have, &n), wanted, n))
			return addresses[i].device == NO_DEVICE ? NULL
								: fake_context(addresses[i].device);
	}
	return NULL;
}
