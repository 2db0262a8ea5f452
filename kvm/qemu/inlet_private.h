/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the inlet: inlet.c listens and knows when all is there, inlet_main.c and inlet_multifd.c
 * read one connection each. */
#ifndef KVM_QEMU_INLET_PRIVATE_H
#define KVM_QEMU_INLET_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/ramlift.h"
#include "core/wire.h"
#include "kvm/qemu/inlet.h"

/* One of QEMU's connections. */
struct inlet_connection {
	struct inlet *inlet;
	unsigned stream; /* 0: main; others in the order in which they came */
	int fd;
	pthread_t thread;
	uint64_t unwoken_bytes; /* named since lanes were last woken; the connection's own */
	/* multifd: synchronisation packets that were passed on; no more will come */
	_Atomic uint64_t syncs;
	atomic_bool ended;
};

struct inlet {
	int listen_fd;
	int stop_fd;   /* readable: everything ends */
	int peeked_fd; /* the main connection, after inlet_peek(); else -1 */
	uint16_t port;
	pid_t pid;
	struct ramlift_source *source;
	inlet_region_of *region_of;
	void *context;
	pthread_t acceptor;
	bool accepting;
	atomic_bool taking; /* the acceptor is at it */
	_Atomic uint64_t window_bytes;

	pthread_mutex_t lock; /* of the below */
	pthread_cond_t changed;
	struct inlet_connection connections[WIRE_MAX_STREAMS];
	unsigned n_connections;
	struct qemu_stream *stream;	   /* set at the main connection's end, freed by stop */
	const struct stream_block *blocks; /* the stream's; NULL before its table came */
	unsigned n_blocks;
	int regions[STREAM_MAX_BLOCKS]; /* of each block; -1: passes through */
	bool ram_ended, released, main_ended, stopping;
	uint64_t ram_end_ns;
	uint64_t expected_syncs; /* of each multifd connection; known once ram_ended */
	struct ramlift_error error;
};

/* Threads of the connections; argument: struct inlet_connection. */
void *inlet_main_run(void *argument);
void *inlet_multifd_run(void *argument);

/* Record the first failure, and let the session see it. */
void inlet_fail(struct inlet *inlet, const struct ramlift_error *error);

/* Pages were named: wake the lanes once there are enough of them; each tick does so in any case. */
void inlet_named(struct inlet_connection *connection, uint64_t n_pages);
void inlet_wake_lanes(struct inlet_connection *connection);

/* Wait until lanes have caught up; -ECANCELED once the inlet stops. */
int inlet_await_room(struct inlet_connection *connection);

/* Pieces of any size. */
int inlet_pass(struct inlet_connection *connection, const void *bytes, size_t n_bytes,
	       struct ramlift_error *error);

#endif
