/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A digest of all guest RAM, to compare both sides while nothing writes. It finds lost and stale
 * pages; it is no defence against somebody who wants to deceive.
 *
 * Memory that was never touched counts as the zeros that a guest would read there, and stays
 * untouched: a hole of a region's memfd is a hole afterwards. Where a region has no memfd, reading
 * takes no memory either, for the kernel maps its page of zeros.
 */
#ifndef CORE_DIGEST_H
#define CORE_DIGEST_H

#include "core/ram.h"

/* XXH64 over the XXH64 of each stripe, in order. Uses all CPUs that this process may run on. */
uint64_t digest_ram(const struct ram *ram);

#endif
