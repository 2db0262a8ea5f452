/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control channel's messages as bytes. docs/protocol.md describes them; the two change
 * together.
 *
 * A frame is an 8-byte header (magic, version, type, zero, length of the payload) and the payload.
 * All numbers are big-endian. Decoders take any bytes: they check every length, count and enum, and
 * refuse what is left over. No I/O, no state.
 */
#ifndef CORE_WIRE_H
#define CORE_WIRE_H

#include <stdint.h>

#include "core/ramlift.h"
#include "core/transport.h"

#define WIRE_MAGIC	  0x52u
#define WIRE_VERSION	  3u
#define WIRE_HEADER_BYTES 8u

#define WIRE_MAX_MACHINE_BYTES	(64u << 10)
#define WIRE_MAX_STATE_BYTES	(16u << 20)
#define WIRE_MAX_STREAM_BYTES	(256u << 10)
#define WIRE_MAX_NUMA_NODES	1024
#define WIRE_MAX_STREAMS	(RAMLIFT_MAX_LANES + 1u)
#define WIRE_MAX_TRANSPORTS	4u
#define WIRE_MAX_TRANSPORT_NAME 16u /* with the final NUL */

enum message_type {
	MESSAGE_OFFER = 1, /* source: this is the guest */
	MESSAGE_ACCEPT,	   /* destination: it exists here, connect your lanes */
	MESSAGE_SLICE_KEY, /* destination: this slice is registered */
	MESSAGE_ABORT,	   /* either: the session has failed, and why */
	MESSAGE_PING,	   /* either, answered by the channel itself */
	MESSAGE_PONG,
	MESSAGE_FINAL,	     /* source: everything is on its way; tokens, state, digest */
	MESSAGE_PREPARED,    /* destination: fenced and loaded, digest compared */
	MESSAGE_COMMIT,	     /* source: the guest is yours */
	MESSAGE_STARTED,     /* destination: it runs */
	MESSAGE_STREAM,	     /* either: a piece of another program's stream that is carried */
	MESSAGE_REGISTER,    /* source: register this slice */
	MESSAGE_RETIRE,	     /* source: no longer; nothing of it is in flight */
	MESSAGE_LANE_LOST,   /* source: this lane is dead; kill your end of it */
	MESSAGE_LANE_FENCED, /* destination: nothing of that lane can arrive any more */
	MESSAGE_ASK,	     /* source, in doubt, on a connection of its own: what became of it? */
	MESSAGE_ANSWER,	     /* destination: this, and so it stays */
	MESSAGE_TYPE_COUNT
};

struct wire_header {
	enum message_type type;
	uint32_t length_bytes;
};

struct offer {
	uint8_t session_id[SESSION_ID_BYTES];
	uint32_t generation;
	bool verify;
	uint8_t n_rails;
	uint16_t n_lanes; /* of all rails */
	uint64_t slice_bytes;
	uint64_t pin_budget_bytes; /* never more than this is registered at once; 0: all may be */
	char name[RAMLIFT_MAX_NAME];
	unsigned n_transports;
	char transports[WIRE_MAX_TRANSPORTS][WIRE_MAX_TRANSPORT_NAME];
	unsigned n_regions;
	struct ramlift_region regions[RAMLIFT_MAX_REGIONS]; /* gpa, size, page size and
							       node travel */
	const void *machine; /* after decoding: points into the payload */
	uint32_t machine_bytes;
};

/* Where the lanes of a rail connect. */
enum rail_family {
	RAIL_FAMILY_CONTROL, /* the control connection's address */
	RAIL_FAMILY_INET,
	RAIL_FAMILY_INET6,
	RAIL_FAMILY_COUNT
};

struct rail_address {
	enum rail_family family;
	uint8_t bytes[16]; /* the first 4 for INET */
	uint16_t port;
};

struct accept {
	uint8_t transport;   /* index into the offer's */
	bool fresh;	     /* memory reads as zeros */
	uint32_t journal_us; /* what a synced line of its journal takes */
	unsigned n_rails;
	struct rail_address rails[RAMLIFT_MAX_RAILS];
};

struct register_message {
	uint32_t slice;
	unsigned rails; /* bit r: rail r */
};

struct retire_message {
	uint32_t slice;
};

struct slice_key_message {
	uint32_t slice;
	struct slice_key key;
};

struct abort_message {
	int code; /* negative errno */
	char text[sizeof(((struct ramlift_error *)0)->text)];
};

