/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's migration stream, the main channel: which pages it names, and the stream without them.
 *
 * Pure: bytes go in, calls come out. It knows neither sockets nor lanes nor who reads the other
 * end, so that it can be tested and fuzzed with any bytes. What it does not understand ends the
 * stream with a sentence that says what to switch off; the guest then runs on at the source.
 *
 *      QEVM, version | configuration | commands... |
 *      START of "ram": the table of blocks | PART... | END |           <- understood
 *      device state, end of file, description                          <- opaque
 */
#ifndef KVM_QEMU_STREAM_H
#define KVM_QEMU_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ramlift_error;
struct qemu_stream;

#define STREAM_PAGE_BYTES 4096u
#define STREAM_MAX_BLOCKS 512u
#define STREAM_MAX_NAME	  256u /* with the NUL */

/* A RAM block as the stream's setup names it. */
struct stream_block {
	char name[STREAM_MAX_NAME]; /* printable */
	uint64_t size_bytes;	    /* whole pages, not 0 */
	bool carried;		    /* its pages go on the lanes */
};

/*
 * What the stream gives rise to. All return 0, or -errno with error set, which ends
 * qemu_stream_feed() with it. None may call back into the stream.
 */
struct stream_sink {
	/* Bytes for the destination QEMU, in order; never 0 bytes. They are gone after the call. */
	int (*pass)(void *context, const void *bytes, size_t n_bytes, struct ramlift_error *error);
	/*
	 * Once, before the table's own bytes are passed: sets `carried` of the blocks whose pages
	 * go on the lanes. The array is the stream's and lives as long; the numbers that page()
	 * gets are indices into it. No two blocks have the same name.
	 */
	int (*blocks)(void *context, struct stream_block *blocks, unsigned n_blocks,
		      struct ramlift_error *error);
	/*
	 * QEMU sent a page, or a page of zeros, of a carried block: aligned and inside the block.
	 * Nothing of it is passed. May be called ahead of pass() for bytes that came before it.
	 */
	int (*page)(void *context, unsigned block, uint64_t offset_bytes, bool zeros,
		    struct ramlift_error *error);
	/*
	 * Once. The RAM section's END and its footer have been passed, and no byte behind them:
	 * everything that follows is opaque and goes to pass() unchanged.
	 */
	int (*ram_end)(void *context, struct ramlift_error *error);
};

/* The sink is copied. -ENOMEM. */
int qemu_stream_new(const struct stream_sink *sink, void *context, struct qemu_stream **stream,
		    struct ramlift_error *error);

/*
 * The next bytes from the source QEMU, in pieces of any size. However they are cut, page() and
 * pass() get the same pages and bytes; what can be passed is passed before this returns. After a
 * failure it fails again the same way. -EPROTO: not a stream of QEMU's, or a damaged one;
 * -EOPNOTSUPP: a stream that Ramlift cannot carry; or what the sink returned.
 */
int qemu_stream_feed(struct qemu_stream *stream, const void *bytes, size_t n_bytes,
		     struct ramlift_error *error);

/* ram_end() has been called and returned 0. */
bool qemu_stream_complete(const struct qemu_stream *stream);

/*
 * How many synchronisations QEMU's main channel has waited for so far: each multifd channel has
 * sent, or will send, at least as many packets for which multifd_is_sync() is true (QEMU 9.2 one
 * more), and no page behind the last of them. QEMU before 8.1, and an older machine type later,
 * means the end of every RAM section; others send a record for it.
 */
uint64_t qemu_stream_syncs(const struct qemu_stream *stream);

/* NULL is fine. */
void qemu_stream_free(struct qemu_stream *stream);

#endif
