/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A multifd packet of QEMU's. The first 8 bytes are the size of its block, the rest is the header
 * and the offsets, with zeros where they are missing. What is taken is in bounds, and once it is
 * stripped it is a packet without pages that says the same otherwise.
 */
#include <errno.h>

#include "core/ramlift.h"
#include "kvm/qemu/multifd.h"
#include "tests/fuzz/fuzz.h"

#define PACKET_BYTES (MULTIFD_HEADER_BYTES + MULTIFD_OFFSETS_BYTES)

static void check_packet(const struct multifd_packet *packet)
{
	CHECK(packet->n_offsets == MULTIFD_MAX_PAGES);
	CHECK(packet->n_normal <= MULTIFD_MAX_PAGES && packet->n_zero <= MULTIFD_MAX_PAGES);
	CHECK(packet->n_normal + packet->n_zero <= packet->n_offsets);
	CHECK(packet->data_bytes == packet->n_normal * MULTIFD_PAGE_BYTES);
	CHECK(strnlen(packet->block, sizeof(packet->block)) < sizeof(packet->block));
	CHECK(!packet->block[0] == !(packet->n_normal + packet->n_zero));
}

static void check_offsets(const struct multifd_packet *packet, const uint8_t *offsets,
			  uint64_t block_bytes)
{
	struct ramlift_error error = { 0 };
	int ret = multifd_offsets_check(offsets, packet, block_bytes, &error);

	CHECK(ret == error.code && (!ret || (ret == -EPROTO && error.text[0])));
	for (unsigned i = 0; i < packet->n_normal + packet->n_zero && !ret; i++) {
		CHECK(block_bytes >= MULTIFD_PAGE_BYTES);
		CHECK(multifd_offset(offsets, i) <= block_bytes - MULTIFD_PAGE_BYTES);
		CHECK(multifd_offset(offsets, i) % MULTIFD_PAGE_BYTES == 0);
	}
}

static void check_stripped(uint8_t *bytes, const struct multifd_packet *packet)
{
	struct multifd_packet stripped;

	multifd_strip(bytes, packet);
	CHECK(!multifd_header_decode(bytes, &stripped, NULL));
	check_packet(&stripped);
	CHECK(!stripped.n_normal && !stripped.n_zero && !stripped.data_bytes);
	CHECK(stripped.flags == packet->flags && stripped.number == packet->number);
	CHECK(multifd_is_sync(&stripped) == multifd_is_sync(packet));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ramlift_error error = { 0 };
	struct multifd_packet packet;
	uint64_t block_bytes;
	uint8_t channel_id, *bytes;
	int ret;

	if (size < sizeof(block_bytes))
		return 0;
	memcpy(&block_bytes, data, sizeof(block_bytes));
	data += sizeof(block_bytes);
	size -= sizeof(block_bytes);
	bytes = calloc(1, PACKET_BYTES); /* of its own: bounds are bounds */
	CHECK(bytes);
	memcpy(bytes, data, size < PACKET_BYTES ? size : PACKET_BYTES);
	ret = multifd_hello_decode(bytes, &channel_id, &error);
	CHECK(ret == error.code && (!ret || error.text[0]));

	error = (struct ramlift_error){ 0 };
	ret = multifd_header_decode(bytes, &packet, &error);
	CHECK(ret == error.code && (!ret || error.text[0]));
	if (!ret) {
		check_packet(&packet);
		check_offsets(&packet, bytes + MULTIFD_HEADER_BYTES, block_bytes);
		check_stripped(bytes, &packet);
	}
	free(bytes);
	return 0;
}