struct lane_message { /* LANE_LOST, LANE_FENCED */
	uint16_t lane;
};

struct ask {
	uint8_t session_id[SESSION_ID_BYTES];
	uint32_t generation;
	char name[RAMLIFT_MAX_NAME];
};

enum answer_word {
	ANSWER_STARTED, /* the guest was started there */
	ANSWER_NEVER,	/* it was not, and never will be */
	ANSWER_PENDING, /* the session still lives there: ask again */
	ANSWER_UNKNOWN, /* this journal does not know that session */
	ANSWER_COUNT
};

struct answer {
	enum answer_word word;
};

struct final {
	bool verify;
	uint64_t digest;
	unsigned n_lanes;		    /* 1 to RAMLIFT_MAX_LANES */
	uint64_t tokens[RAMLIFT_MAX_LANES]; /* by lane; 0: it was lost */
	const void *state;		    /* after decoding: points into the payload */
	uint32_t state_bytes;
};

struct prepared {
	uint64_t digest; /* 0 without verify */
	uint64_t fence_ns, verify_ns, load_ns;
};

struct commit {
	uint8_t session_id[SESSION_ID_BYTES];
	uint32_t generation;
};

struct started {
	uint64_t start_ns;
};

struct stream_piece {
	uint16_t stream;   /* below WIRE_MAX_STREAMS; 0 is the main one */
	const void *bytes; /* after decoding: points into the payload */
	uint32_t n_bytes;  /* at most WIRE_MAX_STREAM_BYTES; 0: the stream has ended */
};

/* The word for a type, for error texts; "unknown". */
const char *message_name(enum message_type type);

void wire_header_encode(const struct wire_header *header, uint8_t bytes[WIRE_HEADER_BYTES]);

/* -EPROTO: not a frame of this protocol, another version, or longer than this type may be. */
int wire_header_decode(const uint8_t bytes[WIRE_HEADER_BYTES], struct wire_header *header,
		       struct ramlift_error *error);

/*
 * Encoders return the payload in memory from malloc() (length in *length_bytes), or NULL without
 * memory. Decoders return 0 or -EPROTO; what they give out is within the bounds above, nothing more
 * is promised of it.
 */
void *offer_encode(const struct offer *offer, uint32_t *length_bytes);
int offer_decode(const void *payload, uint32_t length_bytes, struct offer *offer);
void *accept_encode(const struct accept *accept, uint32_t *length_bytes);
int accept_decode(const void *payload, uint32_t length_bytes, struct accept *accept);
void *register_encode(const struct register_message *message, uint32_t *length_bytes);
int register_decode(const void *payload, uint32_t length_bytes, struct register_message *message);
void *retire_encode(const struct retire_message *message, uint32_t *length_bytes);
int retire_decode(const void *payload, uint32_t length_bytes, struct retire_message *message);
void *slice_key_encode(const struct slice_key_message *message, uint32_t *length_bytes);
int slice_key_decode(const void *payload, uint32_t length_bytes, struct slice_key_message *message);
void *abort_encode(const struct abort_message *abort, uint32_t *length_bytes);
int abort_decode(const void *payload, uint32_t length_bytes, struct abort_message *abort);
void *lane_message_encode(const struct lane_message *message, uint32_t *length_bytes);
int lane_message_decode(const void *payload, uint32_t length_bytes, struct lane_message *message);
void *ask_encode(const struct ask *ask, uint32_t *length_bytes);
int ask_decode(const void *payload, uint32_t length_bytes, struct ask *ask);
void *answer_encode(const struct answer *answer, uint32_t *length_bytes);
int answer_decode(const void *payload, uint32_t length_bytes, struct answer *answer);
void *final_encode(const struct final *final, uint32_t *length_bytes);
int final_decode(const void *payload, uint32_t length_bytes, struct final *final);
void *prepared_encode(const struct prepared *prepared, uint32_t *length_bytes);
int prepared_decode(const void *payload, uint32_t length_bytes, struct prepared *prepared);
void *commit_encode(const struct commit *commit, uint32_t *length_bytes);
int commit_decode(const void *payload, uint32_t length_bytes, struct commit *commit);
void *started_encode(const struct started *started, uint32_t *length_bytes);
int started_decode(const void *payload, uint32_t length_bytes, struct started *started);
void *stream_piece_encode(const struct stream_piece *piece, uint32_t *length_bytes);
int stream_piece_decode(const void *payload, uint32_t length_bytes, struct stream_piece *piece);

#endif
