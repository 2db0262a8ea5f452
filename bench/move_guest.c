/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/move_guest.h"

#include <errno.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "bench/pair.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/zero.h"

#define HUGE_BYTES     (2ull << 20)
#define GROUP_PAGES    32u /* written under one lock: some microseconds */
#define WRITE_EVERY_NS NS_PER_MS

const char *const guest_memory_names[GUEST_MEMORY_COUNT] = {
	[GUEST_MEMFD] = "memfd",
	[GUEST_ANONYMOUS] = "anonymous",
	[GUEST_THP] = "thp",
	[GUEST_HUGETLB] = "hugetlb",
};

static int open_memory(const struct guest_shape *shape)
{
	bool huge = shape->memory == GUEST_HUGETLB;
	int fd;

	if (shape->memory != GUEST_MEMFD && !huge)
		return -1;
	fd = memfd_create("bench-guest", MFD_CLOEXEC | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
	if (fd < 0 || ftruncate(fd, (off_t)shape->bytes))
		die(NULL, "cannot make a memfd");
	return fd;
}

void move_guest_init(struct move_guest *guest, const struct guest_shape *shape)
{
	int fd = open_memory(shape);
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
	char *hva;

	*guest = (struct move_guest){ .shape = *shape };
	pthread_mutex_init(&guest->lock, NULL);
	pthread_cond_init(&guest->changed, NULL);
	hva = mmap(NULL, shape->bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (hva == MAP_FAILED)
		die(NULL, "cannot map the guest's memory");
	if (shape->memory == GUEST_THP && madvise(hva, shape->bytes, MADV_HUGEPAGE))
		die(NULL, "no transparent huge pages here");
	if (shape->preallocated && madvise(hva, shape->bytes, MADV_POPULATE_WRITE))
		die(NULL, "cannot populate the guest's memory");
	guest->region = (struct ramlift_region){
		.size_bytes = shape->bytes,
		.hva = hva,
		.memfd = fd,
		.numa_node = -1,
		.page_size_bytes = shape->memory == GUEST_HUGETLB ? HUGE_BYTES : RAMLIFT_PAGE_BYTES,
	};
}

void move_guest_fill(struct move_guest *guest)
{
	uint64_t percent = guest->shape.random_percent;
	uint64_t n_pages = guest->shape.bytes / RAMLIFT_PAGE_BYTES;
	char *hva = guest->region.hva;

	if (guest->shape.data_mib) {
		uint64_t n_mib = guest->shape.bytes >> 20, n = guest->shape.data_mib;

		for (uint64_t i = 0; i < n; i++)
			fill_random(hva + (i * n_mib / n << 20), 1u << 20);
		return;
	}
	if (percent == 100) {
		fill_random(hva, guest->shape.bytes);
		return;
	}
	for (uint64_t i = 0; percent && i < n_pages; i++) {
		if (i * percent / 100 != (i + 1) * percent / 100)
			fill_random(hva + i * RAMLIFT_PAGE_BYTES, RAMLIFT_PAGE_BYTES);
	}
}

/* Write up to n pages somewhere, and say so after each. */
static void write_pages(struct move_guest *guest, uint64_t n, uint64_t *random)
{
	uint64_t set_pages = guest->shape.write_set_bytes / RAMLIFT_PAGE_BYTES;

	while (n--) {
		uint64_t page, *word;

		*random = *random * 6364136223846793005ull + 1442695040888963407ull;
		page = (*random >> 33) % set_pages;
		word = (void *)((char *)guest->region.hva + page * RAMLIFT_PAGE_BYTES);
		*(volatile uint64_t *)word = ++guest->pages_written;
		if (guest->sink)
			ramlift_dirty_mark(guest->sink, 0, page, 1);
	}
}

/* Let others have the lock between groups: pause() waits for one group at most. */
static void write_owed(struct move_guest *guest, uint64_t owed, uint64_t *random)
{
	while (owed && !guest->paused && !guest->ending) {
		uint64_t n = owed < GROUP_PAGES ? owed : GROUP_PAGES;

		write_pages(guest, n, random);
		owed -= n;
		pthread_mutex_unlock(&guest->lock);
		pthread_mutex_lock(&guest->lock);
	}
}

static void *writer_thread(void *argument)
{
	struct move_guest *guest = argument;
	uint64_t random = 1, last_ns = clock_now_ns();
	double owed = 0;

	pthread_mutex_lock(&guest->lock);
	while (!guest->ending) {
		uint64_t rate = guest->shape.write_pages_per_s;

		if (guest->paused) {
			pthread_cond_wait(&guest->changed, &guest->lock);
			last_ns = clock_now_ns();
			continue;
		}
		if (guest->limit_pages_per_s && guest->limit_pages_per_s < rate)
			rate = guest->limit_pages_per_s;
		owed += (double)clock_lap_ns(&last_ns) * (double)rate / (double)NS_PER_S;
		if (owed > (double)rate / 10) /* a writer that was kept off does not catch up */
			owed = (double)rate / 10;
		write_owed(guest, (uint64_t)owed, &random);
		owed -= (double)(uint64_t)owed;
		pthread_mutex_unlock(&guest->lock);
		clock_sleep_until(last_ns + WRITE_EVERY_NS);
		pthread_mutex_lock(&guest->lock);
	}
	pthread_mutex_unlock(&guest->lock);
	return NULL;
}

void move_guest_start(struct move_guest *guest)
{
	if (!guest->shape.write_pages_per_s)
		return;
	if (pthread_create(&guest->writer, NULL, writer_thread, guest))
		die(NULL, "no thread for the writer");
	guest->has_writer = true;
}

static uint64_t digest_part(const char *hva, uint64_t begin, uint64_t end)
{
	uint64_t sum = 0;

	for (uint64_t at = begin; at < end; at += RAMLIFT_PAGE_BYTES) {
		if (!page_is_zero(hva + at))
			sum += XXH3_64bits_withSeed(hva + at, RAMLIFT_PAGE_BYTES, at);
	}
	return sum;
}

uint64_t move_guest_digest(const struct move_guest *guest)
{
	const char *hva = guest->region.hva;
	off_t end = (off_t)guest->shape.bytes, data, hole;
	uint64_t sum = 0;

	if (guest->region.memfd < 0 || guest->shape.memory == GUEST_HUGETLB)
		return digest_part(hva, 0, guest->shape.bytes);
	for (off_t at = 0; at < end; at = hole) {
		data = lseek(guest->region.memfd, at, SEEK_DATA);
		if (data < 0) /* no more of it */
			break;
		hole = lseek(guest->region.memfd, data, SEEK_HOLE);
		if (hole < 0)
			die(NULL, "cannot find the guest's data");
		sum += digest_part(hva, (uint64_t)data, (uint64_t)hole);
	}
	return sum;
}

void move_guest_fini(struct move_guest *guest)
{
	if (guest->has_writer) {
		pthread_mutex_lock(&guest->lock);
		guest->ending = true;
		pthread_cond_signal(&guest->changed);
		pthread_mutex_unlock(&guest->lock);
		pthread_join(guest->writer, NULL);
	}
	munmap(guest->region.hva, guest->shape.bytes);
	if (guest->region.memfd >= 0)
		close(guest->region.memfd);
	pthread_cond_destroy(&guest->changed);
	pthread_mutex_destroy(&guest->lock);
}

/* ---- what the engine asks of the guest ---- */

static int guest_create(void *context, const struct ramlift_guest_offer *offer,
			struct ramlift_region *regions, struct ramlift_error *error)
{
	struct move_guest *guest = context;

	if (offer->n_regions != 1 || regions[0].size_bytes != guest->shape.bytes)
		return error_set(error, -EINVAL, "another guest was announced");
	regions[0].hva = guest->region.hva;
	regions[0].memfd = guest->region.memfd;
	regions[0].numa_node = -1;
	return 0;
}

static void guest_discard(void *context)
{
	(void)context; /* the program ends with the session */
}

static void set_paused(struct move_guest *guest, bool paused)
{
	pthread_mutex_lock(&guest->lock);
	guest->paused = paused;
	if (!paused)
		pthread_cond_signal(&guest->changed);
	pthread_mutex_unlock(&guest->lock);
}

static int guest_pause(void *context, struct ramlift_error *error)
{
	(void)error;
	set_paused(context, true);
	return 0;
}

static int guest_resume(void *context, struct ramlift_error *error)
{
	(void)error;
	set_paused(context, false);
	return 0;
}

static int guest_save(void *context, void **state, size_t *state_bytes, struct ramlift_error *error)
{
	const struct move_guest *guest = context;

	*state = malloc(guest->shape.state_bytes);
	if (!*state)
		return error_set(error, -ENOMEM, "no memory for the guest's state");
	memset(*state, 0x5a, guest->shape.state_bytes);
	*state_bytes = guest->shape.state_bytes;
	return 0;
}

static int guest_load(void *context, const void *state, size_t state_bytes,
		      struct ramlift_error *error)
{
	const struct move_guest *guest = context;

	(void)state;
	if (state_bytes != guest->shape.state_bytes)
		return error_set(error, -EINVAL, "another state came");
	return 0;
}

const struct ramlift_guest_ops move_guest_ops = {
	.create = guest_create,
	.discard = guest_discard,
	.pause = guest_pause,
	.resume = guest_resume,
	.save_state = guest_save,
	.load_state = guest_load,
};

/* ---- which pages it writes: marked as they are written ---- */

static void set_sink(struct move_guest *guest, struct ramlift_dirty_sink *sink)
{
	pthread_mutex_lock(&guest->lock);
	guest->sink = sink;
	pthread_mutex_unlock(&guest->lock);
}

static int dirty_start(void *context, struct ramlift_dirty_sink *sink, struct ramlift_error *error)
{
	(void)error;
	set_sink(context, sink);
	return 0;
}

/* A write and its mark happen under the lock: after it was held once, all
 * earlier ones are marked. */
static int dirty_harvest(void *context, struct ramlift_error *error)
{
	struct move_guest *guest = context;

	(void)error;
	pthread_mutex_lock(&guest->lock);
	pthread_mutex_unlock(&guest->lock);
	return 0;
}

static int dirty_limit(void *context, uint64_t pages_per_second, struct ramlift_error *error)
{
	struct move_guest *guest = context;

	(void)error;
	pthread_mutex_lock(&guest->lock);
	guest->limit_pages_per_s = pages_per_second;
	pthread_mutex_unlock(&guest->lock);
	return 0;
}

static void dirty_stop(void *context)
{
	set_sink(context, NULL);
}

const struct ramlift_dirty_source_ops move_dirty_ops = {
	.start = dirty_start,
	.harvest = dirty_harvest,
	.limit = dirty_limit,
	.stop = dirty_stop,
};
