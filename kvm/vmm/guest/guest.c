/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test guest: writes pages and finds out whether any was lost, stale or torn. Runs alone, in
 * long mode with identity page tables, without interrupts; all its state is in its memory and
 * registers. It is a program at user level (CPL 3) that may do I/O (IOPL 3): it needs no more, and
 * hosts whose KVM emulates what a guest's kernel does run it at full speed.
 *
 * Each vCPU owns a share of the pages, and a report page:
 *
 *      |<---------------- share of a vCPU ----------------->|
 *      +-------------------------------+---------+----------+
 *      | stamped                       | zeroed  | untouched|
 *      +-------------------------------+---------+----------+
 *      | hot set: kept being written   |
 *
 * A stamp names page, generation and vCPU, has a checksum, and begins each of the 64 cache lines
 * with a word made of page, generation and line, so that a page of two halves shows:
 *
 *      line 0:  word | magic | page | generation and vCPU | checksum | 0 ...
 *      line n:  word | 0 ...
 *
 * The table, which is guest memory too, has each page's generation; 0: the page is all zeros. So a
 * lost page disagrees with the table, and a lost page of the table with many pages. The report page
 * is checked against a register, which travels apart from memory.
 */
#include "layout.h"

#define LINES	   64u
#define LINE_WORDS 8u
#define MAGIC	   0x74666c6d61527467ull

struct self {
	uint64_t vcpu;
	uint64_t first; /* page */
	uint64_t n_stamped, n_zeroed, n_hot;
	uint64_t cursor; /* next to verify, from first */
	uint64_t next;	 /* sequential pattern */
	uint64_t random;
	uint64_t pattern;
	struct guest_report *report;
};

__asm__(".section .text.entry, \"ax\"\n"
	".globl guest_entry\n"
	"guest_entry:\n"
	"	cld\n"
	"	call guest_main\n"
	"	ud2\n"
	".previous\n");

static inline uint32_t ask_batch(void)
{
	uint32_t batch;

	__asm__ volatile("inl %w1, %0" : "=a"(batch) : "Nd"(GUEST_PORT_BATCH) : "memory");
	return batch;
}

static inline void tell_failure(uint32_t kind)
{
	__asm__ volatile("outl %0, %w1" : : "a"(kind), "Nd"(GUEST_PORT_FAILURE) : "memory");
}

/* xmm0 holds the count of pages written, as the registers know it; the compiler uses no XMM. */
static inline void register_set(uint64_t value)
{
	__asm__ volatile("movq %0, %%xmm0" : : "r"(value));
}

static inline uint64_t register_get(void)
{
	uint64_t value;

	__asm__ volatile("movq %%xmm0, %0" : "=r"(value));
	return value;
}

static inline void count_write(struct self *self)
{
	self->report->pages_written++;
	register_set(register_get() + 1);
}

static inline volatile uint64_t *page_words(uint64_t page)
{
	return (volatile uint64_t *)guest_page_gpa(page);
}

static inline volatile uint32_t *generation_of(uint64_t page)
{
	return (volatile uint32_t *)GUEST_TABLE_GPA + page;
}

static uint64_t mix(uint64_t page, uint64_t generation)
{
	uint64_t x = page * 0x9e3779b97f4a7c15ull ^ generation * 0xc2b2ae3d27d4eb4full;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 32;
}

static inline uint64_t line_word(uint64_t base, uint64_t line)
{
	return (base + line * 0x9e3779b97f4a7c15ull) | 1; /* never 0 */
}

static uint64_t checksum(uint64_t base, uint64_t page, uint64_t who)
{
	uint64_t sum = MAGIC ^ page ^ who;

	for (uint64_t line = 0; line < LINES; line++)
		sum = (sum << 7 | sum >> 57) + line_word(base, line);
	return sum;
}

static void stamp(struct self *self, uint64_t page)
{
	volatile uint64_t *words = page_words(page);
	uint32_t generation = *generation_of(page) + 1;
	uint64_t base, who;

	generation += generation == 0; /* 0 is for zeros */
	base = mix(page, generation);
	who = (uint64_t)generation << 32 | self->vcpu;
	words[1] = MAGIC;
	words[2] = page;
	words[3] = who;
	words[4] = checksum(base, page, who);
	for (uint64_t line = 0; line < LINES; line++)
		words[line * LINE_WORDS] = line_word(base, line);
	*generation_of(page) = generation;
	count_write(self);
}

