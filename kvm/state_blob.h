/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format of a guest's state outside RAM: a header, then sections of known kinds with bounded
 * lengths. Pure: no ioctls, so that it can be tested and fuzzed with any bytes.
 *
 *      header   magic 8 | version 4 | vCPUs 4 | sections 4 | total length 4
 *      section  kind 2 | vCPU 2 | length 4 | the bytes
 *
 * Numbers are little-endian. A section's bytes are KVM's structure for it, which x86-64 fixes.
 */
#ifndef KVM_STATE_BLOB_H
#define KVM_STATE_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ramlift_error;

#define STATE_MAX_VCPUS 1024u
#define STATE_MAX_BYTES (16u << 20) /* what the engine takes */

enum state_kind {
	STATE_CLOCK, /* of the whole VM; all others are of one vCPU */
	STATE_TSC_KHZ,
	STATE_MP_STATE,
	STATE_REGS,
	STATE_SREGS,
	STATE_SREGS2, /* instead of STATE_SREGS */
	STATE_XSAVE,
	STATE_XCRS,
	STATE_MSRS, /* of struct kvm_msr_entry */
	STATE_LAPIC,
	STATE_EVENTS,
	STATE_DEBUGREGS,
	STATE_KIND_COUNT
};

/* A state that is being written. A failure sticks until state_writer_finish() tells. */
struct state_writer {
	uint8_t *bytes;
	size_t used;
	size_t room;
	uint32_t n_vcpus;
	uint32_t n_sections;
	bool failed;
};

void state_writer_init(struct state_writer *writer, unsigned n_vcpus);
void state_writer_add(struct state_writer *writer, enum state_kind kind, unsigned vcpu,
		      const void *bytes, size_t length);

/* Add all sections of a part, which was written beside it and is forgotten. */
void state_writer_join(struct state_writer *writer, struct state_writer *part);

/* Hand the state over, in memory from malloc(), and forget it. -ENOMEM, -E2BIG. */
int state_writer_finish(struct state_writer *writer, void **state, size_t *state_bytes);
void state_writer_abandon(struct state_writer *writer);

/* Points into the state that it was made from; bytes NULL: no such section. Not aligned. */
struct state_section {
	const uint8_t *bytes;
	size_t length;
};

struct state_vcpu {
	struct state_section sections[STATE_KIND_COUNT];
};

struct state_view {
	unsigned n_vcpus;
	struct state_section clock;
	struct state_vcpu *vcpus;
};

/*
 * Check a state from the peer and say where its sections are. After 0 each section has a length
 * that is right for its kind, and each vCPU has all that a vCPU must have. -EINVAL, -ENOMEM.
 */
int state_view_init(struct state_view *view, const void *state, size_t state_bytes,
		    unsigned n_vcpus, struct ramlift_error *error);
void state_view_fini(struct state_view *view);

#endif
