/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which shared mapping of a QEMU is which RAM block, where there is no monitor to ask (libvirt
 * holds it): by the backend's file, whose name has the block's in it, or by a size that no other
 * block and no other mapping has.
 */
#ifndef KVM_QEMU_BLOCK_MATCH_H
#define KVM_QEMU_BLOCK_MATCH_H

#include "kvm/qemu/memory.h"
#include "kvm/qemu/stream.h"

/* Blocks of this size and more are guest memory: they must be shared. Smaller ones (ROMs, video
 * memory) may pass through. */
#define BLOCK_MATCH_GUEST_BYTES (256ull << 20)

/*
 * The mapping of blocks[index] among a process's, or NULL: it is not shared. blocks are all that
 * the guest has, as far as is known: a size that two of them have tells nothing. -EOPNOTSUPP: it
 * cannot be told which mapping it is, or a block of guest memory is not shared; the sentence says
 * what to change.
 */
int block_match(const struct stream_block *blocks, unsigned n_blocks, unsigned index,
		const struct memory_mapping *mappings, unsigned n_mappings,
		const struct memory_mapping **mapping, struct ramlift_error *error);

#endif
