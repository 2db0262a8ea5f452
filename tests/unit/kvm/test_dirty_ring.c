/* SPDX-License-Identifier: Apache-2.0 */
/* The dirty rings against a KVM that behaves: nothing is lost, whenever the guest writes. */
#include "unit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "fake_kvm.h"
#include "fake_sink.h"
#include "kvm/dirty_ring.h"

#define ENTRIES 256u

static const uint64_t n_pages[FAKE_KVM_REGIONS] = { 1000, 333 };

/*
 * A guest, and an engine that sends a page at the very moment at which it is marked, which is the
 * earliest that the seam allows. Nothing is lost if in the end `sent` is what memory is.
 */
struct world {
	struct fake_kvm kvm;
	struct ramlift_dirty_sink sink;
	struct ramlift_dirty_ring *ring;
	const struct ramlift_dirty_source_ops *ops;
	_Atomic uint64_t sent[FAKE_KVM_REGIONS][1000];
	pthread_mutex_t lock; /* of random and writes */
	uint64_t random;
	uint64_t writes;
	atomic_bool restless; /* writes happen around every step of a harvest */
	atomic_bool paused;
};

static uint64_t random_below(uint64_t *state, uint64_t n)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (*state >> 33) % n;
}

static void write_some(struct world *world, unsigned n)
{
	pthread_mutex_lock(&world->lock);
	while (n--) {
		unsigned vcpu = (unsigned)random_below(&world->random, world->kvm.n_vcpus);
		unsigned region = (unsigned)random_below(&world->random, FAKE_KVM_REGIONS);
		uint64_t page = random_below(&world->random, 40);

		world->writes += fake_kvm_write(&world->kvm, vcpu, region, page, world->writes + 1);
	}
	pthread_mutex_unlock(&world->lock);
}

static void around(void *context, bool after)
{
	struct world *world = context;

	(void)after;
	if (world->restless)
		write_some(world, 3);
}

static void on_mark(void *context, unsigned region, uint64_t first_page, uint64_t n)
{
	struct world *world = context;

	for (uint64_t i = first_page; i < first_page + n; i++)
		world->sent[region][i] = world->kvm.memory[region][i];
	if (world->restless)
		write_some(world, 2);
}

static void setup(struct world *world, unsigned n_vcpus)
{
	struct ramlift_dirty_ring_config config;

	memset(world, 0, sizeof(*world));
	pthread_mutex_init(&world->lock, NULL);
	fake_kvm_init(&world->kvm, n_vcpus, ENTRIES, n_pages);
	fake_sink_init(&world->sink, n_pages, FAKE_KVM_REGIONS);
	world->kvm.around = around;
	world->sink.on_mark = on_mark;
	world->kvm.context = world->sink.context = world;
	config = (struct ramlift_dirty_ring_config){
		.vm_fd = world->kvm.vm_fd,
		.vcpu_fds = world->kvm.vcpu_fds,
		.n_vcpus = n_vcpus,
		.entries = ENTRIES,
		.regions = world->kvm.regions,
		.slots = world->kvm.slots,
		.n_regions = FAKE_KVM_REGIONS,
	};
	assert_int_equal(ramlift_dirty_ring_enable(world->kvm.vm_fd, ENTRIES, NULL), 0);
	assert_int_equal(ramlift_dirty_ring_new(&config, &world->ring, NULL), 0);
	world->ops = ramlift_dirty_ring_ops();
}

static void teardown(struct world *world)
{
	ramlift_dirty_ring_free(world->ring);
	fake_sink_fini(&world->sink);
	fake_kvm_fini(&world->kvm);
	pthread_mutex_destroy(&world->lock);
}

static void start(struct world *world)
{
	assert_int_equal(world->ops->start(world->ring, &world->sink, NULL), 0);
}

static void harvest(struct world *world)
{
	assert_int_equal(world->ops->harvest(world->ring, NULL), 0);
}

