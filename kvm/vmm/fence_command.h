/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's command that decides for him whose a guest in doubt is: it makes sure that the
 * destination cannot run it (power, lease, storage), or finds out that it does. A line for sh -c;
 * what is known of the guest is in its environment. Knows nothing of sessions.
 */
#ifndef KVM_VMM_FENCE_COMMAND_H
#define KVM_VMM_FENCE_COMMAND_H

#include <stdint.h>

#include "core/ramlift.h"

/* Exit statuses that mean something. Not 1, with which commands fail that meant to say nothing. */
#define FENCE_DONE	  0  /* the destination never runs it: the guest is the source's */
#define FENCE_DESTINATION 10 /* it is the destination's */

#define FENCE_COMMAND_NS (60ull * 1000 * 1000 * 1000)

/*
 * Run it once, at most timeout_ns, or until interrupt_fd is readable (-1: none); then it is killed
 * with its process group. Its output goes to our standard error. Blocks. RAMLIFT_OWNER_UNKNOWN: it
 * could not be run, did not end, or does not know; why is said on standard error.
 */
enum ramlift_owner fence_command_run(const char *command, const struct ramlift_doubt *doubt,
				     uint64_t timeout_ns, int interrupt_fd);

#endif
