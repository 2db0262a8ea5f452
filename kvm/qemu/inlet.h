/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the source's QEMU sends its migration: a port on loopback, its main connection and its
 * multifd connections, a thread for each.
 *
 * Pages of shared blocks are named to the source (carried.h) and their bytes discarded; everything
 * else becomes pieces. What follows the end of the RAM section is held until inlet_release().
 * No more is read than the lanes get through, so that QEMU measures the lanes.
 */
#ifndef KVM_QEMU_INLET_H
#define KVM_QEMU_INLET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/carried.h"
#include "kvm/qemu/stream.h"

struct inlet;

/* How a block of the stream becomes a region of the source: -1: its pages pass through. */
typedef int inlet_region_of(void *context, const struct stream_block *block);

/*
 * Listen on 127.0.0.1 at that port (0: a free one). Only connections of process pid are let in; 0:
 * whoever comes first. -EADDRINUSE...
 */
int inlet_open(uint16_t port, struct inlet **inlet, struct ramlift_error *error);
uint16_t inlet_port(const struct inlet *inlet);

/*
 * Wait for a first connection, whosever it is, and say what it is about to send: the process, and
 * the RAM blocks (room for STREAM_MAX_BLOCKS). Nothing is taken from the stream: inlet_start() then
 * begins with this connection. -ECANCELED once interrupt_fd is readable.
 */
int inlet_peek(struct inlet *inlet, int interrupt_fd, pid_t *pid, struct stream_block *blocks,
	       unsigned *n_blocks, struct ramlift_error *error);

/* Take connections of QEMU, process pid, from now on, and read them. */
int inlet_start(struct inlet *inlet, pid_t pid, struct ramlift_source *source,
		inlet_region_of *region_of, void *context, struct ramlift_error *error);

/* Bytes of the return path, for QEMU's main connection; none: it has
 * ended. The session's thread. */
int inlet_write(struct inlet *inlet, const void *bytes, size_t n_bytes,
		struct ramlift_error *error);

/* 0, or why a connection broke or could not be understood. Any thread. */
int inlet_check(struct inlet *inlet, struct ramlift_error *error);

/*
 * Every page has been named: the RAM section has ended, and every multifd connection has been read
 * up to the synchronisation that belongs to its end. *since_ns: when the section ended. Any thread.
 */
bool inlet_complete(struct inlet *inlet, uint64_t *since_ns);

/* How far ahead of the lanes the inlet may read. Any thread. */
void inlet_set_window(struct inlet *inlet, uint64_t bytes);

/* Let pass what follows the RAM section. */
void inlet_release(struct inlet *inlet);

/* QEMU has closed its main connection, and everything before that was sent on. */
bool inlet_ended(struct inlet *inlet);

/* Break all connections and wait for the threads. Idempotent. */
void inlet_stop(struct inlet *inlet);

/* Stops, too. NULL is fine. */
void inlet_close(struct inlet *inlet);

#endif
