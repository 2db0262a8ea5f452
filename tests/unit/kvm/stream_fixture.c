/* SPDX-License-Identifier: Apache-2.0 */
#include "stream_fixture.h"

#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

void put_bytes(struct bytes *bytes, const void *data, size_t n_bytes)
{
	if (bytes->room - bytes->used < n_bytes) {
		bytes->room = (bytes->used + n_bytes) * 2;
		bytes->data = realloc(bytes->data, bytes->room);
		assert_non_null(bytes->data);
	}
	if (n_bytes)
		memcpy(bytes->data + bytes->used, data, n_bytes);
	bytes->used += n_bytes;
}

void put_number(struct bytes *bytes, uint64_t value, unsigned n_bytes)
{
	while (n_bytes--) {
		uint8_t byte = (uint8_t)(value >> (8 * n_bytes));

		put_bytes(bytes, &byte, 1);
	}
}

void put_name(struct bytes *bytes, const char *name)
{
	put_number(bytes, strlen(name), 1);
	put_bytes(bytes, name, strlen(name));
}

void free_bytes(struct bytes *bytes)
{
	free(bytes->data);
	memset(bytes, 0, sizeof(*bytes));
}

void load_stream(struct bytes *bytes, const char *name)
{
	char path[512], piece[4096];
	size_t got;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", STREAMS_FOLDER, name);
	file = fopen(path, "rb");
	assert_non_null(file);
	memset(bytes, 0, sizeof(*bytes));
	while ((got = fread(piece, 1, sizeof(piece), file)))
		put_bytes(bytes, piece, got);
	fclose(file);
	assert_true(bytes->used);
}

void put_header(struct bytes *bytes, const char *machine)
{
	put_bytes(bytes, "QEVM", 4);
	put_number(bytes, 3, 4);
	put_number(bytes, 0x07, 1);
	put_number(bytes, strlen(machine), 4);
	put_bytes(bytes, machine, strlen(machine));
}

void put_command(struct bytes *bytes, unsigned command, const char *data, size_t n_bytes)
{
	put_number(bytes, 0x08, 1);
	put_number(bytes, command, 2);
	put_number(bytes, n_bytes, 2);
	put_bytes(bytes, data, n_bytes);
}

void put_section(struct bytes *bytes, unsigned type, const char *name, unsigned instance,
		 unsigned version)
{
	put_number(bytes, type, 1);
	put_number(bytes, 2, 4);
	put_name(bytes, name);
	put_number(bytes, instance, 4);
	put_number(bytes, version, 4);
}

void put_ram_continues(struct bytes *bytes, bool ends)
{
	put_number(bytes, ends ? 0x03 : 0x02, 1);
	put_number(bytes, 2, 4);
}

void put_table_entry(struct bytes *bytes, const char *name, uint64_t size_bytes)
{
	put_name(bytes, name);
	put_number(bytes, size_bytes, 8);
}

void put_record(struct bytes *bytes, uint64_t offset, unsigned flags, const char *name)
{
	uint8_t content[STREAM_PAGE_BYTES];

	put_number(bytes, offset | flags, 8);
	if (name)
		put_name(bytes, name);
	if (flags & ZERO)
		put_number(bytes, 0, 1);
	/* A page full of something that reads as the end of the section,
	 * for those who lose track. */
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = i % 8 == 7 ? 0x10 : 0;
	if (flags & PAGE)
		put_bytes(bytes, content, sizeof(content));
}

void put_section_ends(struct bytes *bytes, bool footer)
{
	put_number(bytes, 0x10, 8);
	if (footer) {
		put_number(bytes, 0x7e, 1);
		put_number(bytes, 2, 4);
	}
}

void put_ram_begins(struct bytes *bytes)
{
	put_header(bytes, "pc-i440fx-9.0");
	put_section(bytes, 0x01, "ram", 0, 4);
	put_number(bytes, 0x110000 | 0x04, 8);
	put_table_entry(bytes, "ram", 0x100000);
	put_table_entry(bytes, "rom", 0x10000);
}

