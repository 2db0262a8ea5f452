/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam to the VMM: what the engine asks of a guest. Include ramlift.h, not this file.
 *
 * All calls come from the thread that runs the session, never two at a time. Each returns 0 or
 * -errno and then says in error what failed. `guest` is what the configuration gave.
 */
#ifndef RAMLIFT_GUEST_H
#define RAMLIFT_GUEST_H

#include <stddef.h>
#include <stdint.h>

struct ramlift_error;
struct ramlift_region;

/* What the source says of the guest that is to come. Valid during the call only; lengths are
 * checked already. */
struct ramlift_guest_offer {
	const char *name;
	const void *machine; /* what the source's VMM described; check it, it comes from the peer */
	size_t machine_bytes;
	const struct ramlift_region
		*regions; /* gpa, size_bytes and page_size_bytes are set, nothing else */
	unsigned n_regions;
};

struct ramlift_guest_ops {
	/*
	 * Destination: create the guest, paused, with memory that reads as zeros, and set hva,
	 * memfd and memfd_offset of each of the regions (as many as offered, in the same order).
	 * Refuse with -EEXIST, -ENOMEM, -EINVAL...
	 */
	int (*create)(void *guest, const struct ramlift_guest_offer *offer,
		      struct ramlift_region *regions, struct ramlift_error *error);

	/* Destination: the session failed; free what create() made. Called only after a create()
	 * that succeeded. */
	void (*discard)(void *guest);

	/* Source: when it returns 0, no vCPU runs and no device writes guest memory. Idempotent. */
	int (*pause)(void *guest, struct ramlift_error *error);

	/*
	 * Run (again): at the source after a failure, at the destination after load_state().
	 * Idempotent. When it fails, no vCPU has run nor will; -EINPROGRESS, at the destination
	 * only: nobody knows, the guest is left alone and the source in doubt.
	 */
	int (*resume)(void *guest, struct ramlift_error *error);

	/*
	 * Source, paused: all state outside RAM, in memory from malloc() that the engine frees, at
	 * most 16 MiB. It comes after the last harvest: it must not write guest RAM.
	 */
	int (*save_state)(void *guest, void **state, size_t *state_bytes,
			  struct ramlift_error *error);

	/* Destination: take over the state. RAM is complete by then. The state comes from the peer:
	 * check it. */
	int (*load_state)(void *guest, const void *state, size_t state_bytes,
			  struct ramlift_error *error);
};

#endif
