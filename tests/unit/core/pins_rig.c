/* SPDX-License-Identifier: Apache-2.0 */
#include "pins_rig.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/cmocka_all.h"

static const unsigned region_rails[] = { 1, 3 };

static struct ramlift_transport gated;
atomic_bool gate_is_closed;

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

void rig_init(struct rig *rig, uint64_t budget_bytes, unsigned n_threads)
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

void rig_fini(struct rig *rig)
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

void await(struct rig *rig, unsigned slice)
{
	pthread_mutex_lock(&rig->lock);
	while (!pins_hold(rig->pins, slice)) {
		if (!pins_want(rig->pins, slice))
			pthread_cond_wait(&rig->changed, &rig->lock);
	}
	pthread_mutex_unlock(&rig->lock);
}

void settle(struct rig *rig)
{
	for (uint64_t end_ns = LONG_NS; !pins_settled(rig->pins);) {
		assert_int_equal(pins_check(rig->pins, 60 * NS_PER_S, NULL), 0);
		assert_true(clock_now_ns() < end_ns);
		usleep(500);
	}
}

void await_far_orders(struct rig *rig, unsigned n)
{
	for (uint64_t end_ns = LONG_NS; far_side_orders(&rig->far) < n;) {
		assert_true(clock_now_ns() < end_ns);
		usleep(500);
	}
}

void await_usable(struct rig *rig, unsigned n)
{
	pthread_mutex_lock(&rig->lock);
	while (rig->n_usable < n)
		pthread_cond_wait(&rig->changed, &rig->lock);
	pthread_mutex_unlock(&rig->lock);
}

/* The call comes a moment after the slice is usable. */
void assert_usable_calls(struct rig *rig, unsigned n)
{
	unsigned n_usable;

	await_usable(rig, n);
	pthread_mutex_lock(&rig->lock);
	n_usable = rig->n_usable;
	pthread_mutex_unlock(&rig->lock);
	assert_int_equal(n_usable, n);
}

void assert_order(struct rig *rig, unsigned index, unsigned slice, unsigned rails)
{
	struct far_order order = far_side_order(&rig->far, index);

	assert_int_equal(order.slice, slice);
	assert_int_equal(order.rails, rails);
}