static void assert_nothing_lost(struct world *world)
{
	for (unsigned region = 0; region < FAKE_KVM_REGIONS; region++) {
		for (uint64_t page = 0; page < n_pages[region]; page++) {
			if (world->sent[region][page] != world->kvm.memory[region][page])
				fail_msg("region %u page %llu: sent %llu, memory has %llu", region,
					 (unsigned long long)page,
					 (unsigned long long)world->sent[region][page],
					 (unsigned long long)world->kvm.memory[region][page]);
		}
	}
}

static void test_marks_what_was_written(void **state)
{
	struct world world;

	(void)state;
	setup(&world, 2);
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 5, 1)); /* before the start: not tracked */
	start(&world);
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 6, 2));
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 7, 2));
	assert_true(fake_kvm_write(&world.kvm, 1, 1, 332, 3));
	harvest(&world);
	assert_true(fake_sink_take(&world.sink, 0, 6));
	assert_true(fake_sink_take(&world.sink, 0, 7));
	assert_true(fake_sink_take(&world.sink, 1, 332));
	assert_int_equal(fake_sink_clear(&world.sink), 0);
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 6, 4)); /* armed again */
	harvest(&world);
	assert_true(fake_sink_take(&world.sink, 0, 6));
	world.ops->stop(world.ring);
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 6, 5));
	assert_int_equal(fake_sink_clear(&world.sink), 0);
	teardown(&world);
}

/* Rule 1: fails when publish() comes before reset(). */
static void test_reset_comes_before_publish(void **state)
{
	struct world world;

	(void)state;
	for (unsigned seed = 0; seed < 20; seed++) {
		setup(&world, 3);
		world.random = seed;
		world.kvm.interrupt_resets = seed % 2;
		start(&world);
		world.restless = true;
		for (unsigned i = 0; i < 50; i++) {
			write_some(&world, 1);
			harvest(&world);
		}
		world.restless = false; /* paused */
		harvest(&world);
		harvest(&world);
		assert_true(world.writes > 100);
		assert_nothing_lost(&world);
		world.ops->stop(world.ring);
		teardown(&world);
	}
}

static bool is_paused(void *context)
{
	return ((struct world *)context)->paused;
}

struct writer {
	struct world *world;
	unsigned vcpu;
	uint64_t fulls;
};

static void *writer_thread(void *context)
{
	struct writer *writer = context;
	struct world *world = writer->world;
	uint64_t random = writer->vcpu + 1, value = 0;

	while (!world->paused) {
		unsigned region = (unsigned)random_below(&random, FAKE_KVM_REGIONS);
		uint64_t page = random_below(&random, n_pages[region]);

		value = (value + 1) << 8 | writer->vcpu;
		while (!fake_kvm_write(&world->kvm, writer->vcpu, region, page, value) &&
		       !world->paused) {
			writer->fulls++;
			ramlift_dirty_ring_wait(world->ring, writer->vcpu, is_paused, world);
		}
	}
	return NULL;
}

/* vCPU threads that write all the time, with rings that are full all the time. */
static void run_threads(uint64_t limit)
{
	struct world world;
	struct writer writers[FAKE_KVM_MAX_VCPUS];
	pthread_t threads[FAKE_KVM_MAX_VCPUS];

	setup(&world, FAKE_KVM_MAX_VCPUS);
	start(&world);
	assert_int_equal(world.ops->limit(world.ring, limit, NULL), 0);
	for (unsigned i = 0; i < FAKE_KVM_MAX_VCPUS; i++) {
		writers[i] = (struct writer){ &world, i, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, writer_thread, &writers[i]), 0);
	}
	for (unsigned i = 0; i < 50; i++) {
		harvest(&world);
		clock_sleep_until(clock_now_ns() + 4 * NS_PER_MS);
	}
	world.paused = true;
	ramlift_dirty_ring_wake(world.ring);
	for (unsigned i = 0; i < FAKE_KVM_MAX_VCPUS; i++) {
		pthread_join(threads[i], NULL);
		assert_true(writers[i].fulls > 0);
	}
	assert_int_equal(world.ops->limit(world.ring, 0, NULL), 0);
	harvest(&world);
	assert_nothing_lost(&world);
	assert_true(world.sink.marks > 0);
	world.ops->stop(world.ring);
	teardown(&world);
}

