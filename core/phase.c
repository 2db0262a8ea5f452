/* SPDX-License-Identifier: Apache-2.0 */
#include "core/phase.h"

#define TO(phase) (1u << RAMLIFT_PHASE_##phase)
#define MSG(type) (1u << MESSAGE_##type)

static const struct {
	const char *name;
	unsigned next;
	unsigned accepts[2]; /* by enum side */
} phases[RAMLIFT_PHASE_COUNT] = {
	[RAMLIFT_PHASE_IDLE] = {
		.name = "idle",
		.next = TO(PREFLIGHT) | TO(FAILED),
	},
	[RAMLIFT_PHASE_PREFLIGHT] = {
		.name = "preflight",
		.next = TO(PREPARE) | TO(FAILED),
		.accepts = {
			[SIDE_SOURCE] = MSG(ACCEPT) | MSG(ABORT),
			/* A connection's first word; after ASK there is no session. */
			[SIDE_DESTINATION] = MSG(OFFER) | MSG(ASK) | MSG(ABORT),
		},
	},
	[RAMLIFT_PHASE_PREPARE] = {
		.name = "prepare",
		.next = TO(STREAM) | TO(FAILED),
		.accepts = {
			[SIDE_SOURCE] = MSG(SLICE_KEY) | MSG(ABORT),
			[SIDE_DESTINATION] = MSG(ABORT),
		},
	},
	[RAMLIFT_PHASE_STREAM] = {
		.name = "stream",
		.next = TO(STOP_AND_COPY) | TO(HAND_OVER) | TO(FAILED),
		.accepts = {
			[SIDE_SOURCE] = MSG(SLICE_KEY) | MSG(LANE_FENCED) | MSG(STREAM) | MSG(ABORT),
			[SIDE_DESTINATION] = MSG(REGISTER) | MSG(RETIRE) | MSG(LANE_LOST) |
					      MSG(FINAL) | MSG(STREAM) | MSG(ABORT),
		},
	},
	[RAMLIFT_PHASE_STOP_AND_COPY] = {
		/* The source's own: the destination learns of it by FINAL. */
		.name = "stop-and-copy",
		.next = TO(HAND_OVER) | TO(FAILED),
		.accepts = { [SIDE_SOURCE] = MSG(SLICE_KEY) | MSG(STREAM) | MSG(ABORT) },
	},
	[RAMLIFT_PHASE_HAND_OVER] = {
		.name = "hand-over",
		.next = TO(COMMITTED) | TO(FAILED),
		.accepts = {
			[SIDE_SOURCE] = MSG(PREPARED) | MSG(STREAM) | MSG(ABORT),
			[SIDE_DESTINATION] = MSG(COMMIT) | MSG(STREAM) | MSG(ABORT),
		},
	},
	[RAMLIFT_PHASE_COMMITTED] = {
		/* FAILED only by the destination's word that its guest has not run and never will. */
		.name = "committed",
		.next = TO(DONE) | TO(FAILED) | TO(IN_DOUBT),
		.accepts = { [SIDE_SOURCE] = MSG(STARTED) | MSG(STREAM) | MSG(ABORT) },
	},
	[RAMLIFT_PHASE_DONE] = { .name = "done" },
	[RAMLIFT_PHASE_FAILED] = { .name = "failed" },
	[RAMLIFT_PHASE_IN_DOUBT] = {
		/* Settled by the destination's word, on a connection of its own, or an operator's. */
		.name = "in-doubt",
		.next = TO(DONE) | TO(FAILED),
		.accepts = { [SIDE_SOURCE] = MSG(ANSWER) | MSG(ABORT) },
	},
};

const char *ramlift_phase_name(enum ramlift_phase phase)
{
	return (unsigned)phase < RAMLIFT_PHASE_COUNT ? phases[phase].name : "unknown";
}

bool phase_may_follow(enum ramlift_phase from, enum ramlift_phase to)
{
	return phases[from].next & 1u << to;
}

bool phase_accepts(enum ramlift_phase phase, enum side side, enum message_type type)
{
	return phases[phase].accepts[side] & 1u << type;
}
