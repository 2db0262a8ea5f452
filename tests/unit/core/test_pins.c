/* SPDX-License-Identifier: Apache-2.0 */
/* Which slices are registered, and when: over the in-memory transport, which ends the process where
 * a slice is written to that is not, and a far side that answers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "far_side.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/memory_transport.h"

#define PAGE	    ((uint64_t)RAMLIFT_PAGE_BYTES)
#define SLICE_BYTES STRIPE_BYTES
#define N_FIRST	    6u
#define N_SECOND    3u /* the last of them is half a slice */
#define N_SLICES    (N_FIRST + N_SECOND)
#define N_LANES	    6u
#define LONG_NS	    (clock_now_ns() + 60 * NS_PER_S) /* against hangs only */
#define A_MOMENT_US 30000

static const unsigned region_rails[] = { 1, 3 };

struct rig {
	struct ramlift_region here[2], there[2];
	struct ram ram, ram_there;
	struct endpoint *from, *to;
	struct far_side far;
	struct pins *pins;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned n_usable; /* calls of usable() */
};

static struct ramlift_transport gated;
static atomic_bool gate_is_closed;

static int gated_register(struct endpoint *endpoint, unsigned slice, unsigned rails,
			  struct slice_key *key, struct ramlift_error *error)
{
	while (atomic_load(&gate_is_closed))
		usleep(500);
	return memory_transport()->register_slice(endpoint, slice, rails, key, error);
}

static void map(struct ramlift_region *regions, struct ram *ram)
{
	static const uint64_t sizes[] = { N_FIRST * SLICE_BYTES,
					  N_SECOND * SLICE_BYTES - SLICE_BYTES / 2 };

	for (unsigned i = 0; i < 2; i++) {
		regions[i] = (struct ramlift_region){ .gpa = (uint64_t)i << 32,
						      .size_bytes = sizes[i],
						      .memfd = -1,
						      .numa_node = -1 };
		regions[i].hva = aligned_alloc(PAGE, sizes[i]);
		assert_non_null(regions[i].hva);
		memset(regions[i].hva, 0, sizes[i]);
	}
	assert_int_equal(ram_init(ram, regions, 2, SLICE_BYTES), 0);
	assert_int_equal(ram->n_slices, N_SLICES);
}

static void usable(void *context)
{
	struct rig *rig = ((struct far_side *)context)->context;

	pthread_mutex_lock(&rig->lock);
	rig->n_usable++;
	pthread_cond_broadcast(&rig->changed);
	pthread_mutex_unlock(&rig->lock);
}

static void rig_init(struct rig *rig, uint64_t budget_bytes, unsigned n_threads)
{
	const struct ramlift_transport *memory = memory_transport();
	struct sockaddr_storage addresses[2];
	struct transport_params params = { .session_id = "pins",
					   .n_rails = 2,
					   .n_lanes = N_LANES,
					   .n_slices = N_SLICES,
					   .interrupt_fd = -1,
					   .io_timeout_ns = 60 * NS_PER_S };
	struct pins_config config = { .ram = &rig->ram,
				      .transport = &gated,
				      .region_rails = region_rails,
				      .n_threads = n_threads,
				      .budget_bytes = budget_bytes,
				      .ask = far_side_ask,
				      .retire = far_side_retire,
				      .usable = usable,
				      .context = &rig->far };

	memset(rig, 0, sizeof(*rig));
	gated = *memory;
	gated.register_slice = gated_register;
	pthread_mutex_init(&rig->lock, NULL);
	clock_cond_init(&rig->changed);
	map(rig->here, &rig->ram);
	map(rig->there, &rig->ram_there);
	params.slices = rig->ram_there.slices;
	assert_int_equal(memory->listen(&params, NULL, &rig->to, addresses, NULL), 0);
	params.slices = rig->ram.slices;
	assert_int_equal(memory->connect(&params, NULL, LONG_NS, &rig->from, NULL), 0);
	far_side_start(&rig->far, rig->from, rig->to);
	rig->far.context = rig;
	config.endpoint = rig->from;
	assert_int_equal(pins_start(&config, &rig->pins, NULL), 0);
	rig->far.pins = rig->pins;
}