static void test_full_rings(void **state)
{
	(void)state;
	run_threads(0);
}

static void test_full_rings_under_a_limit(void **state)
{
	(void)state;
	run_threads(500);
}

static uint64_t write_until_full(struct world *world, unsigned vcpu, uint64_t first_page)
{
	uint64_t n = 0;

	while (fake_kvm_write(&world->kvm, vcpu, 0, first_page + n, 1))
		n++;
	return n;
}

/* All that is there is taken at once; the next is taken when time has paid for what was. */
static void test_limit(void **state)
{
	struct world world;
	uint64_t begin_ns;

	(void)state;
	setup(&world, 1);
	start(&world);
	assert_int_equal(world.ops->limit(world.ring, 1000, NULL), 0);
	begin_ns = clock_now_ns();
	for (uint64_t i = 0; i < 12; i++) {
		uint64_t paid = world.sink.marks;

		for (unsigned j = 0; j < 20; j++)
			assert_true(fake_kvm_write(&world.kvm, 0, 0, i * 20 + j, 1));
		while (world.sink.marks == paid)
			harvest(&world);
		while (world.sink.marks < paid + 20) /* the harvest thread is at it */
			harvest(&world);
		assert_true(paid <= (clock_now_ns() - begin_ns) / NS_PER_MS + 1);
	}
	world.ops->stop(world.ring);
	teardown(&world);
}

struct waiter {
	struct world *world;
	atomic_bool released;
	pthread_t thread;
};

static void *wait_for_room(void *context)
{
	struct waiter *waiter = context;

	ramlift_dirty_ring_wait(waiter->world->ring, 0, is_paused, waiter->world);
	waiter->released = true;
	return NULL;
}

static void start_waiter(struct waiter *waiter, struct world *world)
{
	waiter->world = world;
	waiter->released = false;
	assert_int_equal(pthread_create(&waiter->thread, NULL, wait_for_room, waiter), 0);
}

/*
 * Under a limit the ring of a vCPU that it stops is emptied, so that the rest of a switchover stays
 * small, but the vCPU waits for its debt to be paid: until the limit goes, or a pause comes.
 */
static void test_stopped_vcpus_are_harvested(void **state)
{
	struct waiter waiter;
	struct world world;
	uint64_t n;

	(void)state;
	for (unsigned how = 0; how < 3; how++) {
		setup(&world, 2);
		start(&world);
		assert_int_equal(world.ops->limit(world.ring, 60, NULL), 0);
		n = write_until_full(&world, 1, 300);
		while (world.sink.marks < n) /* this takes 3 s to pay for */
			harvest(&world);
		/* A vCPU that is not stopped goes on, and its ring fills up. */
		assert_true(fake_kvm_write(&world.kvm, 1, 0, 500, 1));
		n += write_until_full(&world, 0, 0);
		start_waiter(&waiter, &world);
		while (world.sink.marks < n)
			harvest(&world);
		assert_int_equal(world.sink.marks, n);
		assert_int_equal(world.ops->backlog(world.ring), 1);
		assert_false(waiter.released);
		if (how == 0) {
			assert_int_equal(world.ops->limit(world.ring, 0, NULL), 0);
		} else if (how == 1) {
			world.paused = true;
			ramlift_dirty_ring_wake(world.ring);
		} /* else time pays */
		pthread_join(waiter.thread, NULL);
		assert_true(waiter.released);
		assert_int_equal(world.ops->limit(world.ring, 0, NULL), 0);
		harvest(&world);
		assert_int_equal(world.sink.marks, n + 1);
		world.ops->stop(world.ring);
		teardown(&world);
	}
}

/* Under a limit that lets nothing through, what the guest wrote waits in the rings and is counted,
 * up to full rings and wherever in the ring it begins. */
