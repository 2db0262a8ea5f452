/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place where threads wait for a condition that a lock guards, without that lock: pthread's
 * condition variables make whoever wakes some threads wait for those of an earlier wake-up, and all
 * who wake up take the lock one after the other. Knows nothing of vCPUs.
 *
 *	waits:  lock; while (!condition) { seen = gate_ticket(); unlock; gate_wait(seen); lock; }
 *	wakes:  lock; condition = true; gate_turn(); unlock; gate_wake()
 */
#ifndef KVM_VMM_GATE_H
#define KVM_VMM_GATE_H

#include <stdatomic.h>
#include <stdint.h>

#define GATE_ALL   INT32_MAX
#define GATE_NEVER UINT64_MAX

struct gate {
	_Atomic uint32_t turns;
};

/* What to give to gate_wait(); under the lock, before or after the condition is looked at. */
static inline uint32_t gate_ticket(const struct gate *gate)
{
	return atomic_load(&gate->turns);
}

/* The condition has changed; under the lock. */
static inline void gate_turn(struct gate *gate)
{
	atomic_fetch_add(&gate->turns, 1);
}

/* Until the gate has turned since the ticket was taken, or until a time, or for no reason. */
void gate_wait(struct gate *gate, uint32_t ticket, uint64_t until_ns);

/* At most so many of those who wait. */
void gate_wake(struct gate *gate, int most);

#endif
