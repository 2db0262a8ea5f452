/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control channel: whole messages over one connection, with a heartbeat.
 *
 * A thread of its own reads, answers pings and sends them, so that liveness does not depend on what
 * the session's thread is doing. Whether the connection is encrypted is the stream's business: what
 * is above sees messages only.
 */
#ifndef CORE_CHANNEL_H
#define CORE_CHANNEL_H

#include "core/address.h"
#include "core/stream.h"
#include "core/wire.h"

struct channel;

struct message {
	enum message_type type;
	uint32_t length_bytes;
	uint8_t payload[];
};

/*
 * Take over a stream (also on failure). Silence of heartbeat_ns counts as
 * the peer's death. -ENOMEM, -EAGAIN.
 */
int channel_open(struct stream *stream, uint64_t heartbeat_ns, struct channel **channel,
		 struct ramlift_error *error);

/* Any thread. Blocks until the kernel has taken it; -ETIMEDOUT after a heartbeat, -ECONNRESET,
 * -EPIPE... */
int channel_send(struct channel *channel, enum message_type type, const void *payload,
		 uint32_t length_bytes, struct ramlift_error *error);

/*
 * The same for a payload from one of the encoders, which is freed; NULL means that there was no
 * memory for it.
 */
int channel_send_owned(struct channel *channel, enum message_type type, void *payload,
		       uint32_t length_bytes, struct ramlift_error *error);

/*
 * The next message, which the caller frees. The session's thread. -ETIMEDOUT at the deadline (error
 * untouched), -ECANCELED when interrupt_fd became readable, else why the channel is dead:
 * -ECONNRESET, -EPROTO, -EHOSTDOWN...
 */
int channel_receive(struct channel *channel, uint64_t deadline_ns, int interrupt_fd,
		    struct message **message, struct ramlift_error *error);

/* Let channel_receive() return -ETIMEDOUT now, or at its next call. Any thread. */
void channel_wake(struct channel *channel);

/* Readable from the peer's ABORT on, and once the channel is dead: nothing else is worth waiting
 * for. channel_receive() tells why. */
int channel_over_fd(const struct channel *channel);

/* This side's address of the connection. */
int channel_local_address(struct channel *channel, struct address *address);

/* The connection below, to ask who the peer is and for a secret; the channel's. */
struct stream *channel_stream(struct channel *channel);

/*
 * What protects the session's lanes as this connection is: *lane_secret becomes secret, which the
 * caller wipes in the end, or NULL where the connection is plain. -ENOMEM.
 */
int channel_lane_secret(struct channel *channel, uint8_t secret[STREAM_SECRET_BYTES],
			const uint8_t **lane_secret, struct ramlift_error *error);

/* The shortest round trip so far; 0 before the first. Any thread. */
uint64_t channel_rtt_ns(struct channel *channel);

/* Let what was sent arrive (for a moment), then close and free. NULL is fine. */
void channel_close(struct channel *channel);

#endif
