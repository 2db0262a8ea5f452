/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast a vCPU of the test guest works: what to answer when it asks for its next batch. Pure,
 * times come in as arguments. It is not part of the guest's state: after a migration it begins
 * anew.
 */
#ifndef KVM_VMM_VCPU_PACE_H
#define KVM_VMM_VCPU_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct vcpu_pace {
	bool flat_out; /* write without a rate */
	uint64_t writes_per_second;
	uint64_t verifies_per_second;
	uint64_t last_ns;		      /* the batch before; 0: none yet */
	uint64_t write_credit, verify_credit; /* pages times NS_PER_S */
};

/* For one vCPU: hot_pages to write at a rate (0: flat out), all_pages to
 * verify in a few seconds. */
void vcpu_pace_init(struct vcpu_pace *pace, uint64_t hot_pages, uint64_t pages_per_second,
		    uint64_t all_pages);

/* When the next batch is due: not before that time. 0: now. */
uint64_t vcpu_pace_due_ns(const struct vcpu_pace *pace);

/* The answer to GUEST_PORT_BATCH: pages to write in the low half, pages
 * to verify in the high one. */
uint32_t vcpu_pace_batch(struct vcpu_pace *pace, uint64_t now_ns);

#endif
