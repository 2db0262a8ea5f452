/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's multifd channels: a hello, then packets. Pure, as stream.h: no sockets.
 *
 *      hello    64 bytes, once, from the source
 *      packet   header 320 bytes | array of offsets, always of its full size | the pages' bytes
 *
 * The source's process reads header and offsets, discards the pages' bytes, and passes the packet
 * on without pages: the destination QEMU keeps its synchronisation, which counts packets with a
 * flag.
 */
#ifndef KVM_QEMU_MULTIFD_H
#define KVM_QEMU_MULTIFD_H

#include <stdbool.h>
#include <stdint.h>

struct ramlift_error;

#define MULTIFD_HELLO_BYTES   64u
#define MULTIFD_HEADER_BYTES  320u
#define MULTIFD_MAX_PAGES     128u /* a packet's: QEMU's 512 KiB of 4 KiB pages */
#define MULTIFD_OFFSETS_BYTES (MULTIFD_MAX_PAGES * 8u)
#define MULTIFD_PAGE_BYTES    4096u

struct multifd_packet {
	uint32_t flags;
	uint32_t n_offsets; /* of 8 bytes, in the array behind the header; not all of them used */
	uint32_t
		n_normal; /* pages whose bytes follow the offsets: the first offsets of the array */
	uint32_t n_zero;  /* pages of zeros: the next offsets; QEMU 9.0 and later */
	uint32_t data_bytes; /* that follow the offsets */
	uint64_t number;
	char block[256]; /* printable; empty in packets without pages */
};

/* -EPROTO: not a multifd channel. */
int multifd_hello_decode(const uint8_t bytes[MULTIFD_HELLO_BYTES], uint8_t *channel_id,
			 struct ramlift_error *error);

/*
 * After 0 n_normal + n_zero <= n_offsets <= MULTIFD_MAX_PAGES, data_bytes belongs to n_normal, and
 * there is a block's name if there are pages. -EPROTO: damaged; -EOPNOTSUPP: a packet that Ramlift
 * cannot carry: the sentence says what to switch off.
 */
int multifd_header_decode(const uint8_t bytes[MULTIFD_HEADER_BYTES], struct multifd_packet *packet,
			  struct ramlift_error *error);

/* Are all of the packet's offsets page aligned and inside a block of this size? -EPROTO. */
int multifd_offsets_check(const uint8_t *offsets, const struct multifd_packet *packet,
			  uint64_t block_bytes, struct ramlift_error *error);

/* Offset i in bytes, i < n_normal + n_zero; offsets is the array behind the header. */
uint64_t multifd_offset(const uint8_t *offsets, unsigned i);

/* The destination QEMU waits for one of these on each channel. It may have pages as well. */
bool multifd_is_sync(const struct multifd_packet *packet);

/*
 * Rewrite a packet's header and offsets in place as a packet without pages, with the same flags and
 * number: the pages' bytes must not be passed on then.
 */
void multifd_strip(uint8_t *header_and_offsets, const struct multifd_packet *packet);

#endif