static void rig_fini(struct rig *rig)
{
	far_side_stop(&rig->far);
	pins_free(rig->pins);
	memory_transport()->close(rig->from);
	memory_transport()->close(rig->to);
	memory_transport_set_faults(NULL);
	for (unsigned i = 0; i < 2; i++) {
		free(rig->here[i].hva);
		free(rig->there[i].hva);
	}
	ram_fini(&rig->ram);
	ram_fini(&rig->ram_there);
	pthread_cond_destroy(&rig->changed);
	pthread_mutex_destroy(&rig->lock);
	assert_int_equal(memory_transport_open_endpoints(), 0);
}

/* As a lane does. */
static void await(struct rig *rig, unsigned slice)
{
	pthread_mutex_lock(&rig->lock);
	while (!pins_hold(rig->pins, slice)) {
		if (!pins_want(rig->pins, slice))
			pthread_cond_wait(&rig->changed, &rig->lock);
	}
	pthread_mutex_unlock(&rig->lock);
}

/* As a session does, each tick. */
static void settle(struct rig *rig)
{
	for (uint64_t end_ns = LONG_NS; !pins_settled(rig->pins);) {
		assert_int_equal(pins_check(rig->pins, 60 * NS_PER_S, NULL), 0);
		assert_true(clock_now_ns() < end_ns);
		usleep(500);
	}
}

static void await_far_orders(struct rig *rig, unsigned n)
{
	for (uint64_t end_ns = LONG_NS; far_side_orders(&rig->far) < n;) {
		assert_true(clock_now_ns() < end_ns);
		usleep(500);
	}
}

static void await_usable(struct rig *rig, unsigned n)
{
	pthread_mutex_lock(&rig->lock);
	while (rig->n_usable < n)
		pthread_cond_wait(&rig->changed, &rig->lock);
	pthread_mutex_unlock(&rig->lock);
}

/* The call comes a moment after the slice is usable. */
static void assert_usable_calls(struct rig *rig, unsigned n)
{
	unsigned n_usable;

	await_usable(rig, n);
	pthread_mutex_lock(&rig->lock);
	n_usable = rig->n_usable;
	pthread_mutex_unlock(&rig->lock);
	assert_int_equal(n_usable, n);
}

static void assert_order(struct rig *rig, unsigned index, unsigned slice, unsigned rails)
{
	struct far_order order = far_side_order(&rig->far, index);

	assert_int_equal(order.slice, slice);
	assert_int_equal(order.rails, rails);
}

static void test_asked_for_in_the_order_of_wanting(void **unused)
{
	static const unsigned slices[N_SLICES] = { 7, 2, 0, 8, 5, 1, 6, 4, 3 };
	struct memory_account here, there;
	struct rig rig;

	(void)unused;
	rig_init(&rig, 0, 2);
	assert_true(pins_are_kept(rig.pins));
	assert_true(pins_settled(rig.pins));
	assert_int_equal(far_side_orders(&rig.far), 0);
	for (unsigned i = 0; i < N_SLICES; i++)
		pins_want(rig.pins, slices[i]);
	settle(&rig);
	assert_int_equal(far_side_orders(&rig.far), N_SLICES);
	for (unsigned i = 0; i < N_SLICES; i++) {
		assert_order(&rig, i, slices[i], slices[i] < N_FIRST ? 1 : 3);
		assert_true(pins_hold(rig.pins, i));
		assert_true(pins_want(rig.pins, i));
		pins_release(rig.pins, i);
		assert_true(pins_hold(rig.pins, i)); /* without a budget it stays */
	}
	memory_transport_accounts(&here, &there);
	assert_int_equal(here.bytes, rig.ram.bytes);
	assert_int_equal(there.bytes, rig.ram.bytes);
	assert_usable_calls(&rig, N_SLICES);
	rig_fini(&rig);
}

static void test_both_sides_are_needed(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 0, 1);
	far_side_hold(&rig.far, true); /* here, not there */
	assert_false(pins_want(rig.pins, 4));
	usleep(A_MOMENT_US);
	assert_false(pins_hold(rig.pins, 4));
	assert_false(pins_settled(rig.pins));
	far_side_hold(&rig.far, false);
	settle(&rig);
	assert_true(pins_hold(rig.pins, 4));

	atomic_store(&gate_is_closed, true); /* there, not here */
	assert_false(pins_want(rig.pins, 5));
	usleep(A_MOMENT_US);
	assert_false(pins_hold(rig.pins, 5));
	assert_false(pins_settled(rig.pins));
	assert_usable_calls(&rig, 1);
	atomic_store(&gate_is_closed, false);
	settle(&rig);
	assert_true(pins_hold(rig.pins, 5));
	assert_usable_calls(&rig, 2);
	assert_false(pins_hold(rig.pins, 3)); /* nobody wanted it */
	rig_fini(&rig);
}

