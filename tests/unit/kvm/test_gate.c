/* SPDX-License-Identifier: Apache-2.0 */
/* The gate: all who wait come through when it opens, whatever wakes them; some when it says so. */
#include "unit.h"

#include <stdbool.h>

#include "core/clock.h"
#include "kvm/vmm/gate.h"

#define THREADS	    9u
#define ROUNDS	    300u
#define PATIENCE_NS (60 * NS_PER_S)

struct world {
	struct gate gate;
	pthread_mutex_t lock;
	unsigned round;	    /* those who wait want the next one; under lock, as what follows */
	unsigned n_arrived; /* in this round */
	unsigned to_do;
	unsigned n_done;
	bool stays[THREADS]; /* this thread does not go through, as a dead vCPU */
	bool quit;
};

struct walker {
	struct world *world;
	unsigned index;
	pthread_t thread;
};

static void wait_here(struct world *world, uint64_t until_ns)
{
	uint32_t ticket = gate_ticket(&world->gate);

	pthread_mutex_unlock(&world->lock);
	gate_wait(&world->gate, ticket, until_ns);
	pthread_mutex_lock(&world->lock);
}

static void *walk(void *context)
{
	struct walker *walker = context;
	struct world *world = walker->world;
	unsigned round = 0;

	pthread_mutex_lock(&world->lock);
	while (!world->quit) {
		if (world->to_do) {
			world->to_do--;
			world->n_done++;
		} else if (world->round != round && !world->stays[walker->index]) {
			round = world->round;
			world->n_arrived++;
		} else {
			wait_here(world, GATE_NEVER);
		}
	}
	pthread_mutex_unlock(&world->lock);
	return NULL;
}

static void start(struct world *world, struct walker *walkers)
{
	pthread_mutex_init(&world->lock, NULL);
	for (unsigned i = 0; i < THREADS; i++) {
		walkers[i] = (struct walker){ .world = world, .index = i };
		assert_int_equal(pthread_create(&walkers[i].thread, NULL, walk, &walkers[i]), 0);
	}
}

/* The condition has changed: open the gate; most 0: for all. */
static void open_for(struct world *world, unsigned most)
{
	gate_turn(&world->gate);
	pthread_mutex_unlock(&world->lock);
	if (most)
		gate_wake_some(&world->gate, most);
	else
		gate_wake_all(&world->gate);
	pthread_mutex_lock(&world->lock);
}

static void finish(struct world *world, struct walker *walkers)
{
	pthread_mutex_lock(&world->lock);
	world->quit = true;
	open_for(world, 0);
	pthread_mutex_unlock(&world->lock);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(walkers[i].thread, NULL);
	pthread_mutex_destroy(&world->lock);
}

/* Polls, under lock. */
static void await(struct world *world, const unsigned *count, unsigned wanted)
{
	uint64_t until_ns = clock_now_ns() + PATIENCE_NS;

	while (*count < wanted && clock_now_ns() < until_ns) {
		pthread_mutex_unlock(&world->lock);
		clock_sleep_until(clock_now_ns() + 20 * NS_PER_US);
		pthread_mutex_lock(&world->lock);
	}
	assert_int_equal(*count, wanted);
}

static void test_all_come_through(void **state)
{
	struct world world = { .round = 0 };
	struct walker walkers[THREADS];

	(void)state;
	start(&world, walkers);
	pthread_mutex_lock(&world.lock);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned n_stay = 0;

		/* Those who stay are woken, too, and wait again. */
		for (unsigned j = 0; j < THREADS; j++) {
			world.stays[j] = i % 3 && (i * 7 + j * 5) % 4 == 0;
			n_stay += world.stays[j];
		}
		world.n_arrived = 0;
		world.round++;
		open_for(&world, 0);
		await(&world, &world.n_arrived, THREADS - n_stay);
	}
	pthread_mutex_unlock(&world.lock);
	finish(&world, walkers);
}

/* Work for some, then an opening for all: what one turn left asleep the next one wakes. */
static void test_some_then_all(void **state)
{
	struct world world = { .round = 0 };
	struct walker walkers[THREADS];

	(void)state;
	start(&world, walkers);
	pthread_mutex_lock(&world.lock);
	for (unsigned i = 0; i < ROUNDS; i++) {
		world.n_done = 0;
		world.to_do = 1 + i % 5;
		open_for(&world, i % 3 + 1);
		await(&world, &world.n_done, 1 + i % 5);
		world.n_arrived = 0;
		world.round++;
		open_for(&world, 0);
		await(&world, &world.n_arrived, THREADS);
	}
	pthread_mutex_unlock(&world.lock);
	finish(&world, walkers);
}

static void test_time_ends_a_wait(void **state)
{
	uint64_t until_ns = clock_now_ns() + 5 * NS_PER_MS;
	struct gate gate = { .turns = 0 };
	uint32_t ticket = gate_ticket(&gate);

	(void)state;
	while (clock_now_ns() < until_ns)
		gate_wait(&gate, ticket, until_ns);
	gate_turn(&gate);
	gate_wait(&gate, ticket, GATE_NEVER); /* it has turned already */
	assert_int_equal(gate_ticket(&gate), ticket + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_come_through),
		cmocka_unit_test(test_some_then_all),
		cmocka_unit_test(test_time_ends_a_wait),
	};

	return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