static void fail(struct self *self, uint32_t kind, uint64_t page, uint64_t word, uint64_t expected,
		 uint64_t found)
{
	struct guest_report *report = self->report;

	if (report->failures == 0) {
		report->failure_kind = kind;
		report->failure_page = page;
		report->failure_word = word;
		report->failure_expected = expected;
		report->failure_found = found;
		report->failure_generation = page < self->first ? 0 : *generation_of(page);
	}
	report->failures++;
	tell_failure(kind);
}

/* Compare all words that a stamp sets; in a page that was never stamped, they are 0. */
static void verify(struct self *self, uint64_t page)
{
	volatile uint64_t *words = page_words(page);
	uint64_t generation = *generation_of(page);
	uint64_t base = mix(page, generation), who = generation << 32 | self->vcpu;
	uint64_t header[5] = { 0 };

	if (generation) {
		header[1] = MAGIC;
		header[2] = page;
		header[3] = who;
		header[4] = checksum(base, page, who);
	}
	for (uint64_t i = 0; i < LINES + 4; i++) {
		uint64_t at = i < LINES ? i * LINE_WORDS : i - LINES + 1;
		uint64_t expected = i >= LINES ? header[at] : generation ? line_word(base, i) : 0;
		uint64_t found = words[at];

		if (found != expected) {
			fail(self, GUEST_FAILURE_PAGE, page, at, expected, found);
			return; /* one failure a page and look */
		}
	}
	self->report->pages_verified++;
}

/* Memory and registers are from the same moment, or a migration mixed two. */
static void check_register(struct self *self)
{
	uint64_t counted = register_get(), written = self->report->pages_written;

	if (counted == written)
		return;
	fail(self, GUEST_FAILURE_REPORT, 0, 0, counted, written);
	register_set(written);
}

/* A failed page is made right again, so that each damage counts once. */
static void write_page(struct self *self, uint64_t page)
{
	check_register(self);
	verify(self, page);
	stamp(self, page);
}

static uint64_t random_below(struct self *self, uint64_t n)
{
	uint64_t x = self->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	self->random = x;
	return (uint64_t)((unsigned __int128)x * n >> 64);
}

static uint64_t next_hot(struct self *self)
{
	uint64_t tenth = self->n_hot / 10;

	switch (self->pattern) {
	case GUEST_SEQUENTIAL:
		self->next = self->next + 1 < self->n_hot ? self->next + 1 : 0;
		return self->first + self->next;
	case GUEST_SKEWED: /* 90 % of the writes go to 10 % of the pages */
		if (tenth && random_below(self, 10))
			return self->first + random_below(self, tenth);
		return self->first + random_below(self, self->n_hot);
	default:
		return self->first + random_below(self, self->n_hot);
	}
}

static void verify_next(struct self *self)
{
	check_register(self);
	verify(self, self->first + self->cursor);
	self->cursor++;
	if (self->cursor >= self->n_stamped + self->n_zeroed) {
		self->cursor = 0;
		self->report->sweeps++;
	}
}

static void batch(struct self *self, uint32_t work)
{
	for (uint32_t i = work & 0xffff; i && self->n_hot; i--)
		write_page(self, next_hot(self));
	for (uint32_t i = work >> 16; i && self->n_stamped; i--)
		verify_next(self);
}

void guest_main(uint64_t vcpu);

void guest_main(uint64_t vcpu)
{
	const struct guest_boot *boot = (const struct guest_boot *)GUEST_BOOT_GPA;
	uint64_t share = (boot->n_pages - boot->first_page) / boot->n_vcpus;
	struct self self = {
		.vcpu = vcpu,
		.first = boot->first_page + vcpu * share,
		.n_stamped = share * boot->fill_percent / 100,
		.n_hot = boot->hot_pages / boot->n_vcpus,
		.random = 0x2545f4914f6cdd1dull * (vcpu + 1),
		.pattern = boot->pattern,
		.report = (struct guest_report *)(GUEST_REPORTS_GPA + vcpu * GUEST_PAGE_BYTES),
	};

	register_set(0);
	self.n_zeroed = (share - self.n_stamped) / 2;
	if (self.n_hot > self.n_stamped)
		self.n_hot = self.n_stamped;
	for (uint64_t i = 0; i < self.n_stamped; i++)
		stamp(&self, self.first + i);
	for (uint64_t i = 0; i < self.n_zeroed; i++)
		*page_words(self.first + self.n_stamped + i) = 0;
	for (;;) {
		batch(&self, ask_batch());
	}
}
