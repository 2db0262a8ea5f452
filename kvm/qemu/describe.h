/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What travels to the destination before a QEMU guest does, as JSON, and whether the QEMU that
 * waits there fits. QEMU itself notices a misfit only once the guest is paused, or never.
 */
#ifndef KVM_QEMU_DESCRIBE_H
#define KVM_QEMU_DESCRIBE_H

#include <jansson.h>

#include "kvm/qemu/inspect.h"

/* An object for qemu_check() on the other side, the caller's to free. NULL: no memory. */
json_t *qemu_describe(const struct qemu_guest *guest);

/*
 * Does the guest of this description fit into this QEMU? source may be anything that came over the
 * wire. -EPROTO: not a description; -EINVAL: it does not fit, and error says which option to change
 * on which side.
 */
int qemu_check(const json_t *source, const struct qemu_guest *destination,
	       struct ramlift_error *error);

#endif
