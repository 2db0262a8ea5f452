/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fake_guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"

static void *page_address(const struct fake_guest *guest, uint64_t page)
{
	uint64_t first_pages = guest->regions[0].size_bytes / RAMLIFT_PAGE_BYTES;

	if (page < first_pages)
		return (char *)guest->regions[0].hva + page * RAMLIFT_PAGE_BYTES;
	return (char *)guest->regions[1].hva + (page - first_pages) * RAMLIFT_PAGE_BYTES;
}

static void map_region(struct ramlift_region *region, uint64_t gpa, uint64_t size_bytes)
{
	int fd = memfd_create("fake-guest", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size_bytes))
		abort();
	region->gpa = gpa;
	region->size_bytes = size_bytes;
	region->page_size_bytes = 4096;
	region->memfd = fd;
	region->memfd_offset = 0;
	region->numa_node = -1;
	region->hva = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (region->hva == MAP_FAILED)
		abort();
}

static void unmap_regions(struct fake_guest *guest)
{
	for (unsigned i = 0; i < guest->n_regions; i++) {
		munmap(guest->regions[i].hva, guest->regions[i].size_bytes);
		close(guest->regions[i].memfd);
	}
	guest->n_regions = 0;
}

static void stamp(struct fake_guest *guest, uint64_t page, uint64_t generation)
{
	uint64_t *words = page_address(guest, page);

	for (unsigned i = 0; i < RAMLIFT_PAGE_BYTES / sizeof(*words); i += 8)
		words[i] = page * 1000003 + generation;
}

void fake_guest_init(struct fake_guest *guest, uint64_t size_bytes)
{
	uint64_t first_bytes = size_bytes / 3 / RAMLIFT_PAGE_BYTES * RAMLIFT_PAGE_BYTES;

	memset(guest, 0, sizeof(*guest));
	pthread_mutex_init(&guest->lock, NULL);
	pthread_mutex_init(&guest->harvest_lock, NULL);
	if (!size_bytes) /* a destination: create() brings the rest */
		return;
	map_region(&guest->regions[0], 0, first_bytes);
	map_region(&guest->regions[1], 4ull << 30, size_bytes - first_bytes);
	guest->n_regions = 2;
	guest->n_pages = size_bytes / RAMLIFT_PAGE_BYTES;
	guest->protected_ = calloc(guest->n_pages, sizeof(*guest->protected_));
	guest->noted = calloc(guest->n_pages, sizeof(*guest->noted));
	guest->state = 0x1234567890abcdef;
	for (uint64_t page = 0; page < guest->n_pages - guest->n_pages / 4; page++)
		stamp(guest, page, 0);
}

void fake_guest_write(struct fake_guest *guest, uint64_t page, uint64_t generation)
{
	pthread_mutex_lock(&guest->lock);
	if (guest->tracking && guest->protected_[page]) {
		guest->protected_[page] = false;
		guest->noted[guest->n_noted++] = page;
	}
	stamp(guest, page, generation);
	pthread_mutex_unlock(&guest->lock);
}

static void *writer_thread(void *argument)
{
	struct fake_guest *guest = argument;
	uint64_t random = 88172645463325252ull;

	for (uint64_t generation = 1; !atomic_load(&guest->quit); generation++) {
		if (!atomic_load(&guest->run)) {
			atomic_store(&guest->parked, true);
			usleep(100);
			continue;
		}
		atomic_store(&guest->parked, false);
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		fake_guest_write(guest, random % guest->hot_pages, generation);
		atomic_fetch_add(&guest->n_writes, 1);
		if (guest->nap_us)
			usleep(guest->nap_us);
	}
	atomic_store(&guest->parked, true);
	return NULL;
}

void fake_guest_start_writer(struct fake_guest *guest, uint64_t hot_pages, unsigned nap_us)
{
	guest->hot_pages = hot_pages;
	guest->nap_us = nap_us;
	atomic_store(&guest->run, true);
	if (pthread_create(&guest->thread, NULL, writer_thread, guest))
		abort();
	guest->has_thread = true;
}

