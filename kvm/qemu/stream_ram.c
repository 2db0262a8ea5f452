/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records of the main channel's RAM section: QEMU's migration/ram.c says what they are. Each
 * begins with 8 bytes: an offset of whole pages, and flags in the bits below.
 */
#include "kvm/qemu/stream_private.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"

enum {
	RAM_ZERO = 0x002,     /* a page of zeros: one byte of content */
	RAM_MEM_SIZE = 0x004, /* the table of blocks */
	RAM_PAGE = 0x008,
	RAM_EOS = 0x010,      /* the section's last record */
	RAM_CONTINUE = 0x020, /* with PAGE and ZERO: of the same block, which is not named again */
	RAM_XBZRLE = 0x040,
	RAM_HOOK = 0x080,
	RAM_COMPRESS_PAGE = 0x100,
	RAM_MULTIFD_FLUSH = 0x200, /* QEMU 8.1 and later: the multifd channels are waited for */
};

#define RAM_FLAGS 0xfffu
_Static_assert(RAM_FLAGS == STREAM_PAGE_BYTES - 1, "flags are below the page's offset");

static int damaged(struct ramlift_error *error, const char *what)
{
	return error_set(error, -EPROTO, "QEMU's RAM section is damaged: %s", what);
}

static int next_record(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret = stream_item_pass(stream, error);

	stream_expect(stream, stream_ram_record, STREAM_RECORD_BYTES);
	return ret;
}

/* The block with this name; n_blocks: there is none. */
static unsigned find_block(const struct qemu_stream *stream, const uint8_t *name, size_t length)
{
	unsigned i = 0;

	for (; i < stream->n_blocks; i++) {
		const char *known = stream->blocks[i].name;

		if (strlen(known) == length && !memcmp(known, name, length))
			break;
	}
	return i;
}

/* The table was held back, for its blocks had to be known first: the same bytes once more. */
static int pass_table(struct qemu_stream *stream, struct ramlift_error *error)
{
	uint64_t number = htobe64(stream->table_total_bytes | RAM_MEM_SIZE);
	int ret = stream_output(stream, &number, sizeof(number), error);

	for (unsigned i = 0; i < stream->n_blocks && !ret; i++) {
		const struct stream_block *block = &stream->blocks[i];
		uint8_t length = (uint8_t)strlen(block->name);

		number = htobe64(block->size_bytes);
		ret = stream_output(stream, &length, sizeof(length), error);
		if (!ret)
			ret = stream_output(stream, block->name, length, error);
		if (!ret)
			ret = stream_output(stream, &number, sizeof(number), error);
	}
	return ret;
}

static int table_ends(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret = stream->sink.blocks(stream->context, stream->blocks, stream->n_blocks, error);

	stream->table_done = true;
	stream->block = stream->n_blocks;
	stream_expect(stream, stream_ram_record, STREAM_RECORD_BYTES);
	return ret ? ret : pass_table(stream, error);
}

static int add_block(struct qemu_stream *stream, const uint8_t *name, size_t length,
		     uint64_t size_bytes, struct ramlift_error *error)
{
	struct stream_text text = stream_text(name, length);
	struct stream_block *block = &stream->blocks[stream->n_blocks];

	if (!length || memcmp(text.text, name, length))
		return damaged(error, "a block of the table has no proper name");
	if (!size_bytes || size_bytes % STREAM_PAGE_BYTES || size_bytes > stream->table_left_bytes)
		return error_set(error, -EPROTO,
				 "QEMU's RAM section is damaged: block '%s' has a wrong size",
				 text.text);
	if (find_block(stream, name, length) < stream->n_blocks)
		return error_set(error, -EPROTO,
				 "QEMU's RAM section is damaged: block '%s' comes twice",
				 text.text);
	if (stream->n_blocks == STREAM_MAX_BLOCKS)
		return error_set(error, -EOPNOTSUPP,
				 "the guest has more than %u RAM blocks, which Ramlift does not "
				 "carry: remove memory devices from it",
				 STREAM_MAX_BLOCKS);
	memcpy(block->name, text.text, sizeof(block->name));
	block->size_bytes = size_bytes;
	block->carried = false;
	stream->n_blocks++;
	stream->table_left_bytes -= size_bytes;
	return 0;
}

/*
 * length 1, name, size 8. With some capabilities more follows in each entry; all of them show in
 * the stream before it comes to the table, and are refused there.
 */
static int block_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	size_t length = stream->item[0];
	int ret;

	stream->want = 1 + length + 8;
	if (stream->have < stream->want)
		return 0;
	ret = add_block(stream, stream->item + 1, length, stream_u64(stream->item + 1 + length),
			error);
	if (ret || !stream->table_left_bytes)
		return ret ? ret : table_ends(stream, error);
	stream_expect(stream, block_step, 1);
	return 0;
}

