/* SPDX-License-Identifier: Apache-2.0 */
/* Dirty tracking on the real /dev/kvm: every page that has changed was marked. */
#include "machine_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "fake_sink.h"

static uint8_t *snapshot(const struct ramlift_region *region)
{
	uint8_t *copy = malloc(region->size_bytes);

	assert_non_null(copy);
	memcpy(copy, region->hva, region->size_bytes);
	return copy;
}

/* Each page that differs from the snapshot must have been marked; how many do. */
static uint64_t assert_changes_marked(struct ramlift_dirty_sink *sink, const uint8_t *before,
				      const struct ramlift_region *region)
{
	uint64_t changed = 0;

	for (uint64_t page = 0; page < region->size_bytes / 4096; page++) {
		if (memcmp(before + page * 4096, (uint8_t *)region->hva + page * 4096, 4096) == 0)
			continue;
		changed++;
		if (!sink->marked[0][page])
			fail_msg("page %llu has changed, and was not marked",
				 (unsigned long long)page);
	}
	return changed;
}

/*
 * One session's tracking: start, harvest while the guest runs, stop it, harvest the rest. Before
 * each comparison the copy is as old as the start.
 */
static void track_once(struct machine *machine, struct ramlift_dirty_sink *sink, bool limited)
{
	unsigned n_regions;
	const struct ramlift_region *region = machine_regions(machine, &n_regions);
	void *source;
	const struct ramlift_dirty_source_ops *ops = machine_dirty_source(machine, &source);
	uint8_t *before;
	uint64_t changed;

	assert_ok(machine_pause(machine, &error));
	before = snapshot(region);
	assert_ok(ops->start(source, sink, &error));
	if (limited && ops->limit)
		assert_ok(ops->limit(source, 2000, &error));
	assert_ok(machine_resume(machine, &error));
	for (unsigned i = 0; i < 10; i++) {
		wait_written(machine, 50);
		assert_ok(ops->harvest(source, &error));
	}
	assert_ok(machine_pause(machine, &error));
	if (limited && ops->limit)
		assert_ok(ops->limit(source, 0, &error));
	assert_ok(ops->harvest(source, &error));
	changed = assert_changes_marked(sink, before, region);
	assert_true(changed > 300);
	print_message("%llu pages changed, %llu marked\n", (unsigned long long)changed,
		      (unsigned long long)fake_sink_clear(sink));
	free(before);

	/* After stop() the guest runs as before, and nothing is marked. */
	ops->stop(source);
	assert_ok(machine_resume(machine, &error));
	wait_written(machine, 5000);
	assert_int_equal(fake_sink_clear(sink), 0);
	assert_healthy(machine);
}

static void track(enum machine_dirty_mode mode, uint64_t pages_per_second, bool limited)
{
	const uint64_t n_pages = 32 * MIB / 4096;
	struct machine_config config;
	struct ramlift_dirty_sink sink;
	struct machine *machine;

	config_usual(&config, mode);
	config.workload.pages_per_second = pages_per_second;
	assert_ok(machine_new(&config, &machine, &error));
	fake_sink_init(&sink, &n_pages, 1);
	assert_ok(machine_resume(machine, &error));
	wait_sweeps(machine, 1);
	for (unsigned session = 0; session < 3; session++)
		track_once(machine, &sink, limited);
	machine_free(machine);
	fake_sink_fini(&sink);
}

static void test_ring_tracks(void **state)
{
	(void)state;
	if (no_rings())
		skip();
	track(MACHINE_DIRTY_RING, 20000, false);
}

/* Flat out the rings are full all the time. */
static void test_full_ring_tracks(void **state)
{
	(void)state;
	if (no_rings())
		skip();
	track(MACHINE_DIRTY_RING, 0, false);
}

static void test_limited_ring_tracks(void **state)
{
	(void)state;
	if (no_rings())
		skip();
	track(MACHINE_DIRTY_RING, 0, true);
}

static void test_log_tracks(void **state)
{
	(void)state;
	track(MACHINE_DIRTY_LOG, 20000, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring_tracks),
		cmocka_unit_test(test_full_ring_tracks),
		cmocka_unit_test(test_limited_ring_tracks),
		cmocka_unit_test(test_log_tracks),
	};

	return run_on_kvm("machine_tracking", tests);
}
