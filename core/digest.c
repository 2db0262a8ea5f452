/* SPDX-License-Identifier: Apache-2.0 */
#include "core/digest.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <xxhash.h>

#define CHUNKS	    256u /* parts of RAM that threads take in turn */
#define MAX_THREADS 16u

struct digest {
	const struct ram *ram;
	_Atomic unsigned next;
	uint64_t chunks[CHUNKS];
};

static uint64_t digest_stripe(const struct ram *ram, uint64_t stripe)
{
	struct stripe_place place;
	uint64_t length_bytes;

	if (!ram_has_stripe(ram, stripe))
		return 0;
	ram_locate(ram, stripe, &place);
	length_bytes = ram->slices[place.slice].size_bytes - place.offset_bytes;
	if (length_bytes > STRIPE_BYTES)
		length_bytes = STRIPE_BYTES;
	return XXH64(place.hva, length_bytes, stripe);
}

static void *digest_thread(void *argument)
{
	struct digest *digest = argument;
	uint64_t n = digest->ram->n_stripes;

	for (;;) {
		unsigned chunk = atomic_fetch_add(&digest->next, 1);
		uint64_t sum = chunk;

		if (chunk >= CHUNKS)
			return NULL;
		for (uint64_t s = n * chunk / CHUNKS; s < n * (chunk + 1) / CHUNKS; s++) {
			uint64_t stripe = digest_stripe(digest->ram, s);

			sum = XXH64(&stripe, sizeof(stripe), sum);
		}
		digest->chunks[chunk] = sum;
	}
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
	struct digest digest = { .ram = ram };
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
