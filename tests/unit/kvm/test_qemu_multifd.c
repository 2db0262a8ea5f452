/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's multifd channels: captured ones of QEMU 7.2, and packets made by hand. */
#include "unit.h"

#include <errno.h>
#include <string.h>

#include "kvm/qemu/multifd.h"
#include "stream_fixture.h"

#define PACKET_BYTES (MULTIFD_HEADER_BYTES + MULTIFD_OFFSETS_BYTES)

/* What stands at these bytes of a header. */
enum {
	MAGIC = 0,
	VERSION = 4,
	FLAGS = 8,
	N_OFFSETS = 12,
	N_NORMAL = 16,
	DATA_BYTES = 20,
	NUMBER = 24,
	N_ZERO = 32,
	BLOCK = 64
};

static void set(uint8_t *packet, size_t at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		packet[at + i] = (uint8_t)(value >> (24 - 8 * i));
}

/* As QEMU 9 makes it: 2 pages with content, 3 of zeros. */
static void make(uint8_t packet[PACKET_BYTES])
{
	static const uint16_t pages[] = { 3, 1, 255, 0, 7 };

	memset(packet, 0, PACKET_BYTES);
	set(packet, MAGIC, 0x11223344);
	set(packet, VERSION, 1);
	set(packet, N_OFFSETS, 128);
	set(packet, N_NORMAL, 2);
	set(packet, DATA_BYTES, 2 * 4096);
	set(packet, NUMBER, 1);
	set(packet, NUMBER + 4, 77);
	set(packet, N_ZERO, 3);
	memcpy(packet + BLOCK, "ram", 3);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		set(packet + MULTIFD_HEADER_BYTES, 8 * i + 4, pages[i] * 4096u);
}

static void assert_stripped(const uint8_t *packet, const struct multifd_packet *before)
{
	struct multifd_packet after;

	assert_int_equal(multifd_header_decode(packet, &after, NULL), 0);
	assert_int_equal(after.n_normal + after.n_zero + after.data_bytes, 0);
	assert_int_equal(after.flags, before->flags);
	assert_int_equal(after.number, before->number);
	assert_int_equal(after.n_offsets, before->n_offsets);
	assert_string_equal(after.block, "");
	/* Nothing of the guest's layout is left, for those who read more than they should. */
	for (size_t i = BLOCK; i < PACKET_BYTES; i++)
		assert_int_equal(packet[i], 0);
}

static unsigned parse_channel(const char *name, unsigned id, unsigned n_syncs, unsigned ram_pages)
{
	struct ramlift_error error = { 0 };
	struct multifd_packet packet;
	unsigned n_pages = 0;
	struct bytes bytes;
	uint8_t channel;
	size_t at = MULTIFD_HELLO_BYTES;

	load_stream(&bytes, name);
	assert_int_equal(multifd_hello_decode(bytes.data, &channel, &error), 0);
	assert_int_equal(channel, id);
	while (at < bytes.used) {
		uint8_t *offsets = bytes.data + at + MULTIFD_HEADER_BYTES;

		assert_true(at + PACKET_BYTES <= bytes.used);
		assert_int_equal(multifd_header_decode(bytes.data + at, &packet, &error), 0);
		assert_int_equal(packet.n_offsets, 128);
		assert_int_equal(packet.n_zero, 0); /* QEMU 7.2 sends them on the main channel */
		assert_int_equal(multifd_offsets_check(offsets, &packet, 2 << 20, &error), 0);
		for (unsigned i = 0; i < packet.n_normal && !strcmp(packet.block, "ram"); i++) {
			const uint8_t *content = bytes.data + at + PACKET_BYTES + i * 4096;
			uint64_t page = multifd_offset(offsets, i) / 4096;

			/* The guest was made so: the page's bytes are where they should be. */
			assert_int_equal((page - 3) % 37, 0);
			assert_int_equal(content[1], (page - 3) / 37 * 16 + 1);
			ram_pages--;
		}
		n_pages += packet.n_normal;
		n_syncs -= multifd_is_sync(&packet);
		multifd_strip(bytes.data + at, &packet);
		assert_stripped(bytes.data + at, &packet);
		at += PACKET_BYTES + packet.data_bytes;
	}
	assert_int_equal(at, bytes.used);
	assert_int_equal(n_syncs, 0);
	assert_int_equal(ram_pages, 0);
	free_bytes(&bytes);
	return n_pages;
}