static int called(struct record *record, struct ramlift_error *error)
{
	return ++record->n_calls == record->failing_call ? error_set(error, -EIO, "no room") : 0;
}

static int pass(void *context, const void *bytes, size_t n_bytes, struct ramlift_error *error)
{
	struct record *record = context;

	assert_true(n_bytes);
	record->n_passes++;
	put_bytes(&record->passed, bytes, n_bytes);
	return called(record, error);
}

static int take_blocks(void *context, struct stream_block *blocks, unsigned n_blocks,
		       struct ramlift_error *error)
{
	struct record *record = context;

	assert_null(record->blocks);
	record->blocks = blocks;
	record->n_blocks = n_blocks;
	record->passed_at_blocks = record->passed.used;
	for (unsigned i = 0; i < n_blocks; i++) {
		assert_false(blocks[i].carried);
		blocks[i].carried = record->carried && (!strcmp(record->carried, "*") ||
							!strcmp(record->carried, blocks[i].name));
	}
	return called(record, error);
}

static int take_page(void *context, unsigned block, uint64_t offset_bytes, bool zeros,
		     struct ramlift_error *error)
{
	struct record *record = context;

	assert_true(block < record->n_blocks && record->blocks[block].carried);
	assert_true(offset_bytes <= record->blocks[block].size_bytes - STREAM_PAGE_BYTES);
	assert_int_equal(offset_bytes % STREAM_PAGE_BYTES, 0);
	put_number(&record->pages, block, 4);
	put_number(&record->pages, offset_bytes, 8);
	record->n_zeros += zeros;
	return called(record, error);
}

static int take_end(void *context, struct ramlift_error *error)
{
	struct record *record = context;

	record->n_ends++;
	record->passed_at_end = record->passed.used;
	return called(record, error);
}

const struct stream_sink record_sink = {
	.pass = pass,
	.blocks = take_blocks,
	.page = take_page,
	.ram_end = take_end,
};

static uint64_t number(const uint8_t *bytes, unsigned n_bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n_bytes; i++)
		value = value << 8 | bytes[i];
	return value;
}

size_t n_pages(const struct record *record)
{
	return record->pages.used / 12;
}

unsigned page_block(const struct record *record, size_t i)
{
	return (unsigned)number(record->pages.data + 12 * i, 4);
}

uint64_t page_offset(const struct record *record, size_t i)
{
	return number(record->pages.data + 12 * i + 4, 8);
}

static void assert_same_bytes(const struct bytes *a, const struct bytes *b)
{
	assert_int_equal(a->used, b->used);
	if (a->used)
		assert_memory_equal(a->data, b->data, a->used);
}

void assert_same(const struct record *a, const struct record *b)
{
	assert_same_bytes(&a->passed, &b->passed);
	assert_same_bytes(&a->pages, &b->pages);
	assert_int_equal(a->n_blocks, b->n_blocks);
	assert_int_equal(a->n_ends, b->n_ends);
	assert_int_equal(a->passed_at_end, b->passed_at_end);
}

void free_record(struct record *record)
{
	free_bytes(&record->passed);
	free_bytes(&record->pages);
	memset(record, 0, sizeof(*record));
}

int feed(struct qemu_stream *stream, const struct bytes *bytes, size_t piece_bytes,
	 struct ramlift_error *error)
{
	size_t fed = 0;
	int ret = 0;

	while (fed < bytes->used && !ret) {
		size_t n = piece_bytes ? piece_bytes : (size_t)(1 + random() % 6000);
		uint8_t *piece;

		n = n < bytes->used - fed ? n : bytes->used - fed;
		piece = malloc(n); /* of its own: an over-read must be seen, and gone afterwards */
		assert_non_null(piece);
		memcpy(piece, bytes->data + fed, n);
		ret = qemu_stream_feed(stream, piece, n, error);
		free(piece);
		fed += n;
	}
	return ret;
}
