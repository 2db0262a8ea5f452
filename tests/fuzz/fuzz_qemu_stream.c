/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's main channel. The first byte says which blocks are carried, the second how the stream is
 * cut, the rest is the stream. Cut or whole, it has the same pages and the same bytes come out;
 * what comes out is a stream with the same blocks and without pages of the carried ones.
 */
#include "core/ramlift.h"
#include "kvm/qemu/stream.h"
#include "tests/fuzz/fuzz.h"

struct result {
	uint8_t mask;
	int ret;
	uint8_t *passed; /* as large as the input: nothing is ever added */
	size_t size;
	size_t used;
	size_t used_at_end;
	unsigned n_blocks;
	unsigned n_ends;
	uint64_t n_pages;
	uint64_t pages_hash;
	const struct stream_block *blocks;
};

static int pass(void *context, const void *bytes, size_t n_bytes, struct ramlift_error *error)
{
	struct result *result = context;

	(void)error;
	CHECK(n_bytes && n_bytes <= result->size - result->used);
	memcpy(result->passed + result->used, bytes, n_bytes);
	result->used += n_bytes;
	return 0;
}

static int take_blocks(void *context, struct stream_block *blocks, unsigned n_blocks,
		       struct ramlift_error *error)
{
	struct result *result = context;

	(void)error;
	CHECK(!result->n_blocks && n_blocks && n_blocks <= STREAM_MAX_BLOCKS);
	result->n_blocks = n_blocks;
	result->blocks = blocks;
	for (unsigned i = 0; i < n_blocks; i++) {
		size_t length = strnlen(blocks[i].name, sizeof(blocks[i].name));

		CHECK(length && length < sizeof(blocks[i].name));
		CHECK(blocks[i].size_bytes && blocks[i].size_bytes % STREAM_PAGE_BYTES == 0);
		CHECK(!blocks[i].carried);
		blocks[i].carried = result->mask >> (i % 8) & 1;
	}
	return 0;
}

static int take_page(void *context, unsigned block, uint64_t offset_bytes, bool zeros,
		     struct ramlift_error *error)
{
	struct result *result = context;

	(void)error;
	CHECK(block < result->n_blocks && result->blocks[block].carried && !result->n_ends);
	CHECK(offset_bytes % STREAM_PAGE_BYTES == 0);
	CHECK(offset_bytes <= result->blocks[block].size_bytes - STREAM_PAGE_BYTES);
	result->n_pages++;
	result->pages_hash = (result->pages_hash ^ block ^ offset_bytes ^ zeros) * 0x100000001b3;
	return 0;
}

static int take_end(void *context, struct ramlift_error *error)
{
	struct result *result = context;

	(void)error;
	CHECK(!result->n_ends);
	result->n_ends++;
	result->used_at_end = result->used;
	return 0;
}

static const struct stream_sink sink = { pass, take_blocks, take_page, take_end };

/* cut 0: in one piece. Every piece has memory of its own: an over-read must be seen. */
static void run(struct result *result, const uint8_t *data, size_t size, uint8_t mask, unsigned cut)
{
	struct ramlift_error error = { 0 };
	struct qemu_stream *stream;
	uint32_t random = cut;

	*result = (struct result){ .mask = mask, .size = size, .passed = malloc(size ? size : 1) };
	CHECK(result->passed);
	CHECK(!qemu_stream_new(&sink, result, &stream, &error));
	while (size && !result->ret) {
		size_t n = size;
		uint8_t *piece;

		random = random * 1664525 + 1013904223;
		if (cut)
			n = 1 + (random >> 8) % (cut % 2 ? 16 : 5000);
		n = n < size ? n : size;
		piece = malloc(n);
		CHECK(piece);
		memcpy(piece, data, n);
		result->ret = qemu_stream_feed(stream, piece, n, &error);
		free(piece);
		data += n;
		size -= n;
	}
	CHECK(error.code == result->ret && !error.code == !error.text[0]);
	CHECK(qemu_stream_complete(stream) == result->n_ends);
	if (result->ret)
		CHECK(qemu_stream_feed(stream, "", 1, NULL) == result->ret && !result->n_ends);
	qemu_stream_free(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct result whole, cut, again;

	if (size < 2)
		return 0;
	run(&whole, data + 2, size - 2, data[0], 0);
	run(&cut, data + 2, size - 2, data[0], data[1] + 1u);
	CHECK(cut.ret == whole.ret && cut.n_pages == whole.n_pages);
	CHECK(cut.pages_hash == whole.pages_hash && cut.n_ends == whole.n_ends);
	/* A stream that fails has passed what it had before the piece with the failure. */
	CHECK(whole.ret ? cut.used >= whole.used : cut.used == whole.used);
	CHECK(!memcmp(cut.passed, whole.passed, whole.used));

	run(&again, cut.passed, cut.used, data[0], 0);
	CHECK(!again.ret && !again.n_pages && again.used == cut.used);
	CHECK(!memcmp(again.passed, cut.passed, cut.used));
	CHECK(again.n_ends == whole.n_ends && again.used_at_end == whole.used_at_end);
	free(whole.passed);
	free(cut.passed);
	free(again.passed);
	return 0;
}
