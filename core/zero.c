/* SPDX-License-Identifier: Apache-2.0 */
#include "core/zero.h"

#include "core/ramlift.h"

/* Loads go through these types: guest memory has no type of its own. */
typedef uint64_t __attribute__((may_alias)) word;

/*
 * 256 bytes at a time: enough that the loads overlap, few enough that a page which is not zero
 * costs next to nothing.
 */
bool page_is_zero_portable(const void *page)
{
	const word *words = page;
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

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2"))) static bool page_is_zero_avx2(const void *page)
{
	const __m256i *at = page;
	const __m256i *end = at + RAMLIFT_PAGE_BYTES / sizeof(*at);

	for (; at < end; at += 8) {
		__m256i a = _mm256_or_si256(_mm256_load_si256(at), _mm256_load_si256(at + 1));
		__m256i b = _mm256_or_si256(_mm256_load_si256(at + 2), _mm256_load_si256(at + 3));
		__m256i c = _mm256_or_si256(_mm256_load_si256(at + 4), _mm256_load_si256(at + 5));
		__m256i d = _mm256_or_si256(_mm256_load_si256(at + 6), _mm256_load_si256(at + 7));
		__m256i any = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));

		if (!_mm256_testz_si256(any, any))
			return false;
	}
	return true;
}

bool page_is_zero(const void *page)
{
	/* A load and a branch that is always predicted: not worth a pointer of its own. */
	return __builtin_cpu_supports("avx2") ? page_is_zero_avx2(page)
					      : page_is_zero_portable(page);
}
#else
bool page_is_zero(const void *page)
{
	return page_is_zero_portable(page);
}
#endif

uint64_t zero_pages(const void *stripe_hva, uint64_t candidates)
{
	const char *pages = stripe_hva;
	uint64_t zeros = 0;

	for (; candidates; candidates &= candidates - 1) {
		unsigned n = (unsigned)__builtin_ctzll(candidates);

		if (page_is_zero(pages + (uint64_t)n * RAMLIFT_PAGE_BYTES))
			zeros |= 1ull << n;
	}
	return zeros;
}
