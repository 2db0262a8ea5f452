/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's migration/multifd.c and multifd.h say what is in a packet. Numbers are big-endian. */
#include "kvm/qemu/multifd.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "core/error.h"

#define MAGIC	0x11223344u
#define VERSION 1u

#define FLAG_SYNC	  0x01u
#define FLAG_ZLIB	  0x02u
#define FLAG_ZSTD	  0x04u
#define FLAG_QPL	  0x08u /* QEMU 9.1 and later, as the next two */
#define FLAG_UADK	  0x10u /* a bit each, so far */
#define FLAG_QATZIP	  0x20u
#define FLAGS_COMPRESSION 0x3eu
#define FLAG_DEVICE_STATE 0x40u /* QEMU 10.0 and later; the packet has another form */

struct hello {
	uint32_t magic;
	uint32_t version;
	uint8_t uuid[16];
	uint8_t channel_id;
	uint8_t unused[39];
} __attribute__((packed));

struct header {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t n_offsets; /* 0 in packets without pages from QEMU 9.2 on; the array is there */
	uint32_t n_normal;
	uint32_t data_bytes; /* QEMU 7.2 leaves old values here in packets without pages */
	uint64_t number;
	uint32_t n_zero; /* 0 before QEMU 9.0 */
	uint8_t unused[28];
	char block[256]; /* no NUL if the name is as long; old values as in data_bytes */
} __attribute__((packed));

_Static_assert(sizeof(struct hello) == MULTIFD_HELLO_BYTES, "what QEMU sends");
_Static_assert(sizeof(struct header) == MULTIFD_HEADER_BYTES, "what QEMU sends");

static int damaged(struct ramlift_error *error, const char *what)
{
	return error_set(error, -EPROTO, "a multifd channel of QEMU's is damaged: %s", what);
}

static int check_start(uint32_t magic, uint32_t version, struct ramlift_error *error)
{
	if (be32toh(magic) != MAGIC)
		return damaged(error, "what came is no multifd packet");
	if (be32toh(version) != VERSION)
		return error_set(error, -EOPNOTSUPP,
				 "QEMU's multifd channels have version %u, and Ramlift knows %u",
				 be32toh(version), VERSION);
	return 0;
}

int multifd_hello_decode(const uint8_t bytes[MULTIFD_HELLO_BYTES], uint8_t *channel_id,
			 struct ramlift_error *error)
{
	struct hello hello;
	int ret;

	memcpy(&hello, bytes, sizeof(hello));
	ret = check_start(hello.magic, hello.version, error);
	if (!ret)
		*channel_id = hello.channel_id;
	return ret;
}

static int check_flags(uint32_t flags, struct ramlift_error *error)
{
	if (flags & FLAG_DEVICE_STATE)
		return error_set(error, -EOPNOTSUPP,
				 "QEMU sends a device's state on its multifd channels, which "
				 "Ramlift does not carry: set x-migration-multifd-transfer=off on "
				 "the guest's VFIO devices, or unplug them");
	if (flags & FLAGS_COMPRESSION)
		return error_set(error, -EOPNOTSUPP,
				 "QEMU sends compressed pages: set the migration parameter "
				 "'multifd-compression' to 'none'");
	if (flags & ~FLAG_SYNC)
		return error_set(error, -EOPNOTSUPP,
				 "QEMU sends a multifd packet of an unknown kind (flags 0x%x): "
				 "Ramlift does not know this version of QEMU",
				 flags);
	return 0;
}

static int check_numbers(const struct multifd_packet *packet, uint32_t n_offsets,
			 struct ramlift_error *error)
{
	uint64_t n_pages = (uint64_t)packet->n_normal + packet->n_zero;

	if (n_offsets != MULTIFD_MAX_PAGES && (n_offsets || n_pages))
		return error_set(error, -EOPNOTSUPP,
				 "QEMU sends multifd packets of up to %u pages, and Ramlift knows "
				 "%u: leave the size of multifd packets at its default",
				 n_offsets, MULTIFD_MAX_PAGES);
	if (n_pages > MULTIFD_MAX_PAGES)
		return damaged(error, "a packet has more pages than offsets");
	if (packet->data_bytes != packet->n_normal * MULTIFD_PAGE_BYTES)
		return damaged(error, "a packet's length does not belong to its pages");
	return 0;
}

/* A name that ends within its field and does no harm on a terminal. */
static int decode_name(const char *field, char *name, struct ramlift_error *error)
{
	size_t length = strnlen(field, sizeof(((struct header *)0)->block));

	if (!length || length == sizeof(((struct header *)0)->block))
		return damaged(error, "a packet with pages does not name a block");
	for (size_t i = 0; i < length; i++) {
		if (field[i] < ' ' || field[i] > '~')
			return damaged(error, "a block's name is not printable");
	}
	memcpy(name, field, length);
	return 0;
}

int multifd_header_decode(const uint8_t bytes[MULTIFD_HEADER_BYTES], struct multifd_packet *result,
			  struct ramlift_error *error)
{
	struct multifd_packet packet = { .n_offsets = MULTIFD_MAX_PAGES };
	struct header header;
	int ret;

	memcpy(&header, bytes, sizeof(header));
	ret = check_start(header.magic, header.version, error);
	if (ret)
		return ret;
	packet.flags = be32toh(header.flags);
	ret = check_flags(packet.flags, error);
	if (ret)
		return ret;
	packet.n_normal = be32toh(header.n_normal);
	packet.n_zero = be32toh(header.n_zero);
	packet.number = be64toh(header.number);
	/* Without pages no bytes follow, whatever it says. */
	packet.data_bytes = packet.n_normal ? be32toh(header.data_bytes) : 0;
	ret = check_numbers(&packet, be32toh(header.n_offsets), error);
	if (!ret && packet.n_normal + packet.n_zero)
		ret = decode_name(header.block, packet.block, error);
	if (!ret)
		*result = packet;
	return ret;
}

uint64_t multifd_offset(const uint8_t *offsets, unsigned i)
{
	uint64_t offset;

	memcpy(&offset, offsets + i * sizeof(offset), sizeof(offset));
	return be64toh(offset);
}

int multifd_offsets_check(const uint8_t *offsets, const struct multifd_packet *packet,
			  uint64_t block_bytes, struct ramlift_error *error)
{
	for (unsigned i = 0; i < packet->n_normal + packet->n_zero; i++) {
		uint64_t offset = multifd_offset(offsets, i);

		if (offset % MULTIFD_PAGE_BYTES || offset >= block_bytes ||
		    block_bytes - offset < MULTIFD_PAGE_BYTES)
			return error_set(error, -EPROTO,
					 "a multifd channel of QEMU's is damaged: a page is "
					 "outside its block '%s'",
					 packet->block);
	}
	return 0;
}

bool multifd_is_sync(const struct multifd_packet *packet)
{
	return packet->flags & FLAG_SYNC;
}

void multifd_strip(uint8_t *header_and_offsets, const struct multifd_packet *packet)
{
	struct header header;

	memcpy(&header, header_and_offsets, sizeof(header));
	header.n_normal = 0;
	header.n_zero = 0;
	header.data_bytes = 0;
	memset(header.block, 0, sizeof(header.block));
	memcpy(header_and_offsets, &header, sizeof(header));
	memset(header_and_offsets + sizeof(header), 0, packet->n_offsets * sizeof(uint64_t));
}
