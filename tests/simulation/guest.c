/* SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "core/error.h"
#include "host.h"
#include "real.h"

/* What the guest was when it last stopped: whoever runs it next has to have that. */
static struct {
	bool valid, lost;
	struct ramlift_region regions[2]; /* hva: a copy of ours */
	unsigned n_regions;
	uint64_t counter;
	struct copy *running;
} last;

static struct copy *copies;
void (*copy_resumes)(struct copy *copy);

static void forget_image(void)
{
	for (unsigned i = 0; i < last.n_regions; i++)
		__real_free(last.regions[i].hva);
	last.n_regions = 0;
	last.valid = false;
}

void guests_begin(void)
{
	memset(&last, 0, sizeof(last));
	copies = NULL;
}

void guests_end(void)
{
	forget_image();
	while (copies) {
		struct copy *copy = copies;

		copies = copy->next;
		__real_free(copy->protected_);
		__real_free(copy->noted);
		__real_free(copy->harvested);
		__real_free(copy);
	}
}

struct copy *copy_running(void)
{
	return last.running;
}

bool copy_was_lost(void)
{
	return last.lost;
}

void copies_forget(const struct process *process)
{
	if (!last.running || last.running->process != process)
		return;
	happened(30, "the running copy is lost");
	last.running = NULL;
	last.lost = true;
	forget_image();
}

static void stops_running(struct copy *copy)
{
	copy->running = false;
	if (last.running != copy)
		return;
	happened(31, "the guest stands at %s", copy->process->name);
	last.running = NULL;
	forget_image();
	last.n_regions = copy->n_regions;
	for (unsigned i = 0; i < copy->n_regions; i++) {
		last.regions[i] = copy->regions[i];
		last.regions[i].hva = __real_malloc(copy->regions[i].size_bytes);
		if (!last.regions[i].hva)
			abort();
		memcpy(last.regions[i].hva, copy->regions[i].hva, copy->regions[i].size_bytes);
	}
	last.counter = copy->counter;
	last.valid = true;
}

static void check_image(const struct copy *copy)
{
	if (!last.valid)
		return;
	if (copy->n_regions != last.n_regions || copy->counter != last.counter)
		violated("the guest begins to run with another state than it had");
	for (unsigned i = 0; i < copy->n_regions; i++) {
		const char *is = copy->regions[i].hva, *was = last.regions[i].hva;

		if (!memcmp(is, was, copy->regions[i].size_bytes))
			continue;
		for (uint64_t p = 0; p < copy->regions[i].size_bytes / RAMLIFT_PAGE_BYTES; p++) {
			if (memcmp(is + p * RAMLIFT_PAGE_BYTES, was + p * RAMLIFT_PAGE_BYTES,
				   RAMLIFT_PAGE_BYTES) != 0)
				violated("page %llu of region %u is not what it was",
					 (unsigned long long)p, i);
		}
	}
}

static void starts_running(struct copy *copy)
{
	if (last.running && last.running != copy)
		violated("two copies run: at %s and at %s", last.running->process->name,
			 copy->process->name);
	if (last.running != copy)
		check_image(copy);
	happened(32, "the guest runs at %s", copy->process->name);
	copy->running = true;
	last.running = copy;
	last.lost = false;
	task_wake(copy);
}

static uint64_t *page_of(const struct copy *copy, uint64_t page)
{
	uint64_t first_pages = copy->regions[0].size_bytes / RAMLIFT_PAGE_BYTES;

	if (page < first_pages)
		return (uint64_t *)((char *)copy->regions[0].hva + page * RAMLIFT_PAGE_BYTES);
	return (uint64_t *)((char *)copy->regions[1].hva +
			    (page - first_pages) * RAMLIFT_PAGE_BYTES);
}

static int map_region(struct ramlift_region *region, uint64_t gpa, uint64_t size_bytes)
{
	void *hva = aligned_alloc(RAMLIFT_PAGE_BYTES, size_bytes);

	if (!hva)
		return -ENOMEM;
	memset(hva, 0, size_bytes);
	*region = (struct ramlift_region){
		.gpa = gpa,
		.size_bytes = size_bytes,
		.page_size_bytes = 4096,
		.hva = hva,
		.memfd = -1,
		.numa_node = -1,
	};
	return 0;
}

static void unmap_regions(struct copy *copy)
{
	for (unsigned i = 0; i < copy->n_regions; i++)
		free(copy->regions[i].hva);
	copy->n_regions = 0;
	copy->n_pages = 0;
}

