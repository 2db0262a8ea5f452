/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The phases of a session: the one table of what may follow what, and of which messages each side
 * takes in which phase. docs/protocol.md draws it.
 */
#ifndef CORE_PHASE_H
#define CORE_PHASE_H

#include "core/ramlift.h"
#include "core/wire.h"

enum side { SIDE_SOURCE, SIDE_DESTINATION };

bool phase_may_follow(enum ramlift_phase from, enum ramlift_phase to);

/* May this side receive a message of that type now? */
bool phase_accepts(enum ramlift_phase phase, enum side side, enum message_type type);

#endif
