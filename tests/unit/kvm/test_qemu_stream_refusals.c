/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's main channel: what Ramlift cannot carry is refused with the switch to turn, and damage is
 * seen before it reaches anyone.
 */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "stream_fixture.h"

/* The stream fails with these words, in one piece and byte by byte; and is forgotten. */
static void refused(struct bytes *input, int code, const char *words)
{
	for (size_t piece = 1; piece <= input->used; piece += input->used - 1) {
		struct record record = { .carried = "ram" };
		struct ramlift_error error = { 0 }, again = { 0 };
		struct qemu_stream *stream;
		int ret;

		assert_int_equal(qemu_stream_new(&record_sink, &record, &stream, &error), 0);
		ret = feed(stream, input, piece, &error);
		if (ret != code || error.code != code || !strstr(error.text, words))
			fail_msg("%d and '%s', not %d and '%s'", ret, error.text, code, words);
		assert_int_equal(qemu_stream_feed(stream, "x", 1, &again), code);
		assert_string_equal(again.text, error.text);
		assert_false(qemu_stream_complete(stream));
		assert_int_equal(record.n_ends, 0);
		qemu_stream_free(stream);
		free_record(&record);
	}
	free_bytes(input);
}

static void header(struct bytes *input)
{
	put_header(input, "pc-q35-8.2");
}

static void test_start(void **unused)
{
	struct bytes input = { 0 };

	(void)unused;
	put_bytes(&input, "GET / HT", 8);
	refused(&input, -EPROTO, "no migration stream");
	put_bytes(&input, "QEVM\0\0\0\2", 8);
	refused(&input, -EOPNOTSUPP, "version 2");
	put_bytes(&input, "QEVM\0\0\0\3\7\0\0\1\0", 13);
	refused(&input, -EPROTO, "name is too long");
	header(&input);
	put_bytes(&input, "\7\0\0\0\1x", 6);
	refused(&input, -EPROTO, "type 0x07 is out of place");
	header(&input);
	put_bytes(&input, "\6", 1);
	refused(&input, -EPROTO, "type 0x06 is out of place");
	header(&input);
	put_bytes(&input, "\x7e", 1);
	refused(&input, -EPROTO, "type 0x7e is out of place");
	header(&input);
	put_bytes(&input, "\0", 1);
	refused(&input, -EPROTO, "ends before the end of the guest's RAM");
	header(&input);
	put_ram_continues(&input, false);
	refused(&input, -EPROTO, "never began");
}

static void subsection(const char *name, const char *words)
{
	struct bytes input = { 0 };

	header(&input);
	put_number(&input, 0x05, 1);
	put_name(&input, name);
	put_number(&input, 1, 4);
	refused(&input, -EOPNOTSUPP, words);
}

static void test_subsections(void **unused)
{
	(void)unused;
	subsection("configuration/capabilities", "'x-ignore-shared' and 'mapped-ram' off");
	subsection("configuration/uuid", "'validate-uuid' off");
	subsection("configuration/target-page-bits", "4 KiB");
	subsection("configuration/new\n", "'configuration/new?'");
}

static void test_commands(void **unused)
{
	static const struct {
		unsigned command;
		const char *words;
	} commands[] = {
		{ 3, "POSTCOPY_ADVISE, which Ramlift does not carry: switch the migration "
		     "capability 'postcopy-ram' off" },
		{ 4, "POSTCOPY_LISTEN" },
		{ 5, "POSTCOPY_RUN" },
		{ 6, "POSTCOPY_RAM_DISCARD" },
		{ 7, "PACKAGED" },
		{ 8, "'x-colo' off" },
		{ 9, "POSTCOPY_RESUME" },
		{ 10, "RECV_BITMAP" },
		{ 0, "command 0" },
		{ 12, "command 12" },
		{ 0xffff, "command 65535" },
	};
	struct bytes input = { 0 };

	(void)unused;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		header(&input);
		put_command(&input, commands[i].command, "abcd", 4);
		refused(&input, -EOPNOTSUPP, commands[i].words);
	}
	header(&input);
	put_command(&input, 2, "abcde", 5);
	refused(&input, -EPROTO, "wrong length");
	header(&input);
	put_command(&input, 1, "a", 1);
	refused(&input, -EPROTO, "wrong length");
}