static void test_wanting_again(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 0, 1);
	far_side_hold(&rig.far, true);
	for (unsigned i = 0; i < 3; i++)
		assert_false(pins_want(rig.pins, 1));
	far_side_hold(&rig.far, false);
	settle(&rig);
	assert_true(pins_want(rig.pins, 1));
	assert_true(pins_settled(rig.pins));
	assert_int_equal(far_side_orders(&rig.far), 1);
	assert_usable_calls(&rig, 1);
	rig_fini(&rig);
}

/* The destination is not believed. */
static void test_what_nobody_asked_for(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2 * SLICE_BYTES, 1);
	assert_int_equal(pins_peer_ready(rig.pins, 3, &error), -EPROTO);
	assert_non_null(strstr(error.text, "slice 3"));
	assert_int_equal(pins_peer_ready(rig.pins, N_SLICES, NULL), -EPROTO);
	assert_int_equal(pins_peer_ready(rig.pins, UINT32_MAX, NULL), -EPROTO);
	pins_want(rig.pins, 0);
	settle(&rig);
	assert_int_equal(pins_peer_ready(rig.pins, 0, NULL), -EPROTO); /* twice */
	assert_true(pins_hold(rig.pins, 0));
	/* One that waits for room was not asked for either. */
	far_side_hold(&rig.far, true);
	for (unsigned i = 1; i <= 2; i++)
		pins_want(rig.pins, i);
	assert_int_equal(far_side_orders(&rig.far), 2);
	assert_int_equal(pins_peer_ready(rig.pins, 2, NULL), -EPROTO);
	assert_false(pins_hold(rig.pins, 2));
	rig_fini(&rig);
}

/* Room for two. */
static void test_who_is_held_stays(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2 * SLICE_BYTES, 1);
	assert_false(pins_are_kept(rig.pins));
	await(&rig, 3);
	await(&rig, 3); /* by two */
	await(&rig, 0);
	pins_want(rig.pins, 6);
	pins_want(rig.pins, 1);
	usleep(A_MOMENT_US);
	assert_int_equal(far_side_orders(&rig.far), 2);
	pins_release(rig.pins, 3); /* by one, still */
	assert_int_equal(far_side_orders(&rig.far), 2);
	assert_true(pins_hold(rig.pins, 3));
	pins_release(rig.pins, 3);
	pins_release(rig.pins, 0); /* this one goes, for the one that came first */
	await_far_orders(&rig, 4);
	assert_order(&rig, 2, 0, 0);
	assert_order(&rig, 3, 6, 3);
	await_usable(&rig, 3); /* else the one that still waits might drive it out again */
	assert_true(pins_hold(rig.pins, 6));
	usleep(A_MOMENT_US);
	assert_int_equal(far_side_orders(&rig.far), 4); /* both are held again */
	pins_release(rig.pins, 6);
	await(&rig, 1);
	assert_order(&rig, 4, 6, 0);
	assert_order(&rig, 5, 1, 1);
	assert_true(pins_hold(rig.pins, 3));
	assert_true(pins_settled(rig.pins));
	rig_fini(&rig);
}

/* What nobody holds goes only for somebody else. */
static void test_nothing_goes_without_need(void **unused)
{
	struct rig rig;

	(void)unused;
	rig_init(&rig, 3 * SLICE_BYTES, 1);
	for (unsigned i = 0; i < 3; i++) {
		await(&rig, i);
		pins_release(rig.pins, i);
	}
	assert_int_equal(pins_check(rig.pins, NS_PER_S, NULL), 0);
	assert_int_equal(far_side_orders(&rig.far), 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(pins_hold(rig.pins, i));
		pins_release(rig.pins, i);
	}
	assert_int_equal(far_side_orders(&rig.far), 3);
	rig_fini(&rig);
}

