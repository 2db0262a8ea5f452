/* SPDX-License-Identifier: Apache-2.0 */
#include "core/digest.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#define CHUNKS	     256u /* parts of RAM that threads take in turn */
#define MAX_THREADS  16u
#define WINDOW_PAGES 1024u /* looked at together; whole stripes */

/* Not const, so that it takes no room in the library. */
static unsigned char zeros[STRIPE_BYTES];

struct digest {
	const struct ram *ram;
	uint64_t zero_stripe; /* the digest of a whole stripe of zeros */
	_Atomic unsigned next;
	uint64_t chunks[CHUNKS];
};

/* Where a thread is, and what it knows of what lies ahead in the region. */
struct cursor {
	const struct digest *digest;
	const struct ramlift_region *region;
	uint64_t data_bytes;		     /* up to here the file has no data */
	uint64_t first_page, n_pages;	     /* which pages present[] is about */
	unsigned char present[WINDOW_PAGES]; /* as mincore(2) says it */
	void *copy;			     /* of a stripe; NULL: not needed yet */
};

/*
 * From where on, at or after an offset into the region, its file has data. Asks for data only: a
 * search for the next hole goes through all the pages before it.
 */
static uint64_t next_data(const struct ramlift_region *region, uint64_t offset_bytes)
{
	off_t data;

	if (region->memfd < 0)
		return offset_bytes;
	data = lseek(region->memfd, (off_t)(region->memfd_offset + offset_bytes), SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? region->size_bytes : offset_bytes;
	return (uint64_t)data - region->memfd_offset;
}

/* One call for many stripes: most of its cost is the call. Where it
 * fails, all counts as present. */
static void look_ahead(struct cursor *cursor, uint64_t first_page)
{
	const struct ramlift_region *region = cursor->region;
	uint64_t n_pages = region->size_bytes / RAMLIFT_PAGE_BYTES - first_page;

	cursor->first_page = first_page;
	cursor->n_pages = n_pages < WINDOW_PAGES ? n_pages : WINDOW_PAGES;
	if (region->memfd < 0 || mincore((char *)region->hva + first_page * RAMLIFT_PAGE_BYTES,
					 cursor->n_pages * RAMLIFT_PAGE_BYTES, cursor->present))
		memset(cursor->present, 1, sizeof(cursor->present));
}

/* May the stripe be read where it is mapped? What is in memory already takes no more of it. */
static bool is_present(struct cursor *cursor, uint64_t offset_bytes, uint64_t n_bytes)
{
	uint64_t page = offset_bytes / RAMLIFT_PAGE_BYTES;
	uint64_t end = page + n_bytes / RAMLIFT_PAGE_BYTES;
	unsigned char all = 1;

	if (page < cursor->first_page || end > cursor->first_page + cursor->n_pages)
		look_ahead(cursor, page);
	for (; page < end; page++)
		all &= cursor->present[page - cursor->first_page];
	return all;
}

/*
 * Pages that are not in memory are holes, or swapped out, or huge ones that this process has not
 * mapped: read(2) tells what they hold and allocates nothing. Where that fails, the mapping says
 * the same, at the price of a page.
 */
static uint64_t digest_absent(struct cursor *cursor, uint64_t offset_bytes, uint64_t n_bytes)
{
	const struct ramlift_region *region = cursor->region;
	off_t at = (off_t)(region->memfd_offset + offset_bytes);

	if (!cursor->copy)
		cursor->copy = malloc(STRIPE_BYTES);
	if (!cursor->copy || pread(region->memfd, cursor->copy, n_bytes, at) != (ssize_t)n_bytes)
		return XXH64((char *)region->hva + offset_bytes, n_bytes, 0);
	return XXH64(cursor->copy, n_bytes, 0);
}

static uint64_t digest_stripe(struct cursor *cursor, uint64_t stripe)
{
	const struct ram *ram = cursor->digest->ram;
	unsigned index = ram_region_of_stripe(ram, stripe);
	const struct ramlift_region *region = &ram->regions[index];
	uint64_t offset_bytes = (stripe - ram->first_stripe[index]) * STRIPE_BYTES;
	uint64_t n_bytes = region->size_bytes - offset_bytes;

	if (n_bytes > STRIPE_BYTES)
		n_bytes = STRIPE_BYTES;
	if (cursor->region != region) {
		cursor->region = region;
		cursor->data_bytes = 0;
		cursor->n_pages = 0;
	}
	if (cursor->data_bytes < offset_bytes + n_bytes) {
		if (is_present(cursor, offset_bytes, n_bytes))
			return XXH64((char *)region->hva + offset_bytes, n_bytes, 0);
		cursor->data_bytes = next_data(region, offset_bytes);
	}
	if (cursor->data_bytes < offset_bytes + n_bytes)
		return digest_absent(cursor, offset_bytes, n_bytes);
	return n_bytes == STRIPE_BYTES ? cursor->digest->zero_stripe : XXH64(zeros, n_bytes, 0);
}

static void *digest_thread(void *argument)
{
	struct digest *digest = argument;
	struct cursor cursor = { .digest = digest };
	uint64_t n = digest->ram->n_stripes;

	for (;;) {
		unsigned chunk = atomic_fetch_add(&digest->next, 1);
		uint64_t sum = chunk;

		if (chunk >= CHUNKS)
			break;
		for (uint64_t s = n * chunk / CHUNKS; s < n * (chunk + 1) / CHUNKS; s++) {
			uint64_t stripe;

			if (!ram_has_stripe(digest->ram, s))
				continue;
			stripe = digest_stripe(&cursor, s);
			sum = XXH64(&stripe, sizeof(stripe), sum);
		}
		digest->chunks[chunk] = sum;
	}
	free(cursor.copy);
	return NULL;
}

static unsigned usable_cpus(void)
{
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		return 1;
	return (unsigned)CPU_COUNT(&cpus);
}

uint64_t digest_ram(const struct ram *ram)
{
	struct digest digest = { .ram = ram, .zero_stripe = XXH64(zeros, sizeof(zeros), 0) };
	unsigned n_cpus = usable_cpus();
	pthread_t helpers[MAX_THREADS];
	unsigned n_helpers = 0;

	while (n_helpers + 1 < n_cpus && n_helpers < MAX_THREADS &&
	       !pthread_create(&helpers[n_helpers], NULL, digest_thread, &digest))
		n_helpers++;
	digest_thread(&digest); /* this thread works as well: without any helper it does it all */
	for (unsigned i = 0; i < n_helpers; i++)
		pthread_join(helpers[i], NULL);
	return XXH64(digest.chunks, sizeof(digest.chunks), 0);
}