static void test_sections(void **unused)
{
	static const struct {
		const char *name;
		const char *words;
		unsigned type;
	} sections[] = {
		{ "block",
		  "'block' sends its state while the guest runs, which Ramlift does not "
		  "carry: migrate without 'blk'",
		  1 },
		{ "dirty-bitmap", "'dirty-bitmaps' off", 1 },
		{ "0000:00:05.0/vfio", "unplug the VFIO device", 1 },
		{ "\x1b[31m", "'?[31m' sends its state while", 1 },
		{ "", "'' sends its state while", 1 },
		{ "0000:00:06.0/virtio-mem-device-early", "ahead of the guest's RAM", 4 },
		{ "ram", "ahead of the guest's RAM", 4 },
	};
	struct bytes input = { 0 };

	(void)unused;
	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		header(&input);
		put_section(&input, sections[i].type, sections[i].name, 0, 1);
		refused(&input, -EOPNOTSUPP, sections[i].words);
		put_ram_begins(&input);
		put_section_ends(&input, true);
		put_section(&input, sections[i].type, sections[i].name, 0, 1);
		refused(&input, -EOPNOTSUPP,
			strcmp(sections[i].name, "ram") ? sections[i].words : "ahead");
	}
	header(&input);
	put_section(&input, 1, "ram", 0, 5);
	refused(&input, -EOPNOTSUPP, "version 5");
	header(&input);
	put_section(&input, 1, "ram", 1, 4);
	refused(&input, -EOPNOTSUPP, "second RAM section");
	put_ram_begins(&input);
	put_section_ends(&input, true);
	put_section(&input, 1, "ram", 0, 4);
	refused(&input, -EOPNOTSUPP, "second RAM section");
}

static void test_section_ids(void **unused)
{
	struct bytes input = { 0 };

	(void)unused;
	put_ram_begins(&input);
	put_section_ends(&input, true);
	put_bytes(&input, "\2\0\0\0\3", 5);
	refused(&input, -EPROTO, "never began");
	put_ram_begins(&input);
	put_section_ends(&input, false);
	put_bytes(&input, "\x7e\0\0\0\3", 5);
	refused(&input, -EPROTO, "footer");
	put_ram_begins(&input);
	put_section_ends(&input, true);
	put_bytes(&input, "\x7e", 1);
	refused(&input, -EPROTO, "type 0x7e is out of place");
	put_ram_begins(&input);
	put_section_ends(&input, true);
	put_ram_continues(&input, true);
	put_section_ends(&input, false);
	put_bytes(&input, "\x7e\0\0\0\3", 5);
	refused(&input, -EPROTO, "footer");
	put_ram_begins(&input);
	put_section_ends(&input, true);
	put_bytes(&input, "\0", 1);
	refused(&input, -EPROTO, "ends before the end of the guest's RAM");
}

static void ram(struct bytes *input, uint64_t total_bytes)
{
	header(input);
	put_section(input, 1, "ram", 0, 4);
	put_number(input, total_bytes | 0x04, 8);
}

