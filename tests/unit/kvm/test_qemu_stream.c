/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's main channel: captured streams of QEMU 7.2 and streams made by hand lose the pages of the
 * carried blocks and nothing else, however they are cut.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stream_fixture.h"

/* Parse it in pieces of this size, to its end; how often the multifd channels are waited for. */
static uint64_t parse(const struct bytes *bytes, const char *carried, size_t piece_bytes,
		      struct record *record)
{
	struct ramlift_error error = { 0 };
	struct qemu_stream *stream;
	uint64_t n_syncs;

	*record = (struct record){ .carried = carried };
	assert_int_equal(qemu_stream_new(&record_sink, record, &stream, &error), 0);
	assert_int_equal(feed(stream, bytes, piece_bytes, &error), 0);
	assert_true(qemu_stream_complete(stream));
	record->blocks = NULL; /* goes with the stream */
	n_syncs = qemu_stream_syncs(stream);
	qemu_stream_free(stream);
	return n_syncs;
}

static void parse_in_all_pieces(const struct bytes *bytes, const char *carried,
				const struct record *expected)
{
	static const size_t pieces[] = { 1, 7, 4096, 5000, 0, 0, 0, 0 };
	struct record record;

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		parse(bytes, carried, pieces[i], &record);
		assert_same(&record, expected);
		free_record(&record);
	}
}

/* What has been filtered is a stream of its own: the same without the pages. */
static void parse_again(const struct record *first, const char *carried)
{
	struct record again;

	parse(&first->passed, carried, 4096, &again);
	assert_int_equal(n_pages(&again), 0);
	assert_int_equal(again.n_blocks, first->n_blocks);
	assert_int_equal(again.passed_at_end, first->passed_at_end);
	assert_int_equal(again.passed.used, first->passed.used);
	assert_memory_equal(again.passed.data, first->passed.data, first->passed.used);
	free_record(&again);
}

static void assert_tail(const struct record *record, const struct bytes *bytes, size_t tail)
{
	assert_int_equal(record->passed.used - record->passed_at_end, tail);
	assert_memory_equal(record->passed.data + record->passed_at_end,
			    bytes->data + bytes->used - tail, tail);
}

/*
 * The guest of both captures has 512 pages of RAM, of which 10 are not zero: page (37 i + 3) % 512.
 * A page of zeros costs 9 bytes, another one 4,104, and the block is named once in "ram".
 */
static void test_capture(const char *name, size_t n_bytes, size_t tail, size_t content_pages)
{
	size_t carried_bytes = 502 * 9 + content_pages * (8 + 4096) + 1 + strlen("ram");
	uint8_t seen[512] = { 0 };
	struct record record;
	struct bytes bytes;

	load_stream(&bytes, name);
	assert_int_equal(bytes.used, n_bytes);
	parse(&bytes, "ram", bytes.used, &record);
	assert_int_equal(record.n_blocks, 6);
	assert_int_equal(n_pages(&record), 502 + content_pages);
	assert_int_equal(record.n_zeros, 502);
	for (size_t i = 0; i < n_pages(&record); i++) {
		assert_int_equal(page_block(&record, i), 0);
		seen[page_offset(&record, i) / 4096]++;
	}
	for (unsigned i = 0, content = 0; i < 512; i++) {
		content += !seen[i];
		assert_true(seen[i] == 1 || (!content_pages && content <= 10));
	}
	assert_int_equal(record.passed.used, bytes.used - carried_bytes);
	assert_tail(&record, &bytes, tail);
	assert_true(record.n_passes <= 3); /* large pieces */
	parse_again(&record, "ram");
	parse_in_all_pieces(&bytes, "ram", &record);
	free_record(&record);
	free_bytes(&bytes);
}

static void test_capture_plain(void **unused)
{
	(void)unused;
	test_capture("qemu-7.2-plain-main", 75916, 75916 - 63058, 10);
}

static void test_capture_multifd(void **unused)
{
	(void)unused;
	test_capture("qemu-7.2-multifd-main", 18361, 18361 - 5503, 0);
}

/* As many as the captured channels have, each: the ends of START, PART and END. */
static void test_capture_syncs(void **unused)
{
	struct record record;
	struct bytes bytes;

	(void)unused;
	load_stream(&bytes, "qemu-7.2-multifd-main");
	assert_int_equal(parse(&bytes, "ram", 100, &record), 3);
	free_record(&record);
	free_bytes(&bytes);
}