static int table_begins(struct qemu_stream *stream, uint64_t total_bytes,
			struct ramlift_error *error)
{
	if (stream->table_done || !total_bytes)
		return damaged(error, "a table of blocks is empty or out of place");
	stream->table_total_bytes = total_bytes;
	stream->table_left_bytes = total_bytes;
	stream_expect(stream, block_step, 1);
	return 0;
}

/* A page's record has its whole head: its block is known, and what to do with it. */
static int take_record(struct qemu_stream *stream, uint64_t offset_bytes, bool zero,
		       struct ramlift_error *error)
{
	const struct stream_block *block = &stream->blocks[stream->block];
	size_t content_bytes = zero ? 0 : STREAM_PAGE_BYTES;
	int ret;

	if (stream->block == stream->n_blocks)
		return damaged(error, "a page belongs to no block");
	if (offset_bytes >= block->size_bytes)
		return error_set(error, -EPROTO,
				 "QEMU's RAM section is damaged: a page is outside its block '%s'",
				 block->name);
	stream->page_left_bytes = content_bytes;
	stream->page_passes = !block->carried;
	if (!block->carried)
		return next_record(stream, error);
	ret = stream->sink.page(stream->context, stream->block, offset_bytes, zero, error);
	stream_expect(stream, stream_ram_record, STREAM_RECORD_BYTES);
	return ret;
}

/* offset and flags 8; length 1 and the block's name, but with CONTINUE; with ZERO 1 byte. */
static int page_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	uint64_t head = stream_u64(stream->item);
	bool zero = head & RAM_ZERO;
	bool named = !(head & RAM_CONTINUE);
	const uint8_t *name = stream->item + 9;

	if (named && stream->have < 9) {
		stream->want = 9;
		return 0;
	}
	stream->want = 8 + (named ? 1 + (size_t)stream->item[8] : 0) + zero;
	if (stream->have < stream->want)
		return 0;
	if (named)
		stream->block = find_block(stream, name, stream->item[8]);
	if (named && stream->block == stream->n_blocks)
		return error_set(error, -EPROTO,
				 "QEMU's RAM section is damaged: it has a page of '%s', which is "
				 "not in its table of blocks",
				 stream_text(name, stream->item[8]).text);
	return take_record(stream, head & ~(uint64_t)RAM_FLAGS, zero, error);
}

static const struct {
	unsigned flag;
	const char *sentence;
} refusals[] = {
	{ RAM_XBZRLE, "QEMU sends pages as differences: switch the migration capability 'xbzrle' "
		      "off" },
	{ RAM_COMPRESS_PAGE, "QEMU sends compressed pages: switch the migration capability "
			     "'compress' off" },
	{ RAM_HOOK, "QEMU migrates by 'rdma:' itself: let it migrate to Ramlift by 'tcp:'" },
};

static int refuse_record(unsigned flags, struct ramlift_error *error)
{
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		if (flags & refusals[i].flag)
			return error_set(error, -EOPNOTSUPP, "%s", refusals[i].sentence);
	}
	return error_set(error, -EOPNOTSUPP,
			 "QEMU's RAM section has a record of an unknown kind (flags 0x%03x): "
			 "Ramlift does not know this version of QEMU",
			 flags);
}

int stream_ram_record(struct qemu_stream *stream, struct ramlift_error *error)
{
	uint64_t head = stream_u64(stream->item);
	unsigned flags = head & RAM_FLAGS;
	uint64_t offset_bytes = head - flags;

	if (flags == RAM_MEM_SIZE)
		return table_begins(stream, offset_bytes, error);
	if (flags & (RAM_XBZRLE | RAM_COMPRESS_PAGE | RAM_HOOK))
		return refuse_record(flags, error);
	if (!stream->table_done)
		return damaged(error, "it does not begin with a table of blocks");
	switch (flags) {
	case RAM_EOS:
		if (offset_bytes)
			return damaged(error, "its end has an offset");
		stream->n_section_ends++;
		return stream_ram_section_ends(stream, error);
	case RAM_MULTIFD_FLUSH:
		if (offset_bytes)
			return damaged(error, "a flush has an offset");
		stream->n_flushes++;
		return next_record(stream, error);
	case RAM_PAGE:
	case RAM_PAGE | RAM_CONTINUE:
	case RAM_ZERO:
	case RAM_ZERO | RAM_CONTINUE:
		stream->step = page_step;
		return page_step(stream, error);
	default:
		return refuse_record(flags, error);
	}
}
