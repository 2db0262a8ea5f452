/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of a session, played message by message, with memory of its own. */
#ifndef TESTS_UNIT_CORE_IMPOSTOR_H
#define TESTS_UNIT_CORE_IMPOSTOR_H

#include "core/channel.h"
#include "session_pair.h"

#define LONG_NS	    (clock_now_ns() + 60 * NS_PER_S) /* against hangs only */
#define SLICE_BYTES (1ull << 20)
#define N_SLICES    6u

/* The side that this test plays. */
struct impostor {
	struct channel *channel;
	struct endpoint *endpoint;
	struct slice slices[N_SLICES];
	char *memory;
	struct transport_params params;
};

void impostor_init(struct impostor *impostor);
void impostor_fini(struct impostor *impostor);

/* host: of the destination; NULL: this is it. */
void open_channel(struct impostor *impostor, int fd, const char *host);

/* The payload is the channel's. */
void say(struct impostor *impostor, enum message_type type, void *payload, uint32_t length);
void say_lane(struct impostor *impostor, enum message_type type, unsigned lane);

/* The next message, which must be of that type, to be freed. */
struct message *hear(struct impostor *impostor, enum message_type type);

#endif
