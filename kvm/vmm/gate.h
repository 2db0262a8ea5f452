/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place where threads wait for a condition that a lock guards, without that lock: pthread's
 * condition variables make whoever wakes some threads wait for those of an earlier wake-up. Knows
 * nothing of vCPUs.
 *
 *	waits:  lock; while (!condition) { seen = gate_ticket(); unlock; gate_wait(seen); lock; }
 *	opens:  lock; condition = true; gate_turn(); unlock; gate_wake_all()
 *
 * Whoever opens it for all wakes one thread, and that one wakes the others: with more threads than
 * CPUs the opener would otherwise be pushed aside by the first of them, and be late with what it
 * has to say.
 */
#ifndef KVM_VMM_GATE_H
#define KVM_VMM_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define GATE_NEVER UINT64_MAX

/* Zeros are one that nobody has opened yet. */
struct gate {
	_Atomic uint32_t turns;
	atomic_bool to_pass_on; /* the last turn was for all, and only one was woken so far */
};

/* What to give to gate_wait(); under the lock. */
static inline uint32_t gate_ticket(const struct gate *gate)
{
	return atomic_load(&gate->turns);
}

/* The condition has changed; under the lock. */
static inline void gate_turn(struct gate *gate)
{
	atomic_fetch_add(&gate->turns, 1);
}

/* After gate_turn(): wake all who wait, or at most so many. */
void gate_wake_all(struct gate *gate);
void gate_wake_some(struct gate *gate, unsigned most);

/* Until the gate has turned since the ticket was taken, or until a time, or for no reason. */
void gate_wait(struct gate *gate, uint32_t ticket, uint64_t until_ns);

#endif
