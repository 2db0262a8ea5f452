/* SPDX-License-Identifier: Apache-2.0 */
/* What travels between two proxies before a guest does, as JSON: its shared RAM blocks, in the
 * order of the session's regions. What else must fit, QEMU's manager has compared. */
#ifndef KVM_QEMU_PROXY_DESCRIPTION_H
#define KVM_QEMU_PROXY_DESCRIPTION_H

#include <stddef.h>

#include "kvm/qemu/stream.h"

/* Of the blocks, those with a region (-1: none). In memory from malloc(); NULL: no memory. */
char *proxy_describe(const struct stream_block *blocks, const int *regions, unsigned n_blocks);

/*
 * The blocks of a description, which may be anything that came over the wire; room for
 * RAMLIFT_MAX_REGIONS. -EPROTO.
 */
int proxy_read_description(const void *bytes, size_t n_bytes, struct stream_block *blocks,
			   unsigned *n_blocks, struct ramlift_error *error);

#endif
