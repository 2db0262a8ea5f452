/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the inlet share: a QEMU that writes what it is told to, and an inlet with the
 * engine's fake behind it. */
#ifndef TESTS_UNIT_KVM_INLET_FIXTURE_H
#define TESTS_UNIT_KVM_INLET_FIXTURE_H

#include "fake_carried.h"
#include "kvm/qemu/inlet.h"
#include "kvm/qemu/multifd.h"
#include "stream_fixture.h"

#define PACKET_BYTES (MULTIFD_HEADER_BYTES + MULTIFD_OFFSETS_BYTES)

struct bench {
	struct ramlift_source source;
	struct inlet *inlet;
	struct ramlift_error error;
	int fds[8]; /* QEMU's ends, in the order in which they connected */
	unsigned n_fds;
};

/* An inlet that waits for connections of this process. Blocks "ram" and "second" are regions 0
 * and 1, others pass. */
void bench_open(struct bench *bench);
void bench_start(struct bench *bench);
void bench_init(struct bench *bench); /* both */
void bench_fini(struct bench *bench);

/* QEMU connects once more; its end. */
int bench_connect(struct bench *bench);
void bench_send(int fd, const struct bytes *bytes, size_t from, size_t n);
void bench_send_all(int fd, const struct bytes *bytes);
void bench_disconnect(struct bench *bench, unsigned connection);

void bench_await_named(struct bench *bench, unsigned n_pages);
void bench_await_bytes(struct bench *bench, unsigned stream, size_t n_bytes);
void bench_await_end(struct bench *bench, unsigned stream);
void bench_await_complete(struct bench *bench);
void bench_await_turned_away(int fd);
/* The inlet fails, with these words. Its code. */
int bench_await_failure(struct bench *bench, const char *words);
bool bench_complete(struct bench *bench);
/* Some thread has looked for room again and again: what it was to do before that is done. */
void bench_await_looks(struct bench *bench);

/* The stream has got these bytes and no others. */
void bench_assert_bytes(struct bench *bench, unsigned stream, const void *bytes, size_t n_bytes);

/* Packets of a channel. flags 1: a synchronisation. pages: n_normal, then n_zero of them. The
 * bytes of the pages are 0x5a. */
void put_hello(struct bytes *bytes, unsigned channel);
void put_packet(struct bytes *bytes, unsigned flags, const char *block, unsigned first_page,
		unsigned n_normal, unsigned n_zero);

/* put_ram_begins() and the end of the table's section: one synchronisation. */
void put_beginning(struct bytes *bytes);
/* The RAM section's END: one more. */
void put_ending(struct bytes *bytes);

#endif
