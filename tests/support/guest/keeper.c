/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only program of a small Linux guest, its process 1: it keeps rewriting and checking memory,
 * and says on the console how that goes. For tests that move a real guest of a real QEMU. It knows
 * nothing of migrations; all it needs comes on the kernel's command line:
 *
 *      keeper.cold=MiB   pages that are stamped once and then only checked (32)
 *      keeper.hot=MiB    pages that keep being rewritten, in random order (16)
 *      keeper.rate=N     pages rewritten per second, by all threads together (1000)
 *      keeper.check=N    pages checked per second, by all threads together (4000)
 *
 * What a page must hold follows from its number and its generation, which the table has; every
 * eighth generation is all zeros, so that pages turn into zeros and back. The table is guest memory
 * as well:
 *
 *      pages        | stamp(0, g0) | stamp(1, g1) | ...     a lost or stale page contradicts the
 * table table        | g0 g1 ...                             a stale piece of it contradicts many
 * pages sum          sum of mix(page, generation)            and the sum
 *
 * One thread for each CPU owns an equal share of the pages, so nothing needs a lock. Once a second:
 *
 *      keeper: sweeps 3 verified 98304 written 12000 failures 0
 *
 * All numbers only grow, over a migration too. The first failures are described, each in a line.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES   4096u
#define PAGE_WORDS   (PAGE_BYTES / sizeof(uint64_t))
#define PAGES_A_MIB  256u
#define TICKS	     100u /* per second */
#define MAX_WORKERS  16u
#define MAX_DETAILS  8u
#define HEADER_KEY   0x72656b65656b0000ull
#define GOLDEN_RATIO 0x9e3779b97f4a7c15ull

struct worker {
	pthread_t thread;
	uint32_t first, n_pages; /* its share; the hot ones come first */
	uint32_t n_hot;
	uint32_t cursor; /* next to check, from first */
	uint32_t writes_a_second, checks_a_second;
	uint64_t random;
	uint64_t sum; /* of mix(page, generation) over its pages */
	atomic_uint_fast64_t sweeps, verified, written;
};

static uint64_t (*pages)[PAGE_WORDS];
static uint32_t *table; /* generation of each page */
static struct worker workers[MAX_WORKERS];
static unsigned n_workers;
static atomic_uint_fast64_t failures;

static uint64_t mix(uint64_t page, uint64_t generation)
{
	uint64_t x = page * GOLDEN_RATIO ^ generation * 0xc2b2ae3d27d4eb4full;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 32;
}

/* What a page holds at one word: the header names page and generation,
 * the rest follows from both. */
static inline uint64_t word_at(uint32_t page, uint32_t generation, uint64_t base, unsigned i)
{
	if (generation % 8 == 0)
		return 0;
	return i ? base + i * GOLDEN_RATIO : HEADER_KEY ^ ((uint64_t)page << 32 | generation);
}

/* Guest-physical address of a page, for whoever has to find it outside; 0 if the kernel does not
 * tell. */
static uint64_t page_gpa(uint32_t page)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)pages[page] / PAGE_BYTES * sizeof(entry)) !=
	    sizeof(entry))
		entry = 0;
	close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE_BYTES;
}

static void describe(uint32_t page, unsigned word)
{
	uint64_t header = pages[page][0], origin = header ^ HEADER_KEY;
	uint32_t found_page = (uint32_t)(origin >> 32), found_generation = (uint32_t)origin;
	char found[64] = "damaged";

	if (!header)
		snprintf(found, sizeof(found), "zeros");
	else if (found_page == page)
		snprintf(found, sizeof(found), "generation %u", found_generation);
	printf("keeper: FAILED page %u word %u at 0x%llx: generation %u expected, %s found\n", page,
	       word, (unsigned long long)page_gpa(page), table[page], found);
}

static void stamp(struct worker *self, uint32_t page)
{
	uint32_t generation = table[page] + 1;
	uint64_t base = mix(page, generation);

	for (unsigned i = 0; i < PAGE_WORDS; i++)
		pages[page][i] = word_at(page, generation, base, i);
	self->sum += mix(page, generation) - mix(page, table[page]);
	table[page] = generation;
	atomic_fetch_add(&self->written, 1);
}

/* A failed page is made right again, so that each damage counts once. */
static void check(struct worker *self, uint32_t page)
{
	uint32_t generation = table[page];
	uint64_t base = mix(page, generation);

	for (unsigned i = 0; i < PAGE_WORDS; i++) {
		if (pages[page][i] == word_at(page, generation, base, i))
			continue;
		if (atomic_fetch_add(&failures, 1) < MAX_DETAILS)
			describe(page, i);
		stamp(self, page);
		return;
	}
	atomic_fetch_add(&self->verified, 1);
}

