/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest without a VM: plain memory, a thread that writes it, and write tracking that behaves like
 * KVM's: a page is protected, the first write to it is noted and lifts the protection, a reset
 * protects it again.
 */
#ifndef TESTS_FAKE_GUEST_H
#define TESTS_FAKE_GUEST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/ramlift.h"

struct fake_guest {
	struct ramlift_region regions[2];
	unsigned n_regions;
	uint64_t n_pages; /* of all regions */

	/* the writer */
	pthread_t thread;
	bool has_thread;
	atomic_bool quit, run;
	atomic_bool parked;
	uint64_t hot_pages; /* it keeps writing the first so many; 0: idle */
	unsigned nap_us;    /* between two writes */
	uint64_t last_page; /* not 0: written once more, the moment before it is paused */
	_Atomic uint64_t n_writes;

	/* tracking: like a KVM host's, a thread harvests all the time, and harvest() waits for its
	 * turn */
	pthread_t harvester;
	pthread_mutex_t harvest_lock;
	pthread_mutex_t lock; /* a write, or a reset */
	atomic_bool tracking;
	bool paused;
	bool *protected_;
	uint64_t *noted;
	uint64_t n_noted;
	struct ramlift_dirty_sink *sink;
	bool break_rule_1; /* publish before reset, and dawdle in between */

	/* what was asked of it */
	int pauses, resumes, saves, loads, starts, stops, creates, discards;
	int fail_create, fail_pause, fail_save, fail_load, fail_resume, fail_harvest; /* -errno */
	uint64_t state; /* what save_state() and load_state() carry */
	bool created;	/* regions are from create() */
};

/* size_bytes of RAM in two regions with a hole in the address space, all pages stamped but the last
 * quarter. */
void fake_guest_init(struct fake_guest *guest, uint64_t size_bytes);
void fake_guest_start_writer(struct fake_guest *guest, uint64_t hot_pages, unsigned nap_us);
/* Write one page, which tracking sees. */
void fake_guest_write(struct fake_guest *guest, uint64_t page, uint64_t generation);
/* How much memory is there behind the regions, in bytes. */
uint64_t fake_guest_populated_bytes(const struct fake_guest *guest);
/* A device of the VMM is at work, which tracking does not see: a pause waits until it has written
 * and told so. False when the guest is paused: it must not. */
bool fake_guest_device_begin(struct fake_guest *guest);
void fake_guest_device_end(struct fake_guest *guest);
void fake_guest_fini(struct fake_guest *guest);
bool fake_guest_same_ram(const struct fake_guest *a, const struct fake_guest *b);

extern const struct ramlift_guest_ops fake_guest_ops;
extern const struct ramlift_dirty_source_ops fake_dirty_ops;

#endif