static void test_backlog(void **state)
{
	struct world world;

	(void)state;
	setup(&world, 2);
	start(&world);
	for (unsigned round = 0; round < 10; round++) {
		uint64_t n[2] = { 0, 0 };

		assert_int_equal(world.ops->backlog(world.ring), 0);
		assert_int_equal(world.ops->limit(world.ring, 1, NULL), 0);
		for (unsigned i = 0; i < 20 + 17 * round; i++)
			n[0] += fake_kvm_write(&world.kvm, 0, 0, i, 1);
		assert_int_equal(world.ops->backlog(world.ring), n[0]);
		n[1] = write_until_full(&world, 1, 300);
		assert_int_equal(n[1], ENTRIES - FAKE_KVM_RESERVED);
		assert_int_equal(world.ops->backlog(world.ring), n[0] + n[1]);
		assert_int_equal(world.ops->limit(world.ring, 0, NULL), 0);
		harvest(&world);
	}
	world.ops->stop(world.ring);
	teardown(&world);
}

static void test_strays_are_counted_and_freed(void **state)
{
	struct world world;

	(void)state;
	setup(&world, 1);
	start(&world);
	fake_kvm_push(&world.kvm, 0, 99, 1);
	fake_kvm_push(&world.kvm, 0, FAKE_KVM_FIRST_SLOT, 1000);
	fake_kvm_push(&world.kvm, 0, FAKE_KVM_FIRST_SLOT + 1, UINT64_MAX);
	fake_kvm_push(&world.kvm, 0, FAKE_KVM_FIRST_SLOT, 999);
	harvest(&world);
	assert_int_equal(ramlift_dirty_ring_strays(world.ring), 3);
	assert_int_equal(fake_sink_clear(&world.sink), 1);
	assert_int_equal(world.kvm.rings[0].reset, world.kvm.rings[0].dirty);
	world.ops->stop(world.ring);
	teardown(&world);
}

/* Pages whose reset failed are published once a reset has succeeded, not before. */
static void test_failed_reset(void **state)
{
	struct ramlift_error error;
	struct world world;

	(void)state;
	setup(&world, 1);
	start(&world);
	pthread_mutex_lock(&world.kvm.lock);
	world.kvm.fail_reset = EIO;
	pthread_mutex_unlock(&world.kvm.lock);
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 3, 1));
	assert_int_equal(world.ops->harvest(world.ring, &error), -EIO);
	assert_non_null(strstr(error.text, "KVM_RESET_DIRTY_RINGS"));
	assert_int_equal(fake_sink_clear(&world.sink), 0);
	pthread_mutex_lock(&world.kvm.lock);
	world.kvm.fail_reset = 0;
	pthread_mutex_unlock(&world.kvm.lock);
	world.ops->stop(world.ring);
	assert_int_equal(world.kvm.rings[0].reset, world.kvm.rings[0].dirty);
	/* And the next session is a new one. */
	fake_sink_clear(&world.sink);
	start(&world);
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 4, 1));
	harvest(&world);
	assert_int_equal(fake_sink_clear(&world.sink), 1);
	world.ops->stop(world.ring);
	teardown(&world);
}

static void *wait_once(void *context)
{
	struct world *world = context;

	ramlift_dirty_ring_wait(world->ring, 0, is_paused, world);
	return NULL;
}

/* The end of a session lets waiting vCPUs go, even if no harvest ever succeeds again. */
static void test_stop_wakes_though_reset_fails(void **state)
{
	struct world world;
	pthread_t thread;

	(void)state;
	setup(&world, 1);
	start(&world);
	pthread_mutex_lock(&world.kvm.lock);
	world.kvm.fail_reset = EIO;
	pthread_mutex_unlock(&world.kvm.lock);
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 3, 1));
	assert_int_equal(pthread_create(&thread, NULL, wait_once, &world), 0);
	clock_sleep_until(clock_now_ns() + 50 * NS_PER_MS); /* it waits now */
	world.ops->stop(world.ring);
	pthread_join(thread, NULL);
	pthread_mutex_lock(&world.kvm.lock);
	world.kvm.fail_reset = 0;
	pthread_mutex_unlock(&world.kvm.lock);
	teardown(&world);
}

