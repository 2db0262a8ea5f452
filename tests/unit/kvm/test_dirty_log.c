/* SPDX-License-Identifier: Apache-2.0 */
/* The dirty log against a KVM that behaves, with and without manual protection. */
#include "unit.h"

#include <errno.h>
#include <string.h>

#include "fake_kvm.h"
#include "fake_sink.h"
#include "kvm/dirty_log.h"

/* More than a chunk of 1 GiB, and an end that is no multiple of 64. */
static const uint64_t n_pages[FAKE_KVM_REGIONS] = { 300001, 333 };

struct world {
	struct fake_kvm kvm;
	struct ramlift_dirty_sink sink;
	struct ramlift_dirty_log *log;
	const struct ramlift_dirty_source_ops *ops;
	uint64_t sent[FAKE_KVM_REGIONS][300001];
	uint64_t random, writes;
	bool restless;
};

static struct world world;

static void write_some(unsigned n)
{
	while (n--) {
		unsigned region;
		uint64_t page;

		world.random = world.random * 6364136223846793005ull + 1442695040888963407ull;
		region = world.random >> 40 & 1;
		page = (world.random >> 33) % 40;
		if (world.random >> 45 & 1)
			page = n_pages[region] - 1 - page;
		world.writes += fake_kvm_write(&world.kvm, 0, region, page, world.writes + 1);
	}
}

static void around(void *context, bool after)
{
	(void)context;
	(void)after;
	if (world.restless)
		write_some(3);
}

/* Sent at the moment at which it is marked. */
static void on_mark(void *context, unsigned region, uint64_t first_page, uint64_t n)
{
	(void)context;
	for (uint64_t i = first_page; i < first_page + n; i++)
		world.sent[region][i] = world.kvm.memory[region][i];
	if (world.restless)
		write_some(2);
}

static void setup(bool manual_protect)
{
	struct ramlift_dirty_log_config config;

	memset(&world, 0, sizeof(world));
	fake_kvm_init(&world.kvm, 1, 1024, n_pages);
	fake_sink_init(&world.sink, n_pages, FAKE_KVM_REGIONS);
	world.kvm.has_manual_protect = manual_protect;
	world.kvm.around = around;
	world.sink.on_mark = on_mark;
	config = (struct ramlift_dirty_log_config){
		.vm_fd = world.kvm.vm_fd,
		.regions = world.kvm.regions,
		.slots = world.kvm.slots,
		.n_regions = FAKE_KVM_REGIONS,
	};
	assert_int_equal(ramlift_dirty_log_new(&config, &world.log, NULL), 0);
	world.ops = ramlift_dirty_log_ops();
}

static void teardown(void)
{
	ramlift_dirty_log_free(world.log);
	fake_sink_fini(&world.sink);
	fake_kvm_fini(&world.kvm);
}

static void nothing_is_lost(bool manual_protect)
{
	setup(manual_protect);
	assert_null(world.ops->limit);
	assert_int_equal(world.ops->start(world.log, &world.sink, NULL), 0);
	world.restless = true;
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(world.ops->harvest(world.log, NULL), 0);
	world.restless = false;
	assert_int_equal(world.ops->harvest(world.log, NULL), 0);
	assert_true(world.writes > 100);
	assert_true(manual_protect ? world.kvm.clears > 0 : world.kvm.clears == 0);
	for (unsigned region = 0; region < FAKE_KVM_REGIONS; region++) {
		for (uint64_t page = 0; page < n_pages[region]; page++)
			assert_int_equal(world.sent[region][page], world.kvm.memory[region][page]);
	}
	world.ops->stop(world.log);
	assert_false(world.kvm.tracked[0] || world.kvm.tracked[1]);
	teardown();
}

static void test_manual_protect(void **state)
{
	(void)state;
	nothing_is_lost(true);
}

static void test_plain(void **state)
{
	(void)state;
	nothing_is_lost(false);
}

static void test_marks_exactly(void **state)
{
	(void)state;
	setup(true);
	fake_kvm_write(&world.kvm, 0, 0, 1, 1);
	assert_int_equal(world.ops->start(world.log, &world.sink, NULL), 0);
	assert_int_equal(world.ops->harvest(world.log, NULL), 0);
	assert_int_equal(world.kvm.clears, 0); /* nothing dirty, nothing to protect */
	fake_kvm_write(&world.kvm, 0, 0, 300000, 1);
	fake_kvm_write(&world.kvm, 0, 1, 332, 1);
	assert_int_equal(world.ops->harvest(world.log, NULL), 0);
	assert_true(fake_sink_take(&world.sink, 0, 300000));
	assert_true(fake_sink_take(&world.sink, 1, 332));
	assert_int_equal(fake_sink_clear(&world.sink), 0);
	world.ops->stop(world.log);
	teardown();
}

static void test_start_fails_cleanly(void **state)
{
	struct ramlift_error error;

	(void)state;
	setup(true);
	world.kvm.fail_set_region = 2;
	assert_int_equal(world.ops->start(world.log, &world.sink, &error), -ENOMEM);
	assert_false(world.kvm.tracked[0] || world.kvm.tracked[1]);
	assert_int_equal(world.ops->harvest(world.log, &error), -ENOENT);
	teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manual_protect),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_marks_exactly),
		cmocka_unit_test(test_start_fails_cleanly),
	};

	return cmocka_run_group_tests_name("dirty_log", tests, NULL, NULL);
}
