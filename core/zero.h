/* SPDX-License-Identifier: Apache-2.0 */
/* Is a page all zeros? Most pages that are not show it in their first bytes. */
#ifndef CORE_ZERO_H
#define CORE_ZERO_H

#include <stdbool.h>
#include <stdint.h>

#include "core/ramlift.h"

/* The page may change meanwhile: a write that this misses was made after the page lost its dirty
 * bit, so it comes again. */
static inline bool page_is_zero(const void *page)
{
	const uint64_t *words = page;
	const unsigned n_words = RAMLIFT_PAGE_BYTES / sizeof(*words);

	for (unsigned i = 0; i < n_words; i += 32) {
		uint64_t any = 0;

		for (unsigned j = 0; j < 32; j++)
			any |= words[i + j];
		if (any)
			return false;
	}
	return true;
}

/* Those of the candidates, pages from hva on, that are zeros. */
static inline uint64_t zero_pages(const void *hva, uint64_t candidates)
{
	uint64_t zeros = 0;

	while (candidates) {
		unsigned page = (unsigned)__builtin_ctzll(candidates);

		candidates &= candidates - 1;
		if (page_is_zero((const char *)hva + (uint64_t)page * RAMLIFT_PAGE_BYTES))
			zeros |= 1ull << page;
	}
	return zeros;
}

#endif