static void check_table(struct worker *self)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < self->n_pages; i++)
		sum += mix(self->first + i, table[self->first + i]);
	if (sum == self->sum)
		return;
	if (atomic_fetch_add(&failures, 1) < MAX_DETAILS)
		printf("keeper: FAILED table of pages %u to %u: its sum is wrong\n", self->first,
		       self->first + self->n_pages - 1);
	self->sum = sum;
}

static void check_next(struct worker *self)
{
	check(self, self->first + self->cursor);
	self->cursor++;
	if (self->cursor < self->n_pages)
		return;
	self->cursor = 0;
	check_table(self);
	atomic_fetch_add(&self->sweeps, 1);
}

/* What is overwritten is checked before: a stale page must not escape that way. */
static void rewrite_any(struct worker *self)
{
	uint64_t x = self->random;
	uint32_t page;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	self->random = x;
	page = self->first + (uint32_t)((x >> 32) * self->n_hot >> 32);
	check(self, page);
	stamp(self, page);
}

/* Paced by ticks, not by the clock: after a pause nothing is made up for. */
static void *work(void *argument)
{
	struct worker *self = argument;
	uint64_t writes = 0, checks = 0;

	for (;;) {
		for (writes += self->writes_a_second; writes >= TICKS; writes -= TICKS)
			rewrite_any(self);
		for (checks += self->checks_a_second; checks >= TICKS; checks -= TICKS)
			check_next(self);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000000 / TICKS }, NULL);
	}
	return NULL;
}

static void report(void)
{
	uint64_t sweeps = UINT64_MAX, verified = 0, written = 0;

	for (unsigned i = 0; i < n_workers; i++) {
		uint64_t own_sweeps = atomic_load(&workers[i].sweeps);

		sweeps = own_sweeps < sweeps ? own_sweeps : sweeps;
		verified += atomic_load(&workers[i].verified);
		written += atomic_load(&workers[i].written);
	}
	printf("keeper: sweeps %llu verified %llu written %llu failures %llu\n",
	       (unsigned long long)sweeps, (unsigned long long)verified,
	       (unsigned long long)written, (unsigned long long)atomic_load(&failures));
}

static _Noreturn void give_up(const char *what)
{
	printf("keeper: cannot go on: %s: %m\n", what);
	reboot(RB_POWER_OFF);
	_exit(1);
}

static uint32_t option(const char *command_line, const char *name, uint32_t otherwise)
{
	const char *at = strstr(command_line, name);

	return at ? (uint32_t)strtoul(at + strlen(name), NULL, 10) : otherwise;
}

static void *map(size_t size_bytes)
{
	void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		give_up("not enough memory");
	return memory;
}

/* Each of the threads gets the same share of the cold and of the hot pages, and of the work. */
static void share_out(const char *command_line)
{
	long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t n_cold, n_hot;

	n_workers = n_cpus < 1 ? 1 : n_cpus > MAX_WORKERS ? MAX_WORKERS : (unsigned)n_cpus;
	n_cold = option(command_line, "keeper.cold=", 32) * PAGES_A_MIB / n_workers;
	n_hot = option(command_line, "keeper.hot=", 16) * PAGES_A_MIB / n_workers;
	if (!(n_cold + n_hot))
		give_up("keeper.cold and keeper.hot are 0");
	for (unsigned i = 0; i < n_workers; i++) {
		struct worker *self = &workers[i];

		self->first = i * (n_cold + n_hot);
		self->n_pages = n_cold + n_hot;
		self->n_hot = n_hot;
		if (n_hot)
			self->writes_a_second =
				option(command_line, "keeper.rate=", 1000) / n_workers;
		self->checks_a_second = option(command_line, "keeper.check=", 4000) / n_workers;
		self->random = mix(i, 1) | 1;
	}
	pages = map((size_t)n_workers * (n_cold + n_hot) * PAGE_BYTES);
	table = map((size_t)n_workers * (n_cold + n_hot) * sizeof(*table));
}

static void stamp_all(void)
{
	for (unsigned i = 0; i < n_workers; i++) {
		struct worker *self = &workers[i];

		for (uint32_t page = self->first; page < self->first + self->n_pages; page++) {
			self->sum += mix(page, 0);
			stamp(self, page);
		}
	}
	printf("keeper: stamped %u pages, %u threads\n", n_workers * workers[0].n_pages, n_workers);
}

int main(void)
{
	char command_line[4096] = "";
	FILE *file;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mkdir("/proc", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL))
		give_up("/proc");
	file = fopen("/proc/cmdline", "r");
	if (!file || !fgets(command_line, sizeof(command_line), file))
		give_up("/proc/cmdline");
	fclose(file);
	share_out(command_line);
	stamp_all();
	for (unsigned i = 0; i < n_workers; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			give_up("a thread");
	for (;;) {
		sleep(1);
		report();
	}
}
