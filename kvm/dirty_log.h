/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's dirty log as a dirty source: one bitmap a memory slot, fetched at each harvest. For hosts
 * and VMMs without dirty rings; a VM that has dirty rings has no dirty log. It cannot slow a guest
 * down: its table has no limit().
 */
#ifndef RAMLIFT_DIRTY_LOG_H
#define RAMLIFT_DIRTY_LOG_H

#include "ramlift.h" /* beside it where they are installed */

#ifdef __cplusplus
extern "C" {
#endif

struct ramlift_dirty_log;

struct ramlift_dirty_log_config {
	int vm_fd;
	const struct ramlift_region *regions; /* those that the session is given */
	const uint32_t *slots; /* the memory slot of each region; writable RAM, no flags */
	unsigned n_regions;
};

/*
 * Make the source; nothing is tracked yet. Turns on KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 where the
 * host has it, for the life of the VM: other users of the VM's dirty log must clear what they
 * fetch. -EINVAL, -ENOMEM.
 */
RAMLIFT_API int ramlift_dirty_log_new(const struct ramlift_dirty_log_config *config,
				      struct ramlift_dirty_log **log, struct ramlift_error *error);

/* The table for ramlift_source_config.dirty_source_ops; a static object. */
RAMLIFT_API const struct ramlift_dirty_source_ops *ramlift_dirty_log_ops(void);

/* After stop(). NULL is fine. */
RAMLIFT_API void ramlift_dirty_log_free(struct ramlift_dirty_log *log);

#ifdef __cplusplus
}
#endif

#endif