/* Nothing carried: every byte comes out. Everything: 593 pages, and no page comes out. */
static void test_none_and_all(void **unused)
{
	struct record record;
	struct bytes bytes;

	(void)unused;
	load_stream(&bytes, "qemu-7.2-plain-main");
	parse(&bytes, NULL, bytes.used, &record);
	assert_int_equal(n_pages(&record), 0);
	assert_int_equal(record.passed.used, bytes.used);
	assert_memory_equal(record.passed.data, bytes.data, bytes.used);
	parse_in_all_pieces(&bytes, NULL, &record);
	free_record(&record);

	parse(&bytes, "*", bytes.used, &record);
	assert_int_equal(n_pages(&record), 580 + 14);
	assert_tail(&record, &bytes, 75916 - 63058);
	parse_again(&record, "*");
	parse_in_all_pieces(&bytes, "*", &record);
	free_record(&record);
	free_bytes(&bytes);
}

/* Put into the input, and into what is expected to be left of it. */
#define PUT_BOTH(function, ...)                                                                    \
	do {                                                                                       \
		function(&input, ##__VA_ARGS__);                                                   \
		function(&expected, ##__VA_ARGS__);                                                \
	} while (0)

/* A stream as QEMU 9 and 10 make it, and what CONTINUE means across records and sections. */
static void test_by_hand(void **unused)
{
	static const uint64_t offsets[] = { 0x1000, 0x2000, 0xff000, 0x3000, 0x4000 };
	struct bytes input = { 0 }, expected = { 0 };
	struct record record;

	(void)unused;
	PUT_BOTH(put_ram_begins);
	PUT_BOTH(put_number, 0x200, 8); /* MULTIFD_FLUSH */
	PUT_BOTH(put_section_ends, true);
	PUT_BOTH(put_command, 1, NULL, 0);
	PUT_BOTH(put_command, 2, "\0\0\0\1", 4);
	PUT_BOTH(put_ram_continues, false);
	put_record(&input, 0x1000, PAGE, "ram");
	put_record(&input, 0x2000, ZERO | CONTINUE, NULL);
	PUT_BOTH(put_record, 0xf000, PAGE, "rom");
	PUT_BOTH(put_section_ends, true);
	PUT_BOTH(put_ram_continues, false);
	PUT_BOTH(put_record, 0x1000, ZERO | CONTINUE, NULL);
	put_record(&input, 0xff000, ZERO, "ram");
	PUT_BOTH(put_number, 0x200, 8);
	PUT_BOTH(put_section_ends, true);
	PUT_BOTH(put_command, 11, NULL, 0); /* SWITCHOVER_START */
	PUT_BOTH(put_ram_continues, true);
	put_record(&input, 0x3000, PAGE | CONTINUE, NULL);
	PUT_BOTH(put_record, 0x2000, PAGE, "rom");
	PUT_BOTH(put_record, 0x3000, PAGE | CONTINUE, NULL);
	put_record(&input, 0x4000, PAGE, "ram");
	PUT_BOTH(put_section_ends, true);
	PUT_BOTH(put_section, 0x01, "opaque: ", 7, 7);

	assert_int_equal(parse(&input, "ram", input.used, &record), 2);
	assert_int_equal(record.passed.used, expected.used);
	assert_memory_equal(record.passed.data, expected.data, expected.used);
	assert_int_equal(record.passed_at_end, expected.used - 22);
	assert_int_equal(n_pages(&record), 5);
	assert_int_equal(record.n_zeros, 2);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(page_offset(&record, i), offsets[i]);
	parse_again(&record, "ram");
	parse_in_all_pieces(&input, "ram", &record);
	free_record(&record);
	free_bytes(&input);
	free_bytes(&expected);
}

/* blocks() comes before the table, ram_end() between the last footer and what follows. */
static void test_order(void **unused)
{
	struct bytes input = { 0 }, table = { 0 };
	struct ramlift_error error = { 0 };
	struct record record = { .carried = "ram" };
	struct qemu_stream *stream;
	size_t before_table, ram_bytes;

	(void)unused;
	put_header(&table, "pc-i440fx-9.0");
	put_section(&table, 0x01, "ram", 0, 4);
	before_table = table.used;
	put_ram_begins(&input);
	assert_int_equal(qemu_stream_new(&record_sink, &record, &stream, &error), 0);
	assert_int_equal(qemu_stream_feed(stream, input.data, input.used - 1, &error), 0);
	assert_null(record.blocks);
	assert_int_equal(record.passed.used, before_table);
	assert_int_equal(qemu_stream_feed(stream, input.data + input.used - 1, 1, &error), 0);
	assert_int_equal(record.n_blocks, 2);
	assert_string_equal(record.blocks[1].name, "rom");
	assert_int_equal(record.blocks[1].size_bytes, 0x10000);
	assert_true(record.passed_at_blocks <= before_table);
	assert_int_equal(record.passed.used, input.used);

	ram_bytes = input.used;
	put_section_ends(&input, true);
	put_ram_continues(&input, true);
	put_section_ends(&input, true);
	put_bytes(&input, "\0opaque", 7);
	assert_int_equal(qemu_stream_feed(stream, input.data + ram_bytes,
					  input.used - ram_bytes - 8, &error),
			 0);
	assert_false(qemu_stream_complete(stream));
	assert_int_equal(record.n_ends, 0);
	assert_int_equal(qemu_stream_feed(stream, input.data + input.used - 8, 8, &error), 0);
	assert_true(qemu_stream_complete(stream));
	assert_int_equal(record.n_ends, 1);
	assert_int_equal(record.passed_at_end, input.used - 7);
	assert_int_equal(record.passed.used, input.used);
	qemu_stream_free(stream);
	free_record(&record);
	free_bytes(&input);
	free_bytes(&table);
}

/* send-section-footer=off, no configuration (old machine types), and a name of the full length. */
static void test_variants(void **unused)
{
	struct bytes input = { 0 };
	struct record record;
	char name[256];

	(void)unused;
	memset(name, 'n', 255);
	name[255] = '\0';
	put_bytes(&input, "QEVM\0\0\0\3", 8);
	put_section(&input, 0x01, "ram", 0, 4);
	put_number(&input, 0x2000 | 0x04, 8);
	put_table_entry(&input, name, 0x2000);
	put_section_ends(&input, false);
	put_ram_continues(&input, false);
	put_record(&input, 0x1000, PAGE, name);
	put_section_ends(&input, false);
	put_ram_continues(&input, true);
	put_section_ends(&input, false);
	put_bytes(&input, "\4opaque", 7);
	parse(&input, name, input.used, &record);
	assert_int_equal(n_pages(&record), 1);
	assert_tail(&record, &input, 7);
	assert_int_equal(record.passed.used, input.used - 8 - 256 - 4096);
	parse_in_all_pieces(&input, name, &record);
	free_record(&record);
	free_bytes(&input);
}

/* Whatever call of the sink fails, its failure is the stream's, then and later. */
static void test_failing_sink(void **unused)
{
	struct bytes input = { 0 };
	int n_calls = 0;

	(void)unused;
	put_ram_begins(&input);
	put_record(&input, 0, PAGE, "ram");
	put_section_ends(&input, true);
	put_ram_continues(&input, true);
	put_section_ends(&input, true);
	put_bytes(&input, "opaque", 6);
	for (int i = 1;; i++) {
		struct record record = { .carried = "ram", .failing_call = i };
		struct ramlift_error error = { 0 };
		struct qemu_stream *stream;
		int ret;

		assert_int_equal(qemu_stream_new(&record_sink, &record, &stream, &error), 0);
		ret = feed(stream, &input, 64, &error);
		n_calls = record.n_calls;
		if (ret) {
			assert_int_equal(ret, -EIO);
			assert_int_equal(n_calls, i);
			error = (struct ramlift_error){ 0 };
			assert_int_equal(qemu_stream_feed(stream, "x", 1, &error), -EIO);
			assert_string_equal(error.text, "no room");
			assert_int_equal(record.n_calls, i);
		}
		qemu_stream_free(stream);
		free_record(&record);
		if (!ret)
			break;
	}
	assert_true(n_calls > 6);
	free_bytes(&input);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_capture_plain), cmocka_unit_test(test_capture_multifd),
		cmocka_unit_test(test_capture_syncs), cmocka_unit_test(test_none_and_all),
		cmocka_unit_test(test_by_hand),	      cmocka_unit_test(test_order),
		cmocka_unit_test(test_variants),      cmocka_unit_test(test_failing_sink),
	};

	srandom(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