static void allow_tracking(struct copy *copy)
{
	__real_free(copy->protected_);
	__real_free(copy->noted);
	__real_free(copy->harvested);
	copy->protected_ = __real_calloc(copy->n_pages, sizeof(*copy->protected_));
	copy->noted = __real_calloc(copy->n_pages, sizeof(*copy->noted));
	copy->harvested = __real_calloc(copy->n_pages, sizeof(*copy->harvested));
	if (!copy->protected_ || !copy->noted || !copy->harvested)
		abort();
}

/* The guest that is there before anything can go wrong. */
static void map_own_region(struct copy *copy, uint64_t gpa, uint64_t n_pages)
{
	while (map_region(&copy->regions[copy->n_regions], gpa, n_pages * RAMLIFT_PAGE_BYTES))
		;
	copy->n_regions++;
}

struct copy *copy_new(uint64_t n_pages)
{
	struct copy *copy = __real_calloc(1, sizeof(*copy));
	uint64_t first_pages = n_pages / 64 > 1 ? 64 * (1 + random_below(n_pages / 64 - 1)) : 0;

	if (!copy)
		abort();
	copy->process = world.current->process;
	copy->next = copies;
	copies = copy;
	copy->nap_ns = 100000 + random_below(5000000);
	copy->limitable = one_in(2);
	if (!n_pages)
		return copy;
	if (!first_pages)
		first_pages = n_pages;
	map_own_region(copy, 0, first_pages);
	if (first_pages < n_pages)
		map_own_region(copy, 4ull << 30, n_pages - first_pages);
	copy->n_pages = n_pages;
	allow_tracking(copy);
	for (uint64_t page = 0; page < n_pages; page++)
		*page_of(copy, page) = one_in(4) ? 0 : random_number();
	return copy;
}

void copy_boot(struct copy *copy)
{
	forget_image();
	starts_running(copy);
}

static void write_page(struct copy *copy)
{
	uint64_t page = random_below(copy->hot_pages);
	uint64_t region = page * RAMLIFT_PAGE_BYTES >= copy->regions[0].size_bytes;
	uint64_t offset = page * RAMLIFT_PAGE_BYTES - (region ? copy->regions[0].size_bytes : 0) +
			  random_below(64) * 8;
	bool by_device = copy->source && one_in(8);

	if (!by_device && copy->tracking && copy->protected_[page]) {
		copy->protected_[page] = false;
		copy->noted[copy->n_noted++] = page;
	}
	page_of(copy, page)[offset % RAMLIFT_PAGE_BYTES / 8] = random_number();
	copy->counter++;
	if (by_device)
		ramlift_source_mark_dirty(copy->source, copy->regions[region].gpa + offset, 8);
}

static void *writer(void *argument)
{
	struct copy *copy = argument;

	while (!copy->quit) {
		if (!copy->running) {
			task_wait(copy, NEVER_NS);
			continue;
		}
		for (unsigned i = 0; i < (copy->busy ? 64 : 4); i++)
			write_page(copy);
		task_sleep(random_below(2 * copy->nap_ns) *
			   (!copy->tracking || copy->limit ? 20 : 1));
	}
	copy->writer_parked = true;
	task_wake(&copy->writer_parked);
	return NULL;
}

void copy_start_writer(struct copy *copy)
{
	copy->hot_pages = copy->busy ? copy->n_pages : 1 + random_below(copy->n_pages);
	copy->has_writer = true;
	task_new(copy->process, "guest", writer, copy)->detached = true;
}

void copy_destroy(struct copy *copy)
{
	stops_running(copy);
	copy->quit = true;
	task_wake(copy);
	while (copy->has_writer && !copy->writer_parked)
		task_wait(&copy->writer_parked, world.now_ns + 1000000000);
	unmap_regions(copy);
}

static int told_to_fail(const char *what, int number, struct ramlift_error *error)
{
	int failure = call_fails(what, number);

	return failure ? error_set(error, -failure, "%s fails", what) : 0;
}

static int create(void *context, const struct ramlift_guest_offer *offer,
		  struct ramlift_region *regions, struct ramlift_error *error)
{
	struct copy *copy = context;
	int ret = told_to_fail("create", ENOMEM, error);

	if (ret)
		return ret;
	task_sleep(random_below(20000000));
	for (unsigned i = 0; i < offer->n_regions; i++) {
		ret = map_region(&copy->regions[i], regions[i].gpa, regions[i].size_bytes);
		if (ret) {
			unmap_regions(copy);
			return error_set(error, ret, "no memory for the guest");
		}
		copy->n_regions++;
		copy->n_pages += regions[i].size_bytes / RAMLIFT_PAGE_BYTES;
		regions[i] = copy->regions[i];
	}
	allow_tracking(copy);
	return 0;
}

static void discard(void *context)
{
	struct copy *copy = context;

	if (copy->running)
		violated("a copy is discarded that runs");
	unmap_regions(copy);
	task_point();
}

