/* SPDX-License-Identifier: Apache-2.0 */
/* The dirty rings from within: what setting up and harvesting share. */
#ifndef KVM_DIRTY_RING_PRIVATE_H
#define KVM_DIRTY_RING_PRIVATE_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "kvm/dirty_ring.h"
#include "kvm/dirty_slots.h"

struct vcpu_ring {
	struct kvm_dirty_gfn *gfns;
	uint32_t next;	     /* entry to collect next; runs freely, masked when used */
	uint32_t taken;	     /* in the harvest that is going on */
	bool empty;	     /* the harvest that is going on took all there was */
	uint64_t released;   /* harvests that left room; under wait_lock */
	atomic_bool stopped; /* its vCPU waits for room; written under wait_lock */
	uint64_t stopped_ns; /* since when; under wait_lock */
};

struct staged_page {
	uint32_t region;
	uint64_t page;
};

struct ramlift_dirty_ring {
	struct dirty_slots slots;
	uint32_t entries;
	unsigned n_rings;
	struct vcpu_ring *rings;

	pthread_mutex_t harvest_lock;
	struct ramlift_dirty_sink *sink; /* NULL: not started, entries are thrown away */
	struct staged_page *stage;	 /* collected, not yet published; room for all rings */
	size_t n_staged;
	uint64_t pages_per_second; /* 0: no limit */
	int64_t allowance;	   /* entries that may be taken now, under a limit; below 0: debt */
	uint64_t allowance_ns;	   /* when it was last topped up */
	int harvest_ret;	   /* what the harvest thread ran into */
	_Atomic uint64_t strays;

	pthread_mutex_t wait_lock;
	pthread_cond_t room;   /* released has changed, or give_up() may have */
	pthread_cond_t urgent; /* for the harvest thread: full, or quit */
	bool limited;	       /* pages_per_second is set: being full is not urgent */
	bool full;
	bool quit;
	bool started;
	pthread_t thread;
};

#endif
