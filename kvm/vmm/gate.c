/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting and waking by futex; see the header. */
#include "kvm/vmm/gate.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"

void gate_wait(struct gate *gate, uint32_t ticket, uint64_t until_ns)
{
	struct timespec until = clock_timespec(until_ns);

	/* This form takes an absolute time, of CLOCK_MONOTONIC. */
	syscall(SYS_futex, &gate->turns, FUTEX_WAIT_BITSET_PRIVATE, ticket,
		until_ns == GATE_NEVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
}

void gate_wake(struct gate *gate, int most)
{
	syscall(SYS_futex, &gate->turns, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}
