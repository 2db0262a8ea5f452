/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of QEMU's stream parsers share: bytes that grow, captured streams, streams made by
 * hand, and a sink that writes down what it gets.
 */
#ifndef TESTS_UNIT_KVM_STREAM_FIXTURE_H
#define TESTS_UNIT_KVM_STREAM_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ramlift.h"
#include "kvm/qemu/stream.h"

struct bytes {
	uint8_t *data;
	size_t used;
	size_t room;
};

void put_bytes(struct bytes *bytes, const void *data, size_t n_bytes);
void put_number(struct bytes *bytes, uint64_t value, unsigned n_bytes); /* big-endian */
void put_name(struct bytes *bytes, const char *name);			/* length 1, name */
void free_bytes(struct bytes *bytes);

/* A file of streams/. */
void load_stream(struct bytes *bytes, const char *name);

/* The pieces of a main channel; a RAM section has id 2. */
enum { ZERO = 0x02, PAGE = 0x08, CONTINUE = 0x20 };

void put_header(struct bytes *bytes, const char *machine);
void put_command(struct bytes *bytes, unsigned command, const char *data, size_t n_bytes);
void put_section(struct bytes *bytes, unsigned type, const char *name, unsigned instance,
		 unsigned version);
void put_ram_continues(struct bytes *bytes, bool ends);
void put_table_entry(struct bytes *bytes, const char *name, uint64_t size_bytes);
void put_record(struct bytes *bytes, uint64_t offset, unsigned flags, const char *name);
void put_section_ends(struct bytes *bytes, bool footer);

/* The start of a stream: header, START of RAM, a table of ram (1 MiB) and rom (64 KiB). */
void put_ram_begins(struct bytes *bytes);

/* What came out of a stream. Blocks called `carried` are carried, or all of them with "*". */
struct record {
	const char *carried;
	int failing_call; /* the sink's call that fails with -EIO: 1 is the first; 0: none */
	int n_calls;
	struct bytes passed;
	size_t passed_at_blocks;
	size_t passed_at_end; /* when ram_end() was called */
	unsigned n_passes;
	unsigned n_ends;
	unsigned n_blocks;
	const struct stream_block *blocks;
	struct bytes pages; /* block 4, offset 8 */
	size_t n_zeros;	    /* of those */
};

extern const struct stream_sink record_sink;

size_t n_pages(const struct record *record);
unsigned page_block(const struct record *record, size_t i);
uint64_t page_offset(const struct record *record, size_t i);

/* Two records are the same, but for how the bytes were cut. */
void assert_same(const struct record *a, const struct record *b);
void free_record(struct record *record);

/* Feed a whole stream, in pieces of piece_bytes; 0: of random sizes. */
int feed(struct qemu_stream *stream, const struct bytes *bytes, size_t piece_bytes,
	 struct ramlift_error *error);

#endif