static void test_capture(void **unused)
{
	(void)unused;
	assert_int_equal(parse_channel("qemu-7.2-multifd-channel0", 0, 3, 10) +
				 parse_channel("qemu-7.2-multifd-channel1", 1, 3, 0),
			 14);
}

static void test_zero_pages(void **unused)
{
	static const unsigned pages[] = { 3, 1, 255, 0, 7 };
	struct multifd_packet packet;
	uint8_t bytes[PACKET_BYTES];

	(void)unused;
	make(bytes);
	assert_int_equal(multifd_header_decode(bytes, &packet, NULL), 0);
	assert_int_equal(packet.n_normal, 2);
	assert_int_equal(packet.n_zero, 3);
	assert_int_equal(packet.data_bytes, 2 * 4096);
	assert_int_equal(packet.number, (1ull << 32) + 77);
	assert_string_equal(packet.block, "ram");
	assert_false(multifd_is_sync(&packet));
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(multifd_offset(bytes + MULTIFD_HEADER_BYTES, i), pages[i] * 4096);
	multifd_strip(bytes, &packet);
	assert_stripped(bytes, &packet);

	make(bytes);
	set(bytes, N_NORMAL, 0);
	set(bytes, DATA_BYTES, 0);
	set(bytes, N_ZERO, 128);
	assert_int_equal(multifd_header_decode(bytes, &packet, NULL), 0);
	assert_int_equal(packet.n_zero, 128);
	assert_int_equal(packet.data_bytes, 0);
}

/* QEMU up to 8.2 sometimes sends pages and the synchronisation in one;
 * from 9.2 its array is "0". */
static void test_sync(void **unused)
{
	struct multifd_packet packet;
	uint8_t bytes[PACKET_BYTES];

	(void)unused;
	make(bytes);
	set(bytes, FLAGS, 1);
	assert_int_equal(multifd_header_decode(bytes, &packet, NULL), 0);
	assert_true(multifd_is_sync(&packet));
	assert_int_equal(packet.n_normal, 2);
	multifd_strip(bytes, &packet);
	assert_stripped(bytes, &packet);

	memset(bytes, 0, sizeof(bytes));
	set(bytes, MAGIC, 0x11223344);
	set(bytes, VERSION, 1);
	set(bytes, FLAGS, 1);
	assert_int_equal(multifd_header_decode(bytes, &packet, NULL), 0);
	assert_true(multifd_is_sync(&packet));
	assert_int_equal(packet.n_offsets, 128);
	/* Without pages as well: the array would have another size. */
	set(bytes, N_OFFSETS, 256);
	assert_int_equal(multifd_header_decode(bytes, &packet, NULL), -EOPNOTSUPP);
}

static void test_offsets(void **unused)
{
	struct multifd_packet packet;
	struct ramlift_error error;
	uint8_t bytes[PACKET_BYTES], *offsets = bytes + MULTIFD_HEADER_BYTES;

	(void)unused;
	make(bytes);
	assert_int_equal(multifd_header_decode(bytes, &packet, NULL), 0);
	assert_int_equal(multifd_offsets_check(offsets, &packet, 256 * 4096, &error), 0);
	assert_int_equal(multifd_offsets_check(offsets, &packet, 255 * 4096, &error), -EPROTO);
	assert_non_null(strstr(error.text, "outside its block 'ram'"));
	assert_int_equal(multifd_offsets_check(offsets, &packet, 0, &error), -EPROTO);
	set(offsets, 8 * 4 + 4, 1);
	assert_int_equal(multifd_offsets_check(offsets, &packet, 256 * 4096, &error), -EPROTO);
	make(bytes);
	set(offsets, 8 * 4, 0xffffffff);
	set(offsets, 8 * 4 + 4, 0xfffff000);
	assert_int_equal(multifd_offsets_check(offsets, &packet, 256 * 4096, &error), -EPROTO);
	/* What is behind the pages in the array is nothing. */
	make(bytes);
	set(offsets, 8 * 5, 0xffffffff);
	assert_int_equal(multifd_offsets_check(offsets, &packet, 256 * 4096, &error), 0);
}

