/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPUs with a thread each, and how they are all stopped at once.
 *
 * A pause raises `paused`, sets immediate_exit in every kvm_run and signals every thread, without
 * waiting between one and the next. A thread parks only after KVM_RUN has returned EINTR: by then
 * KVM has completed an I/O exit that was half done, so that the state can be saved.
 *
 * Parked threads take tasks: so the state of all vCPUs is saved and loaded on several CPUs at once,
 * without a thread that is made for it.
 */
#ifndef KVM_VMM_VCPU_H
#define KVM_VMM_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvm/vmm/gate.h"
#include "kvm/vmm/machine.h"
#include "kvm/vmm/vcpu_pace.h"

struct kvm_run;
struct ramlift_dirty_ring;
struct vcpus;

struct vcpu {
	struct vcpus *all;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool has_thread;
	bool parked; /* out of KVM_RUN until it is resumed; under lock */
	bool dead;   /* for good; under lock */
	char last_words[96];
	struct vcpu_pace pace; /* of the thread alone */
};

struct vcpus {
	unsigned n;
	size_t run_bytes; /* of struct kvm_run; set before vcpus_add() */
	struct vcpu list[MACHINE_MAX_VCPUS];
	struct ramlift_dirty_ring *ring; /* set before the first resume; NULL without rings */
	pthread_mutex_t lock;
	pthread_cond_t parked; /* one more has parked, or all of the task is done */
	struct gate gate;      /* paused, quit or next has changed */
	atomic_bool paused;    /* written under lock */
	bool quit;	       /* under lock */
	unsigned n_cpus;       /* that this process may run on */
	unsigned next;	       /* vCPU to begin the task for; under lock, as what follows */
	unsigned n_done;       /* vCPUs that it is done for */
	void (*task)(void *context, unsigned vcpu);
	void *task_context;
	_Atomic uint64_t failures_heard; /* that guests told through the port */
};

/* No vCPUs yet; paused. */
void vcpus_init(struct vcpus *vcpus);

/* Take over a vCPU's file descriptor, also on failure. */
int vcpus_add(struct vcpus *vcpus, int fd, const struct vcpu_pace *pace,
	      struct ramlift_error *error);

/* Start the threads; they park at once. */
int vcpus_start(struct vcpus *vcpus, struct ramlift_error *error);

/* -ETIMEDOUT: a vCPU did not come out of KVM_RUN; then all run again. Idempotent. */
int vcpus_pause(struct vcpus *vcpus, struct ramlift_error *error);
void vcpus_resume(struct vcpus *vcpus);

/* While they are paused: do the task for each vCPU, in parallel, on any thread. Returns once all
 * are done. One caller at a time. */
void vcpus_each(struct vcpus *vcpus, void (*task)(void *context, unsigned vcpu), void *context);

/* End the threads, close the vCPUs. */
void vcpus_fini(struct vcpus *vcpus);

#endif
