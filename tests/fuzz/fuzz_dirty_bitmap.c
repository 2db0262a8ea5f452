/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on a bitmap, and runs of its words, against an array of words. Three bytes an
 * operation: what, where, and which pattern of bits. */
#include "core/dirty_bitmap.h"
#include "tests/fuzz/fuzz.h"

#define WORDS 150u

struct model {
	struct dirty_bitmap bitmap;
	uint64_t words[WORDS];
};

static uint64_t pattern(uint8_t byte)
{
	uint64_t bits = byte % 64 == 63 ? ~0ull : (2ull << byte % 64) - 1; /* 1 to 64 low bits */

	switch (byte / 64) {
	case 0:
		return 1ull << byte % 64;
	case 1:
		return bits;
	case 2:
		return ~bits;
	default:
		return bits * 0x9e3779b97f4a7c15ull;
	}
}

static void check_runs(uint64_t word)
{
	uint64_t left = word, covered = 0;
	unsigned first, n, end = 0;

	while (dirty_run_next(&left, &first, &n)) {
		CHECK(n && first + n <= 64 && (!end || first > end));
		for (unsigned i = first; i < first + n; i++)
			covered |= 1ull << i;
		end = first + n;
	}
	CHECK(covered == word);
}

static void take(struct model *model, uint64_t word)
{
	uint64_t bits = dirty_bitmap_take(&model->bitmap, word);

	CHECK(bits == model->words[word]);
	check_runs(bits);
	model->words[word] = 0;
}

/* All that a summary word shows, as a lane takes it. */
static void sweep(struct model *model, uint64_t summary, uint64_t mask)
{
	uint64_t words = dirty_bitmap_claim(&model->bitmap, summary, mask);

	CHECK(!(words & ~mask));
	for (uint64_t w = summary * 64; w < summary * 64 + 64 && w < WORDS; w++) {
		/* Nothing that is set may hide from the summary. */
		if (model->words[w] && mask >> w % 64 & 1)
			CHECK(words >> w % 64 & 1);
	}
	for (unsigned i; bit_next(&words, &i);)
		take(model, summary * 64 + i);
}

static void step(struct model *model, uint8_t what, uint8_t where, uint8_t which)
{
	uint64_t word = where % WORDS, count = 0;

	switch (what % 4) {
	case 0:
		dirty_bitmap_set(&model->bitmap, word, pattern(which));
		model->words[word] |= pattern(which);
		break;
	case 1:
		sweep(model, where % model->bitmap.n_summary, pattern(which));
		break;
	case 2:
		take(model, word);
		break;
	default:
		for (unsigned i = 0; i < WORDS; i++)
			count += (uint64_t)__builtin_popcountll(model->words[i]);
		CHECK(dirty_bitmap_count(&model->bitmap) == count);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct model model = { 0 };

	CHECK(!dirty_bitmap_init(&model.bitmap, WORDS));
	for (; size >= 3; data += 3, size -= 3)
		step(&model, data[0], data[1], data[2]);
	for (unsigned s = 0; s < model.bitmap.n_summary; s++)
		sweep(&model, s, ~0ull);
	CHECK(!dirty_bitmap_count(&model.bitmap));
	for (unsigned i = 0; i < WORDS; i++)
		CHECK(!model.words[i]);
	dirty_bitmap_fini(&model.bitmap);
	return 0;
}
