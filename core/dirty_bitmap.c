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
	bitmap->top = calloc((bitmap->n_summary + 63) / 64, sizeof(*bitmap->top));
	if (!bitmap->words || !bitmap->summary || !bitmap->top) {
		dirty_bitmap_fini(bitmap);
		return -ENOMEM;
	}
	return 0;
}

void dirty_bitmap_fini(struct dirty_bitmap *bitmap)
{
	free(bitmap->words);
	free(bitmap->summary);
	free(bitmap->top);
	memset(bitmap, 0, sizeof(*bitmap));
}

/* Of the summary words that flags point to, from 64 * top on, those that are empty. */
static uint64_t empty_words(const struct dirty_bitmap *bitmap, uint64_t top, uint64_t flags)
{
	uint64_t empty = 0;

	for (unsigned i; bit_next(&flags, &i);) {
		if (!atomic_load(&bitmap->summary[top * 64 + i]))
			empty |= 1ull << i;
	}
	return empty;
}

void dirty_bitmap_tidy(struct dirty_bitmap *bitmap)
{
	for (uint64_t top = 0; top < dirty_bitmap_n_top(bitmap); top++) {
		uint64_t empty = empty_words(bitmap, top, atomic_load(&bitmap->top[top]));
		uint64_t filled;

		if (!empty)
			continue;
		atomic_fetch_and(&bitmap->top[top], ~empty);
		/* Whoever set a summary word before that may have seen the bit still there. */
		filled = empty & ~empty_words(bitmap, top, empty);
		if (filled)
			atomic_fetch_or(&bitmap->top[top], filled);
	}
}

uint64_t dirty_bitmap_count(const struct dirty_bitmap *bitmap)
{
	uint64_t count = 0;

	for (uint64_t s = dirty_bitmap_next(bitmap, 0, bitmap->n_summary); s < bitmap->n_summary;
	     s = dirty_bitmap_next(bitmap, s + 1, bitmap->n_summary)) {
		uint64_t flags = atomic_load_explicit(&bitmap->summary[s], memory_order_relaxed);

		for (unsigned i; bit_next(&flags, &i);)
			count += (uint64_t)__builtin_popcountll(atomic_load_explicit(
				&bitmap->words[s * 64 + i], memory_order_relaxed));
	}
	return count;
}