static void test_start_fails_cleanly(void **state)
{
	struct ramlift_error error;
	struct world world;

	(void)state;
	setup(&world, 1);
	world.kvm.fail_set_region = 2;
	assert_int_equal(world.ops->start(world.ring, &world.sink, &error), -ENOMEM);
	assert_false(world.kvm.tracked[0]);
	assert_false(world.kvm.tracked[1]);
	start(&world);
	assert_true(world.kvm.tracked[0] && world.kvm.tracked[1]);
	world.ops->stop(world.ring);
	assert_false(world.kvm.tracked[0] || world.kvm.tracked[1]);
	teardown(&world);
}

/* Outside a session nobody harvests, so a vCPU that is full empties the rings itself. */
static void test_full_outside_a_session(void **state)
{
	struct world world;

	(void)state;
	setup(&world, 1);
	for (unsigned i = 0; i < ENTRIES - FAKE_KVM_RESERVED; i++)
		fake_kvm_push(&world.kvm, 0, FAKE_KVM_FIRST_SLOT, i);
	assert_false(fake_kvm_write(&world.kvm, 0, 0, 1, 1));
	ramlift_dirty_ring_wait(world.ring, 0, is_paused, &world);
	assert_true(fake_kvm_write(&world.kvm, 0, 0, 1, 1));
	/* Leftovers do not show in the next session. */
	fake_kvm_push(&world.kvm, 0, FAKE_KVM_FIRST_SLOT, 9);
	start(&world);
	harvest(&world);
	assert_int_equal(fake_sink_clear(&world.sink), 0);
	world.ops->stop(world.ring);
	teardown(&world);
}

static void test_enable(void **state)
{
	struct ramlift_error error;
	struct fake_kvm kvm;

	(void)state;
	fake_kvm_init(&kvm, 1, ENTRIES, n_pages);
	assert_int_equal(ramlift_dirty_ring_enable(kvm.vm_fd, 0, &error), -EINVAL);
	assert_int_equal(ramlift_dirty_ring_enable(kvm.vm_fd, 1000, &error), -EINVAL);
	assert_int_equal(ramlift_dirty_ring_enable(kvm.vm_fd, 131072, &error), -EINVAL);
	assert_int_equal(ramlift_dirty_ring_enable(kvm.vm_fd, 512, &error), -EINVAL); /* KVM's */
	assert_int_equal(ramlift_dirty_ring_enable(kvm.vm_fd, ENTRIES, &error), 0);
	assert_int_equal(kvm.enabled_cap, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
	kvm.has_ring_acq_rel = false;
	assert_int_equal(ramlift_dirty_ring_enable(kvm.vm_fd, ENTRIES, &error), 0);
	assert_int_equal(kvm.enabled_cap, KVM_CAP_DIRTY_LOG_RING);
	kvm.has_ring = false;
	assert_int_equal(ramlift_dirty_ring_enable(kvm.vm_fd, ENTRIES, &error), -EOPNOTSUPP);
	assert_non_null(strstr(error.text, "--dirty log"));
	fake_kvm_fini(&kvm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_marks_what_was_written),
		cmocka_unit_test(test_reset_comes_before_publish),
		cmocka_unit_test(test_full_rings),
		cmocka_unit_test(test_full_rings_under_a_limit),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_stopped_vcpus_are_harvested),
		cmocka_unit_test(test_backlog),
		cmocka_unit_test(test_strays_are_counted_and_freed),
		cmocka_unit_test(test_failed_reset),
		cmocka_unit_test(test_stop_wakes_though_reset_fails),
		cmocka_unit_test(test_start_fails_cleanly),
		cmocka_unit_test(test_full_outside_a_session),
		cmocka_unit_test(test_enable),
	};

	return cmocka_run_group_tests_name("dirty_ring", tests, NULL, NULL);
}
