/* SPDX-License-Identifier: Apache-2.0 */
/* A QEMU guest's state outside RAM follows the RAM section of its stream, so the engine's own way
 * to save and load state has nothing to carry: these two fill its places in ramlift_guest_ops. */
#ifndef KVM_QEMU_NO_STATE_H
#define KVM_QEMU_NO_STATE_H

#include <stddef.h>

struct ramlift_error;

int no_state_save(void *guest, void **state, size_t *state_bytes, struct ramlift_error *error);

/* -EPROTO: the source sent a state all the same. */
int no_state_load(void *guest, const void *state, size_t state_bytes, struct ramlift_error *error);

#endif
