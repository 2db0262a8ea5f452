/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A three-level bitmap of dirty pages with atomic words: what is dirty is found without a walk over
 * what is clean, whatever the size of the guest.
 *
 *   top       bit s: summary word s may be non-zero  one word speaks for 1 GiB
 *   summary   bit w: word w may be non-zero          one word speaks for 64 stripes, 16 MiB
 *   words     bit p of word w: page p of stripe w    one word is one stripe
 *
 * Any thread may set, any thread may take; a bit that is set is taken by exactly one. Setting goes
 * from below to the top, taking from the top down: a summary bit is cleared before its word is
 * emptied, so no bit is left behind unseen; at worst a bit points to an empty word. Takers that
 * share a bitmap leave its top alone, for a summary word is theirs in parts: bits of it that point
 * to nothing are cleared by dirty_bitmap_tidy(), which must not run while somebody takes for the
 * last time. Knows nothing of regions or lanes.
 */
#ifndef CORE_DIRTY_BITMAP_H
#define CORE_DIRTY_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct dirty_bitmap {
	_Atomic uint64_t *words;
	_Atomic uint64_t *summary;
	_Atomic uint64_t *top;
	uint64_t n_words;
	uint64_t n_summary;
};

/* All clean. Memory is populated as it is first written. -ENOMEM. */
int dirty_bitmap_init(struct dirty_bitmap *bitmap, uint64_t n_words);
void dirty_bitmap_fini(struct dirty_bitmap *bitmap);

/* Number of bits set; exact only while nobody changes them. Work is proportional to what is set. */
uint64_t dirty_bitmap_count(const struct dirty_bitmap *bitmap);

/* Sets a bit of an upper level, where it is not. */
static inline void dirty_bitmap_flag(_Atomic uint64_t *level, uint64_t index)
{
	uint64_t flag = 1ull << (index % 64);

	if (!(atomic_load(&level[index / 64]) & flag))
		atomic_fetch_or(&level[index / 64], flag);
}

/* Returns those of the bits that were not set before. */
static inline uint64_t dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t word, uint64_t bits)
{
	uint64_t before;

	if (!bits)
		return 0;
	before = atomic_fetch_or(&bitmap->words[word], bits);
	dirty_bitmap_flag(bitmap->summary, word);
	dirty_bitmap_flag(bitmap->top, word / 64);
	return bits & ~before;
}

/* The first summary word from `from` on, and below end, that may be
 * non-zero; end if there is none. */
static inline uint64_t dirty_bitmap_next(const struct dirty_bitmap *bitmap, uint64_t from,
					 uint64_t end)
{
	while (from < end) {
		uint64_t flags = atomic_load(&bitmap->top[from / 64]) >> (from % 64);

		if (flags) {
			from += (unsigned)__builtin_ctzll(flags);
			return from < end ? from : end;
		}
		from = (from / 64 + 1) * 64;
	}
	return end;
}

static inline uint64_t dirty_bitmap_n_top(const struct dirty_bitmap *bitmap)
{
	return (bitmap->n_summary + 63) / 64;
}

/* Empty a word of the top: the summary words that may be non-zero. For one taker of all. */
static inline uint64_t dirty_bitmap_take_top(struct dirty_bitmap *bitmap, uint64_t top)
{
	return atomic_load(&bitmap->top[top]) ? atomic_exchange(&bitmap->top[top], 0) : 0;
}

/*
 * Clear the bits of the top that point to an empty summary word; one that is filled meanwhile is
 * set again a moment later. One thread.
 */
void dirty_bitmap_tidy(struct dirty_bitmap *bitmap);

/* Claim those of the 64 words behind a summary word that mask allows: the result names the ones to
 * take. */
static inline uint64_t dirty_bitmap_claim(struct dirty_bitmap *bitmap, uint64_t summary,
					  uint64_t mask)
{
	if (!(atomic_load(&bitmap->summary[summary]) & mask))
		return 0;
	if (mask == ~0ull) /* cheaper than an `and` whose result is asked for */
		return atomic_exchange(&bitmap->summary[summary], 0);
	return atomic_fetch_and(&bitmap->summary[summary], ~mask) & mask;
}

/* Give back words that were claimed and have not been taken. */
static inline void dirty_bitmap_unclaim(struct dirty_bitmap *bitmap, uint64_t summary,
					uint64_t words)
{
	if (!words)
		return;
	atomic_fetch_or(&bitmap->summary[summary], words);
	dirty_bitmap_flag(bitmap->top, summary);
}

static inline uint64_t dirty_bitmap_take(struct dirty_bitmap *bitmap, uint64_t word)
{
	return atomic_exchange(&bitmap->words[word], 0);
}

/* The next run of set bits in *bits, which loses them: pages first to first + n - 1. False when
 * none is left. */
static inline bool dirty_run_next(uint64_t *bits, unsigned *first, unsigned *n)
{
	uint64_t above;

	if (!*bits)
		return false;
	*first = (unsigned)__builtin_ctzll(*bits);
	above = ~(*bits >> *first);
	*n = above ? (unsigned)__builtin_ctzll(above) : 64;
	*bits = *first + *n >= 64 ? 0 : *bits & (~0ull << (*first + *n));
	return true;
}

/* Iterate over the bits of a 64-bit word: for (unsigned i; bit_next(&bits, &i);) */
static inline bool bit_next(uint64_t *bits, unsigned *index)
{
	if (!*bits)
		return false;
	*index = (unsigned)__builtin_ctzll(*bits);
	*bits &= *bits - 1;
	return true;
}

#endif