static void test_refusals(void **unused)
{
	static const struct {
		size_t at;
		uint32_t value;
		int code;
		const char *words;
	} refusals[] = {
		{ MAGIC, 0x5145564d, -EPROTO, "no multifd packet" },
		{ VERSION, 2, -EOPNOTSUPP, "version 2" },
		{ FLAGS, 0x02, -EOPNOTSUPP, "'multifd-compression' to 'none'" },
		{ FLAGS, 0x04, -EOPNOTSUPP, "'multifd-compression' to 'none'" },
		{ FLAGS, 0x08, -EOPNOTSUPP, "'multifd-compression' to 'none'" },
		{ FLAGS, 0x10, -EOPNOTSUPP, "'multifd-compression' to 'none'" },
		{ FLAGS, 0x20, -EOPNOTSUPP, "'multifd-compression' to 'none'" },
		{ FLAGS, 0x40, -EOPNOTSUPP, "x-migration-multifd-transfer=off" },
		{ FLAGS, 0x81, -EOPNOTSUPP, "flags 0x81" },
		{ FLAGS, 0x80000000, -EOPNOTSUPP, "flags 0x80000000" },
		{ N_OFFSETS, 0, -EOPNOTSUPP, "up to 0 pages" },
		{ N_OFFSETS, 127, -EOPNOTSUPP, "up to 127 pages" },
		{ N_OFFSETS, 0xffffffff, -EOPNOTSUPP, "up to 4294967295 pages" },
		{ N_NORMAL, 126, -EPROTO, "more pages than offsets" },
		{ N_NORMAL, 0xffffffff, -EPROTO, "more pages than offsets" },
		{ N_ZERO, 127, -EPROTO, "more pages than offsets" },
		{ N_ZERO, 0xfffffffe, -EPROTO, "more pages than offsets" },
		{ N_NORMAL, 3, -EPROTO, "length does not belong" },
		{ DATA_BYTES, 0, -EPROTO, "length does not belong" },
		{ DATA_BYTES, 0xffffffff, -EPROTO, "length does not belong" },
		{ BLOCK, 0, -EPROTO, "does not name a block" },
		{ BLOCK, 0x72611b00, -EPROTO, "not printable" },
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		struct multifd_packet packet = { .number = 5 };
		struct ramlift_error error = { 0 };
		uint8_t bytes[PACKET_BYTES];
		int ret;

		make(bytes);
		set(bytes, refusals[i].at, refusals[i].value);
		ret = multifd_header_decode(bytes, &packet, &error);
		if (ret != refusals[i].code || !strstr(error.text, refusals[i].words))
			fail_msg("%zu: %d and '%s'", i, ret, error.text);
		assert_int_equal(packet.number, 5); /* untouched */
	}
}

static void test_long_name(void **unused)
{
	struct multifd_packet packet;
	uint8_t bytes[PACKET_BYTES];

	(void)unused;
	make(bytes);
	memset(bytes + BLOCK, 'n', 255);
	assert_int_equal(multifd_header_decode(bytes, &packet, NULL), 0);
	assert_int_equal(strlen(packet.block), 255);
	bytes[BLOCK + 255] = 'n';
	assert_int_equal(multifd_header_decode(bytes, &packet, NULL), -EPROTO);
}

static void test_hello(void **unused)
{
	uint8_t bytes[MULTIFD_HELLO_BYTES] = { 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, [24] = 9 };
	struct ramlift_error error;
	uint8_t id = 77;

	(void)unused;
	bytes[7] = 2;
	assert_int_equal(multifd_hello_decode(bytes, &id, &error), -EOPNOTSUPP);
	bytes[7] = 1;
	bytes[0] = 'Q';
	assert_int_equal(multifd_hello_decode(bytes, &id, &error), -EPROTO);
	assert_int_equal(id, 77);
	bytes[0] = 0x11;
	assert_int_equal(multifd_hello_decode(bytes, &id, &error), 0);
	assert_int_equal(id, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_capture),	 cmocka_unit_test(test_zero_pages),
		cmocka_unit_test(test_sync),	 cmocka_unit_test(test_offsets),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_long_name),
		cmocka_unit_test(test_hello),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