static void test_table(void **unused)
{
	struct bytes input = { 0 };

	(void)unused;
	ram(&input, 0);
	refused(&input, -EPROTO, "empty or out of place");
	put_ram_begins(&input);
	put_number(&input, 0x1000 | 0x04, 8);
	refused(&input, -EPROTO, "empty or out of place");
	ram(&input, 0x3000);
	put_table_entry(&input, "a", 0x1000);
	put_table_entry(&input, "a", 0x1000);
	refused(&input, -EPROTO, "'a' comes twice");
	ram(&input, 0x1000);
	put_table_entry(&input, "", 0x1000);
	refused(&input, -EPROTO, "no proper name");
	ram(&input, 0x1000);
	put_table_entry(&input, "a\n", 0x1000);
	refused(&input, -EPROTO, "no proper name");
	ram(&input, 0x1000);
	put_table_entry(&input, "a", 0x2000);
	refused(&input, -EPROTO, "'a' has a wrong size");
	ram(&input, 0x1000);
	put_table_entry(&input, "a", 0);
	refused(&input, -EPROTO, "'a' has a wrong size");
	ram(&input, 0x2000);
	put_table_entry(&input, "a", 0x1001);
	refused(&input, -EPROTO, "'a' has a wrong size");
	header(&input);
	put_section(&input, 1, "ram", 0, 4);
	put_section_ends(&input, true);
	refused(&input, -EPROTO, "does not begin with a table");
}

static void test_table_bound(void **unused)
{
	struct bytes input = { 0 };
	char name[16];

	(void)unused;
	ram(&input, (uint64_t)STREAM_MAX_BLOCKS * 0x1000 + 0x1000);
	for (unsigned i = 0; i <= STREAM_MAX_BLOCKS; i++) {
		snprintf(name, sizeof(name), "dimm%u", i);
		put_table_entry(&input, name, 0x1000);
	}
	refused(&input, -EOPNOTSUPP, "more than 512 RAM blocks");
}

static void record(uint64_t offset, unsigned flags, const char *name, int code, const char *words)
{
	struct bytes input = { 0 };

	put_ram_begins(&input);
	put_record(&input, offset, flags, name);
	refused(&input, code, words);
}

static void test_records(void **unused)
{
	(void)unused;
	record(0, 0x40, "ram", -EOPNOTSUPP, "'xbzrle' off");
	record(0, 0x40 | CONTINUE, NULL, -EOPNOTSUPP, "'xbzrle' off");
	record(0, 0x100, "ram", -EOPNOTSUPP, "capability 'compress' off");
	record(0, 0x80, NULL, -EOPNOTSUPP, "'tcp:'");
	record(0, 0x01, NULL, -EOPNOTSUPP, "flags 0x001");
	record(0, 0x400, NULL, -EOPNOTSUPP, "flags 0x400");
	record(0, 0x800, NULL, -EOPNOTSUPP, "flags 0x800");
	record(0, 0, NULL, -EOPNOTSUPP, "flags 0x000");
	record(0, CONTINUE, NULL, -EOPNOTSUPP, "flags 0x020");
	record(0, PAGE | ZERO, "ram", -EOPNOTSUPP, "flags 0x00a");
	record(0, 0x10 | CONTINUE, NULL, -EOPNOTSUPP, "flags 0x030");
	record(0x1000, 0x10, NULL, -EPROTO, "its end has an offset");
	record(0x1000, 0x200, NULL, -EPROTO, "a flush has an offset");
	record(0x100000, PAGE, "ram", -EPROTO, "outside its block 'ram'");
	record(0x100000, ZERO, "ram", -EPROTO, "outside its block 'ram'");
	record(0x10000, PAGE, "rom", -EPROTO, "outside its block 'rom'");
	record(~(uint64_t)0xfff, PAGE, "ram", -EPROTO, "outside its block 'ram'");
	record(0, PAGE, "ra", -EPROTO, "'ra', which is not in its table");
	record(0, PAGE, "", -EPROTO, "'', which is not in its table");
	record(0, ZERO, "ram\x7f", -EPROTO, "'ram?', which is not in its table");
	record(0, PAGE | CONTINUE, NULL, -EPROTO, "belongs to no block");
	record(0, ZERO | CONTINUE, NULL, -EPROTO, "belongs to no block");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),	    cmocka_unit_test(test_subsections),
		cmocka_unit_test(test_commands),    cmocka_unit_test(test_sections),
		cmocka_unit_test(test_section_ids), cmocka_unit_test(test_table),
		cmocka_unit_test(test_table_bound), cmocka_unit_test(test_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