static int pause_(void *context, struct ramlift_error *error)
{
	struct copy *copy = context;
	int ret;

	task_sleep(random_below(3000000));
	ret = told_to_fail("pause", EIO, error);
	stops_running(copy);
	task_point();
	return ret;
}

static int resume(void *context, struct ramlift_error *error)
{
	struct copy *copy = context;
	bool arrived = !copy->source;
	int ret = 0;

	pass_point("resume");
	task_sleep(random_below(3000000));
	if (arrived) /* a guest that is to run on at the source cannot fail to */
		ret = told_to_fail("resume", one_in(2) ? EIO : EBUSY, error);
	if (ret)
		return ret;
	if (copy_resumes)
		copy_resumes(copy);
	starts_running(copy);
	pass_point("resume");
	return 0;
}

static int save_state(void *context, void **state, size_t *state_bytes, struct ramlift_error *error)
{
	struct copy *copy = context;
	size_t size = sizeof(copy->counter) + random_below(3000);
	int ret = told_to_fail("save", EIO, error);

	if (ret)
		return ret;
	task_sleep(random_below(3000000));
	*state = malloc(size);
	if (!*state)
		return error_set(error, -ENOMEM, "no memory for the state");
	memcpy(*state, &copy->counter, sizeof(copy->counter));
	*state_bytes = size;
	return 0;
}

static int load_state(void *context, const void *state, size_t state_bytes,
		      struct ramlift_error *error)
{
	struct copy *copy = context;
	int ret = told_to_fail("load", EINVAL, error);

	task_sleep(random_below(10000000));
	if (ret)
		return ret;
	if (state_bytes < sizeof(copy->counter))
		return error_set(error, -EINVAL, "the state has a wrong size");
	memcpy(&copy->counter, state, sizeof(copy->counter));
	return 0;
}

const struct ramlift_guest_ops copy_guest_ops = {
	.create = create,
	.discard = discard,
	.pause = pause_,
	.resume = resume,
	.save_state = save_state,
	.load_state = load_state,
};

/* Rule 1: protected again before it is published. */
static void harvest(struct copy *copy)
{
	uint64_t first_pages = copy->regions[0].size_bytes / RAMLIFT_PAGE_BYTES, n;
	const uint64_t *pages = copy->harvested;

	while (copy->harvesting)
		task_wait(&copy->harvesting, NEVER_NS);
	copy->harvesting = true;
	n = copy->n_noted;
	memcpy(copy->harvested, copy->noted, n * sizeof(*pages));
	copy->n_noted = 0;
	for (uint64_t i = 0; i < n; i++)
		copy->protected_[pages[i]] = true;
	task_sleep(random_below(one_in(4) ? 5000000 : 50000));
	for (uint64_t i = 0; i < n; i++) {
		bool second = pages[i] >= first_pages;

		ramlift_dirty_mark(copy->sink, second, pages[i] - (second ? first_pages : 0), 1);
	}
	copy->harvesting = false;
	task_wake(&copy->harvesting);
}

/* As a KVM host's: rings are emptied all the time. */
static void *harvester(void *argument)
{
	struct copy *copy = argument;

	while (copy->tracking) {
		harvest(copy);
		task_wait(&copy->tracking, world.now_ns + random_below(10000000));
	}
	return NULL;
}

static int dirty_start(void *context, struct ramlift_dirty_sink *sink, struct ramlift_error *error)
{
	struct copy *copy = context;
	int ret = told_to_fail("tracking", EIO, error);

	if (ret)
		return ret;
	copy->sink = sink;
	copy->n_noted = 0;
	for (uint64_t page = 0; page < copy->n_pages; page++)
		copy->protected_[page] = true;
	copy->tracking = true;
	copy->harvester = task_new(copy->process, "harvester", harvester, copy);
	task_point();
	return 0;
}

static int dirty_harvest(void *context, struct ramlift_error *error)
{
	int ret = told_to_fail("harvest", EIO, error);

	if (!ret)
		harvest(context);
	return ret;
}

static int dirty_limit(void *context, uint64_t pages_per_second, struct ramlift_error *error)
{
	struct copy *copy = context;

	(void)error;
	if (!copy->limitable)
		return -EOPNOTSUPP;
	copy->limit = pages_per_second;
	return 0;
}

static void dirty_stop(void *context)
{
	struct copy *copy = context;

	copy->tracking = false;
	task_wake(&copy->tracking);
	pthread_join((pthread_t)copy->harvester, NULL);
	copy->sink = NULL;
}

const struct ramlift_dirty_source_ops copy_dirty_ops = {
	.start = dirty_start,
	.harvest = dirty_harvest,
	.limit = dirty_limit,
	.stop = dirty_stop,
};
