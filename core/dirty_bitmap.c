/* SPDX-License-Identifier: Apache-2.0 */
#include "core/dirty_bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int dirty_bitmap_init(struct dirty_bitmap *bitmap, uint64_t n_words)
{
	memset(bitmap, 0, sizeof(*bitmap));
	bitmap->n_words = n_words;
	bitmap->n_summary = (n_words + 63) / 64;
	bitmap->words = calloc(n_words, sizeof(*bitmap->words));
	bitmap->summary = calloc(bitmap->n_summary, sizeof(*bitmap->summary));
	if (!bitmap->words || !bitmap->summary) {
		dirty_bitmap_fini(bitmap);
		return -ENOMEM;
	}
	return 0;
}

void dirty_bitmap_fini(struct dirty_bitmap *bitmap)
{
	free(bitmap->words);
	free(bitmap->summary);
	memset(bitmap, 0, sizeof(*bitmap));
}

uint64_t dirty_bitmap_count(const struct dirty_bitmap *bitmap)
{
	uint64_t count = 0;

	for (uint64_t s = 0; s < bitmap->n_summary; s++) {
		uint64_t flags = atomic_load_explicit(&bitmap->summary[s], memory_order_relaxed);

		for (unsigned i; bit_next(&flags, &i);)
			count += (uint64_t)__builtin_popcountll(atomic_load_explicit(
				&bitmap->words[s * 64 + i], memory_order_relaxed));
	}
	return count;
}
