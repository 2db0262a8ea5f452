/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A two-level bitmap of dirty pages with atomic words.
 *
 *   summary   bit s: word s may be non-zero          one summary word speaks for 64 stripes, 16 MiB
 *   words     bit p of word s: page p of stripe s    one word is one stripe
 *
 * Any thread may set, any thread may take; a bit that is set is taken by exactly one. Setting
 * writes the word before its summary bit, taking clears the summary bit before it empties the word,
 * so no bit is left behind unseen: at worst a summary bit points to an empty word. Knows nothing of
 * regions or lanes.
 */
#ifndef CORE_DIRTY_BITMAP_H
#define CORE_DIRTY_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct dirty_bitmap {
	_Atomic uint64_t *words;
	_Atomic uint64_t *summary;
	uint64_t n_words;
	uint64_t n_summary;
};

/* All clean. Memory is populated as it is first written. -ENOMEM. */
int dirty_bitmap_init(struct dirty_bitmap *bitmap, uint64_t n_words);
void dirty_bitmap_fini(struct dirty_bitmap *bitmap);

/* Number of bits set; exact only while nobody changes them. Work is proportional to what is set. */
uint64_t dirty_bitmap_count(const struct dirty_bitmap *bitmap);

/* Returns those of the bits that were not set before. */
static inline uint64_t dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t word, uint64_t bits)
{
	uint64_t flag = 1ull << (word % 64);
	uint64_t before;

	if (!bits)
		return 0;
	before = atomic_fetch_or(&bitmap->words[word], bits);
	if (!(atomic_load(&bitmap->summary[word / 64]) & flag))
		atomic_fetch_or(&bitmap->summary[word / 64], flag);
	return bits & ~before;
}

/* Claim those of the 64 words behind a summary word that mask allows: the result names the ones to
 * take. */
static inline uint64_t dirty_bitmap_claim(struct dirty_bitmap *bitmap, uint64_t summary,
					  uint64_t mask)
{
	if (!(atomic_load(&bitmap->summary[summary]) & mask))
		return 0;
	return atomic_fetch_and(&bitmap->summary[summary], ~mask) & mask;
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
