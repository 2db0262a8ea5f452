/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of inlet.h: the connections to the destination's waiting QEMU. One thread writes
 * what the session hands it, each stream in its own order, and reads QEMU's return path.
 *
 * QEMU's main thread may wait for a multifd connection while bytes for its main connection pile up,
 * so nothing here ever blocks on one stream: what QEMU does not take yet is kept.
 */
#ifndef KVM_QEMU_OUTLET_H
#define KVM_QEMU_OUTLET_H

#include <stddef.h>
#include <sys/socket.h>

struct outlet;
struct ramlift_destination;
struct ramlift_error;

/* QEMU listens at that address. Connects once there is something to say. -ENOMEM, -EMFILE. */
int outlet_open(const struct sockaddr *address, socklen_t address_bytes,
		struct ramlift_destination *destination, struct outlet **outlet,
		struct ramlift_error *error);

/*
 * Bytes for a stream, copied; none: the stream has ended. One thread. -ENOBUFS: QEMU has not taken
 * OUTLET_MAX_BYTES of what came before; or why a connection failed.
 */
#define OUTLET_MAX_BYTES (256u << 20)
int outlet_write(struct outlet *outlet, unsigned stream, const void *bytes, size_t n_bytes,
		 struct ramlift_error *error);

/* Write what is left, as far as QEMU takes it in time, and close. NULL is fine. */
void outlet_close(struct outlet *outlet);

#endif
