/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting and waking by futex; see the header. */
#include "kvm/vmm/gate.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"

/* How many it woke. */
static long wake(struct gate *gate, unsigned most)
{
	return syscall(SYS_futex, &gate->turns, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}

void gate_wake_all(struct gate *gate)
{
	atomic_store(&gate->to_pass_on, true);
	/* With nobody there, it is not for those who come later. */
	if (wake(gate, 1) == 0)
		atomic_store(&gate->to_pass_on, false);
}

void gate_wake_some(struct gate *gate, unsigned most)
{
	if (most) /* the kernel takes 0 for 1 */
		wake(gate, most);
}

void gate_wait(struct gate *gate, uint32_t ticket, uint64_t until_ns)
{
	struct timespec until = clock_timespec(until_ns);

	/* This form takes an absolute time, of CLOCK_MONOTONIC. */
	syscall(SYS_futex, &gate->turns, FUTEX_WAIT_BITSET_PRIVATE, ticket,
		until_ns == GATE_NEVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
	/* Whatever ended the wait: it may have been the one wake-up for all. */
	if (atomic_exchange(&gate->to_pass_on, false))
		wake(gate, INT32_MAX);
}