void fake_guest_fini(struct fake_guest *guest)
{
	atomic_store(&guest->quit, true);
	if (guest->has_thread)
		pthread_join(guest->thread, NULL);
	unmap_regions(guest);
	free(guest->protected_);
	free(guest->noted);
	pthread_mutex_destroy(&guest->lock);
	pthread_mutex_destroy(&guest->harvest_lock);
}

uint64_t fake_guest_populated_bytes(const struct fake_guest *guest)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < guest->n_regions; i++) {
		struct stat file;

		if (fstat(guest->regions[i].memfd, &file))
			abort();
		bytes += (uint64_t)file.st_blocks * 512;
	}
	return bytes;
}

bool fake_guest_device_begin(struct fake_guest *guest)
{
	pthread_mutex_lock(&guest->lock);
	if (!guest->paused)
		return true;
	pthread_mutex_unlock(&guest->lock);
	return false;
}

void fake_guest_device_end(struct fake_guest *guest)
{
	pthread_mutex_unlock(&guest->lock);
}

bool fake_guest_same_ram(const struct fake_guest *a, const struct fake_guest *b)
{
	if (a->n_regions != b->n_regions)
		return false;
	for (unsigned i = 0; i < a->n_regions; i++) {
		if (a->regions[i].size_bytes != b->regions[i].size_bytes ||
		    memcmp(a->regions[i].hva, b->regions[i].hva, a->regions[i].size_bytes) != 0)
			return false;
	}
	return true;
}

static int fail_with(int code, const char *what, struct ramlift_error *error)
{
	return code ? error_set(error, code, "%s fails as it was told to", what) : 0;
}

static int fake_create(void *context, const struct ramlift_guest_offer *offer,
		       struct ramlift_region *regions, struct ramlift_error *error)
{
	struct fake_guest *guest = context;

	guest->creates++;
	if (guest->fail_create)
		return fail_with(guest->fail_create, "creating", error);
	guest->n_regions = offer->n_regions;
	for (unsigned i = 0; i < offer->n_regions; i++) {
		map_region(&guest->regions[i], regions[i].gpa, regions[i].size_bytes);
		regions[i] = guest->regions[i];
		guest->n_pages += regions[i].size_bytes / RAMLIFT_PAGE_BYTES;
	}
	guest->created = true;
	return 0;
}

static void fake_discard(void *context)
{
	struct fake_guest *guest = context;

	guest->discards++;
	guest->created = false;
	guest->n_pages = 0;
	unmap_regions(guest);
}

static int fake_pause(void *context, struct ramlift_error *error)
{
	struct fake_guest *guest = context;

	guest->pauses++;
	if (guest->last_page)
		fake_guest_write(guest, guest->last_page, 1);
	pthread_mutex_lock(&guest->lock);
	guest->paused = true;
	pthread_mutex_unlock(&guest->lock);
	atomic_store(&guest->run, false);
	atomic_store(&guest->parked, false);
	while (guest->has_thread && !atomic_load(&guest->parked))
		usleep(10);
	return fail_with(guest->fail_pause, "pausing", error);
}

static int fake_resume(void *context, struct ramlift_error *error)
{
	struct fake_guest *guest = context;

	guest->resumes++;
	if (guest->fail_resume)
		return fail_with(guest->fail_resume, "resuming", error);
	pthread_mutex_lock(&guest->lock);
	guest->paused = false;
	pthread_mutex_unlock(&guest->lock);
	atomic_store(&guest->run, true);
	return 0;
}

static int fake_save(void *context, void **state, size_t *state_bytes, struct ramlift_error *error)
{
	struct fake_guest *guest = context;

	guest->saves++;
	if (guest->fail_save)
		return fail_with(guest->fail_save, "saving", error);
	*state = malloc(sizeof(guest->state));
	memcpy(*state, &guest->state, sizeof(guest->state));
	*state_bytes = sizeof(guest->state);
	return 0;
}

