/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the main channel's parser shares between its two files: stream.c reads what is around the
 * RAM section, stream_ram.c the records in it.
 *
 * The stream is taken apart into items: small pieces whose length is known, or becomes known from
 * their beginning. A step gets the item once `want` bytes of it are there. It either asks for more
 * of the same item (a larger `want`), or ends it: stream_item_pass() if it goes to the destination,
 * then stream_expect(). A page's content is too large for an item and goes by page_left_bytes.
 */
#ifndef KVM_QEMU_STREAM_PRIVATE_H
#define KVM_QEMU_STREAM_PRIVATE_H

#include <endian.h>
#include <string.h>

#include "core/ramlift.h"
#include "kvm/qemu/stream.h"

#define STREAM_ITEM_BYTES   512u
#define STREAM_OUTPUT_BYTES 65536u

typedef int (*stream_step)(struct qemu_stream *stream, struct ramlift_error *error);

struct qemu_stream {
	struct stream_sink sink;
	void *context;
	struct ramlift_error failure; /* code 0: none so far */

	stream_step step;
	size_t want;
	size_t have;
	uint8_t item[STREAM_ITEM_BYTES];

	size_t page_left_bytes; /* of a page's content, which no step looks at */
	bool page_passes;
	bool opaque; /* behind the RAM section */

	bool configuration_allowed;
	bool footer_allowed;

	uint64_t n_section_ends, n_flushes; /* the two ways to wait for multifd channels */

	bool ram_started;
	bool ram_ends; /* in the RAM section's END */
	uint32_t ram_id;
	uint64_t
		table_total_bytes; /* as the table gives it, and what its blocks have not used up */
	uint64_t table_left_bytes;
	bool table_done;
	unsigned n_blocks;
	unsigned block; /* what CONTINUE means; n_blocks: nothing yet */
	struct stream_block blocks[STREAM_MAX_BLOCKS];

	size_t used;
	uint8_t output[STREAM_OUTPUT_BYTES];
};

/* The next item starts. */
static inline void stream_expect(struct qemu_stream *stream, stream_step step, size_t want)
{
	stream->step = step;
	stream->want = want;
	stream->have = 0;
}

static inline uint32_t stream_u32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return be32toh(value);
}

static inline uint64_t stream_u64(const uint8_t *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return be64toh(value);
}

/* Queue bytes for pass(). */
int stream_output(struct qemu_stream *stream, const void *bytes, size_t n_bytes,
		  struct ramlift_error *error);

/* What is queued goes to pass(). */
int stream_flush(struct qemu_stream *stream, struct ramlift_error *error);

static inline int stream_item_pass(struct qemu_stream *stream, struct ramlift_error *error)
{
	return stream_output(stream, stream->item, stream->have, error);
}

/* A name out of the stream as text that does no harm on a terminal. */
struct stream_text {
	char text[STREAM_MAX_NAME];
};
struct stream_text stream_text(const uint8_t *bytes, size_t n_bytes);

/* The step at the head of a RAM record, and what follows a section's last record. */
#define STREAM_RECORD_BYTES 8u
int stream_ram_record(struct qemu_stream *stream, struct ramlift_error *error);
int stream_ram_section_ends(struct qemu_stream *stream, struct ramlift_error *error);

#endif