/* More are wanted than there is room for, and nobody holds any: all of them have their turn. */
static void test_all_have_their_turn(void **unused)
{
	struct memory_account here, there;
	bool asked[N_SLICES] = { false };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 2 * SLICE_BYTES, 2);
	for (unsigned i = 0; i < N_SLICES; i++)
		pins_want(rig.pins, i);
	settle(&rig);
	for (unsigned i = 0; i < far_side_orders(&rig.far); i++) {
		struct far_order order = far_side_order(&rig.far, i);

		assert_false(order.rails && asked[order.slice]); /* once */
		if (order.rails)
			asked[order.slice] = true;
	}
	for (unsigned i = 0; i < N_SLICES; i++)
		assert_true(asked[i]);
	memory_transport_accounts(&here, &there);
	assert_in_range(here.most_bytes, SLICE_BYTES, 2 * SLICE_BYTES);
	assert_in_range(there.most_bytes, SLICE_BYTES, 2 * SLICE_BYTES);
	rig_fini(&rig);
}

struct holder {
	struct rig *rig;
	unsigned index; /* its lane, and its page in each slice */
	unsigned n_rounds;
	pthread_t thread;
};

/* Lanes 0 to 2 belong to the first rail, which carries all regions. */
#define N_HOLDERS 3u

static void *holder_thread(void *argument)
{
	struct holder *holder = argument;
	struct rig *rig = holder->rig;
	unsigned seed = holder->index + 1;

	for (unsigned i = 1; i <= holder->n_rounds; i++) {
		struct transport_write write = { .slice = (unsigned)rand_r(&seed) % N_SLICES,
						 .length_bytes = RAMLIFT_PAGE_BYTES,
						 .offset_bytes = holder->index * PAGE };
		struct slice *slice = &rig->ram.slices[write.slice];

		memset((char *)slice->hva + write.offset_bytes, (int)i, PAGE);
		await(rig, write.slice);
		if (memory_transport()->post(rig->from, holder->index, &write, 1, NULL) ||
		    memory_transport()->drain(rig->from, holder->index, NULL))
			abort();
		pins_release(rig->pins, write.slice);
	}
	return NULL;
}

static void hold_and_release(unsigned budget_slices, unsigned n_threads, unsigned n_rounds)
{
	struct holder holders[N_HOLDERS];
	struct memory_account here, there;
	struct rig rig;

	rig_init(&rig, budget_slices * SLICE_BYTES, n_threads);
	for (unsigned i = 0; i < N_HOLDERS; i++) {
		holders[i] = (struct holder){ .rig = &rig, .index = i, .n_rounds = n_rounds };
		assert_int_equal(
			pthread_create(&holders[i].thread, NULL, holder_thread, &holders[i]), 0);
	}
	for (unsigned i = 0; i < N_HOLDERS; i++)
		pthread_join(holders[i].thread, NULL);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_memory_equal(rig.here[i].hva, rig.there[i].hva, rig.here[i].size_bytes);
	memory_transport_accounts(&here, &there);
	assert_in_range(here.most_bytes, SLICE_BYTES, budget_slices * SLICE_BYTES);
	assert_in_range(there.most_bytes, SLICE_BYTES, budget_slices * SLICE_BYTES);
	assert_true(budget_slices >= N_SLICES || here.n_deregistrations > 0);
	rig_fini(&rig);
}

/* Would hang where a slice that became usable woke nobody, or nobody made room. */
static void test_threads_that_need_what_others_hold(void **unused)
{
	(void)unused;
	hold_and_release(1, 1, 300);
	hold_and_release(2, 2, 500);
	hold_and_release(4, 2, 1000);
	hold_and_release(N_SLICES, 3, 1000);
}

/* ---- a slice that is taken away at the moment in which somebody takes hold of it ---- */

#define ROBBERIES 2000u

struct robbery {
	struct rig *rig;
	atomic_bool over;
};

static void *victim_thread(void *argument)
{
	static const struct transport_write write = { .slice = 0,
						      .length_bytes = RAMLIFT_PAGE_BYTES };
	struct robbery *robbery = argument;
	struct rig *rig = robbery->rig;

	while (!atomic_load(&robbery->over)) {
		if (!pins_hold(rig->pins, 0)) {
			pins_want(rig->pins, 0);
			continue;
		}
		/* The transport ends the process where the slice is not there any more. */
		if (memory_transport()->post(rig->from, 0, &write, 1, NULL) ||
		    memory_transport()->drain(rig->from, 0, NULL))
			abort();
		pins_release(rig->pins, 0);
	}
	return NULL;
}

