/* SPDX-License-Identifier: Apache-2.0 */
/* Writers mark, ticks fold and lanes take at the same time, against a model of the whole: nothing
 * is lost. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "dirty_set_rig.h"
#include "tests/support/cmocka_all.h"

#define MODEL_LANES  2u
#define MODEL_WRITES 150000u
#define ALL_PAGES    (N_STRIPES * 64)

struct model {
	struct fixture fixture;
	_Atomic uint64_t memory[ALL_PAGES]; /* what the guest wrote last */
	uint64_t sent[ALL_PAGES];	    /* what the page's lane read last */
	_Atomic unsigned writers_left;
	atomic_bool folding;
};

struct actor {
	struct model *model;
	unsigned index;
	uint64_t n_taken;
	pthread_t thread;
};

static void *model_writer(void *argument)
{
	struct actor *actor = argument;
	struct model *model = actor->model;
	uint64_t random = 77 + actor->index;

	for (uint64_t i = 1; i <= MODEL_WRITES; i++) {
		unsigned region;
		uint64_t page;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		region = random >> 40 & 1;
		/* A hot set of few stripes, and now and then a cold page. */
		page = (random >> 8) % (random & 15 ? 100 : region ? SECOND_PAGES : FIRST_PAGES);
		atomic_fetch_add(&model->memory[(region ? SECOND_STRIPE * 64 : 0) + page], 1);
		ramlift_dirty_mark(&model->fixture.set, region, page, 1);
	}
	atomic_fetch_sub(&model->writers_left, 1);
	return NULL;
}

static void *model_folder(void *argument)
{
	struct actor *actor = argument;
	struct model *model = actor->model;

	while (atomic_load(&model->writers_left)) {
		dirty_set_fold(&model->fixture.set);
		dirty_bitmap_tidy(&model->fixture.set.dirty);
	}
	dirty_set_fold(&model->fixture.set); /* the last harvest's */
	atomic_store(&model->folding, false);
	return NULL;
}

/* As core/lane_sweep.c does. */
static bool model_sweep(struct actor *actor, bool quiet_only)
{
	struct model *model = actor->model;
	const struct ramlift_dirty_sink *set = &model->fixture.set;
	struct dirty_bitmap *dirty = &model->fixture.set.dirty;
	uint64_t own = actor->index ? 0xaaaaaaaaaaaaaaaaull : 0x5555555555555555ull;
	bool found = false;

	for (uint64_t s = dirty_bitmap_next(dirty, 0, dirty->n_summary); s < dirty->n_summary;
	     s = dirty_bitmap_next(dirty, s + 1, dirty->n_summary)) {
		uint64_t wait = quiet_only ? dirty_set_hot(set, s) : 0;
		uint64_t stripes = dirty_bitmap_claim(dirty, s, own & ~wait);

		for (unsigned i; bit_next(&stripes, &i);) {
			uint64_t bits = dirty_bitmap_take(dirty, s * 64 + i);

			for (unsigned bit; bit_next(&bits, &bit);) {
				uint64_t page = (s * 64 + i) * 64 + bit;

				model->sent[page] = atomic_load(&model->memory[page]);
				actor->n_taken++;
				found = true;
			}
		}
	}
	return found;
}

static void *model_lane(void *argument)
{
	struct actor *actor = argument;
	struct model *model = actor->model;
	bool last, found;

	do {
		last = !atomic_load(&model->folding);
		found = model_sweep(actor, true);
		if (!found)
			found = model_sweep(actor, false);
	} while (!last || found);
	return NULL;
}

/* Lanes end as core/lanes.c lets them: with a round after the last fold that finds nothing. */
static void test_nothing_is_lost_between_writers_ticks_and_lanes(void **unused)
{
	void *(*const roles[])(void *) = { model_writer, model_writer, model_folder, model_lane,
					   model_lane };
	enum { ACTORS = sizeof(roles) / sizeof(roles[0]) };
	struct model *model = calloc(1, sizeof(*model));
	struct actor actors[ACTORS];
	uint64_t n_taken = 0;

	(void)unused;
	assert_non_null(model);
	fixture_init(&model->fixture);
	atomic_store(&model->writers_left, 2);
	atomic_store(&model->folding, true);
	for (unsigned i = 0; i < ACTORS; i++) {
		actors[i].model = model;
		actors[i].n_taken = 0;
		actors[i].index = i >= ACTORS - MODEL_LANES ? i - (ACTORS - MODEL_LANES) : i;
		assert_int_equal(pthread_create(&actors[i].thread, NULL, roles[i], &actors[i]), 0);
	}
	for (unsigned i = 0; i < ACTORS; i++)
		pthread_join(actors[i].thread, NULL);
	assert_int_equal(dirty_pages(&model->fixture), 0);
	for (unsigned i = 0; i < ACTORS; i++)
		n_taken += actors[i].n_taken;
	assert_int_equal(dirty_set_added_bytes(&model->fixture.set), n_taken * PAGE);
	for (unsigned i = 0; i < ALL_PAGES; i++)
		assert_int_equal(model->sent[i], atomic_load(&model->memory[i]));
	fixture_fini(&model->fixture);
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_lost_between_writers_ticks_and_lanes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
