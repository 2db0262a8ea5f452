/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes wrong in a run: a few misfortunes, drawn from the seed, each at the nth passing of some
 * point. Processes die or stand still, hosts lose power, disks are full, calls and lanes fail,
 * networks break, frames are lost, doubled or late, strangers repeat what they have overheard.
 */
#ifndef TESTS_SIMULATION_ADVERSARY_H
#define TESTS_SIMULATION_ADVERSARY_H

#include <stdbool.h>

#include "host.h"
#include "scheduler.h"

enum action {
	ACTION_KILL,
	ACTION_POWER_OFF,
	ACTION_STOP,
	ACTION_RESET,
	ACTION_PARTITION,
	ACTION_DROP,
	ACTION_DOUBLE,
	ACTION_DELAY,
	ACTION_INSERT, /* an older or forged frame behind it */
	ACTION_CALL,
	ACTION_DISK_FULL,
	ACTION_LANE,
	ACTION_CANCEL,
	ACTION_REPLAY,
	ACTION_COUNT
};

/* Draw the misfortunes of a run; with none, nothing goes wrong. */
void adversary_begin(bool harmless);
void adversary_end(void);

/* From now on nothing goes wrong, and what is broken and can be mended is. */
void adversary_rest(void);
bool adversary_rests(void);

/* A lane will break while pages flow. */
bool adversary_breaks_lanes(void);

/* The frames that went to the destination, for whoever wants to repeat them. */
struct overheard {
	unsigned connection;
	enum message_type type;
	uint8_t *bytes;
	uint32_t n_bytes;
};
unsigned adversary_overheard(const struct overheard **frames);

/* Set by the scenario: the process of a side, or NULL; cancel its session; let a stranger in. */
extern struct process *(*side_process)(bool source);
extern void (*cancel_side)(bool source);
extern void (*let_stranger_in)(void);

/* The scenario's look at each frame, before its fate is decided. */
extern void (*frame_seen)(const struct frame *frame);

#endif