static void test_who_holds_in_the_last_moment(void **unused)
{
	struct robbery robbery = { .over = false };
	pthread_t victim;
	struct rig rig;

	(void)unused;
	rig_init(&rig, SLICE_BYTES, 1);
	robbery.rig = &rig;
	assert_int_equal(pthread_create(&victim, NULL, victim_thread, &robbery), 0);
	for (unsigned i = 0; i < ROBBERIES; i++) {
		await(&rig, 1);
		pins_release(rig.pins, 1);
	}
	atomic_store(&robbery.over, true);
	pthread_join(victim, NULL);
	rig_fini(&rig);
}

static void test_asking_fails(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, 0, 1);
	atomic_store(&rig.far.fail_ask, -EPIPE);
	pins_want(rig.pins, 2);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, &error), -EPIPE);
	assert_int_equal(error.code, -EPIPE);
	assert_non_null(strstr(error.text, "asking fails"));
	atomic_store(&rig.far.fail_ask, -EIO); /* the first is what counts */
	pins_want(rig.pins, 3);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, NULL), -EPIPE);
	rig_fini(&rig);
}

static void test_retiring_fails(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, SLICE_BYTES, 1);
	await(&rig, 0);
	atomic_store(&rig.far.fail_retire, -EPIPE);
	pins_want(rig.pins, 1);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, NULL), 0);
	pins_release(rig.pins, 0);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, &error), -EPIPE);
	assert_non_null(strstr(error.text, "retiring fails"));
	rig_fini(&rig);
}

static void test_registering_here_fails(void **unused)
{
	const struct memory_faults faults = { .fail_register = 2 };
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	memory_transport_set_faults(&faults);
	rig_init(&rig, 0, 1);
	atomic_store(&rig.far.hold, true);
	pins_want(rig.pins, 0);
	pins_want(rig.pins, 1);
	for (uint64_t end_ns = LONG_NS; !pins_check(rig.pins, 60 * NS_PER_S, &error);) {
		assert_true(clock_now_ns() < end_ns);
		usleep(500);
	}
	assert_int_equal(error.code, -ENOMEM);
	assert_non_null(strstr(error.text, "as it was told to"));
	rig_fini(&rig);
}

static void test_patience(void **unused)
{
	struct ramlift_error error = { 0 };
	struct rig rig;

	(void)unused;
	rig_init(&rig, SLICE_BYTES, 1);
	usleep(A_MOMENT_US);
	assert_int_equal(pins_check(rig.pins, 1, &error), 0); /* it owes nothing */
	await(&rig, 0);
	assert_int_equal(pins_check(rig.pins, 1, &error), 0);
	/* Nor what waits for room here. */
	pins_want(rig.pins, 1);
	usleep(A_MOMENT_US);
	assert_int_equal(pins_check(rig.pins, 1, &error), 0);
	assert_false(pins_settled(rig.pins));
	far_side_hold(&rig.far, true);
	pins_release(rig.pins, 0);
	/* Only now has it been asked, whatever time has passed since it was wanted. */
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, &error), 0);
	usleep(A_MOMENT_US);
	assert_int_equal(pins_check(rig.pins, 60 * NS_PER_S, &error), 0);
	assert_int_equal(pins_check(rig.pins, A_MOMENT_US * NS_PER_US, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.text, "no longer registers"));
	far_side_hold(&rig.far, false);
	await(&rig, 1);
	assert_int_equal(pins_check(rig.pins, 1, NULL), 0);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asked_for_in_the_order_of_wanting),
		cmocka_unit_test(test_both_sides_are_needed),
		cmocka_unit_test(test_wanting_again),
		cmocka_unit_test(test_what_nobody_asked_for),
		cmocka_unit_test(test_who_is_held_stays),
		cmocka_unit_test(test_nothing_goes_without_need),
		cmocka_unit_test(test_all_have_their_turn),
		cmocka_unit_test(test_threads_that_need_what_others_hold),
		cmocka_unit_test(test_who_holds_in_the_last_moment),
		cmocka_unit_test(test_asking_fails),
		cmocka_unit_test(test_retiring_fails),
		cmocka_unit_test(test_registering_here_fails),
		cmocka_unit_test(test_patience),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