static int fake_load(void *context, const void *state, size_t state_bytes,
		     struct ramlift_error *error)
{
	struct fake_guest *guest = context;

	guest->loads++;
	if (guest->fail_load)
		return fail_with(guest->fail_load, "loading", error);
	if (state_bytes != sizeof(guest->state))
		return error_set(error, -EINVAL, "the state has a wrong size");
	memcpy(&guest->state, state, state_bytes);
	return 0;
}

const struct ramlift_guest_ops fake_guest_ops = {
	.create = fake_create,
	.discard = fake_discard,
	.pause = fake_pause,
	.resume = fake_resume,
	.save_state = fake_save,
	.load_state = fake_load,
};

static void publish(struct fake_guest *guest, const uint64_t *pages, uint64_t n)
{
	uint64_t first_pages = guest->regions[0].size_bytes / RAMLIFT_PAGE_BYTES;

	for (uint64_t i = 0; i < n; i++) {
		if (pages[i] < first_pages)
			ramlift_dirty_mark(guest->sink, 0, pages[i], 1);
		else
			ramlift_dirty_mark(guest->sink, 1, pages[i] - first_pages, 1);
	}
}

static void protect(struct fake_guest *guest, const uint64_t *pages, uint64_t n)
{
	pthread_mutex_lock(&guest->lock);
	for (uint64_t i = 0; i < n; i++)
		guest->protected_[pages[i]] = true;
	pthread_mutex_unlock(&guest->lock);
}

static void harvest_all(struct fake_guest *guest)
{
	uint64_t *pages = malloc(guest->n_pages * sizeof(*pages));
	uint64_t n;

	if (!pages)
		abort();
	pthread_mutex_lock(&guest->harvest_lock);
	pthread_mutex_lock(&guest->lock);
	n = guest->n_noted;
	memcpy(pages, guest->noted, n * sizeof(*pages));
	guest->n_noted = 0;
	pthread_mutex_unlock(&guest->lock);
	if (guest->break_rule_1) {
		publish(guest, pages, n);
		usleep(50000); /* lanes may read the pages now, and the writer writes them unseen */
		protect(guest, pages, n);
	} else {
		protect(guest, pages, n);
		publish(guest, pages, n);
	}
	pthread_mutex_unlock(&guest->harvest_lock);
	free(pages);
}

static int fake_harvest(void *context, struct ramlift_error *error)
{
	struct fake_guest *guest = context;

	harvest_all(guest);
	return fail_with(guest->fail_harvest, "harvesting", error);
}

static void *harvester_thread(void *argument)
{
	struct fake_guest *guest = argument;

	while (atomic_load(&guest->tracking)) {
		harvest_all(guest);
		usleep(100);
	}
	return NULL;
}

static int fake_dirty_start(void *context, struct ramlift_dirty_sink *sink,
			    struct ramlift_error *error)
{
	struct fake_guest *guest = context;

	(void)error;
	pthread_mutex_lock(&guest->lock);
	guest->starts++;
	guest->sink = sink;
	guest->tracking = true;
	guest->n_noted = 0;
	for (uint64_t page = 0; page < guest->n_pages; page++)
		guest->protected_[page] = true;
	pthread_mutex_unlock(&guest->lock);
	if (pthread_create(&guest->harvester, NULL, harvester_thread, guest))
		abort();
	return 0;
}

static void fake_dirty_stop(void *context)
{
	struct fake_guest *guest = context;

	guest->stops++;
	atomic_store(&guest->tracking, false);
	pthread_join(guest->harvester, NULL);
}

const struct ramlift_dirty_source_ops fake_dirty_ops = {
	.start = fake_dirty_start,
	.harvest = fake_harvest,
	.stop = fake_dirty_stop,
};
