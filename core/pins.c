/* SPDX-License-Identifier: Apache-2.0 */
#include "core/pins.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/registrar.h"

/* What is under way for a slice; 0: nothing. */
enum { QUEUED = 1, ASKED = 2, HERE = 4, THERE = 8 };

struct pin {
	_Atomic uint8_t usable;
	_Atomic uint16_t holders; /* with a budget */
	uint8_t state;		  /* under the lock, as all below */
};

struct pins {
	struct pins_config config;
	struct registrar *registrar;
	pthread_mutex_t lock;
	unsigned *queue; /* a ring of slices that are wanted and not asked for yet */
	unsigned first, n_queued;
	_Atomic unsigned n_waiting; /* queued; for a look without the lock */
	unsigned n_pending;	    /* wanted and not usable */
	uint64_t progress_ns; /* when one of those asked for was, or the first was asked for */
	uint64_t pinned_bytes;
	unsigned hand; /* where the search for a slice to retire goes on */
	struct ramlift_error error;
	struct pin pin[];
};

static void note_error(struct pins *pins, int ret, const struct ramlift_error *error)
{
	if (ret && !pins->error.code)
		pins->error = *error;
}

/*
 * Take a slice from the lanes. A lane says that it holds the slice before it looks whether that is
 * usable, this side the other way round: one of both sees the other.
 */
static bool retire(struct pins *pins, unsigned slice)
{
	const struct pins_config *config = &pins->config;
	struct pin *pin = &pins->pin[slice];
	struct ramlift_error error;

	if (!atomic_load(&pin->usable) || atomic_load(&pin->holders))
		return false;
	atomic_store(&pin->usable, false);
	if (atomic_load(&pin->holders)) {
		atomic_store(&pin->usable, true);
		return false;
	}
	config->transport->deregister_slice(config->endpoint, slice);
	note_error(pins, config->retire(config->context, slice, &error), &error);
	pin->state = 0;
	pins->pinned_bytes -= config->ram->slices[slice].size_bytes;
	return true;
}

/* Room for so many bytes more; false while lanes hold what would have to go. */
static bool make_room(struct pins *pins, uint64_t bytes)
{
	const struct ram *ram = pins->config.ram;
	uint64_t budget = pins->config.budget_bytes;

	for (unsigned i = 0; i < ram->n_slices && budget; i++) {
		if (pins->pinned_bytes + bytes <= budget)
			return true;
		retire(pins, pins->hand);
		pins->hand = (pins->hand + 1) % ram->n_slices;
	}
	return !budget || pins->pinned_bytes + bytes <= budget;
}

/* Ask for what is queued, as far as the budget goes. Under the lock. */
static void admit(struct pins *pins)
{
	const struct pins_config *config = &pins->config;
	const struct ram *ram = config->ram;

	while (pins->n_queued) {
		unsigned slice = pins->queue[pins->first];
		unsigned region = ram_region_of_slice(ram, slice);
		unsigned rails = config->region_rails[region];
		struct ramlift_error error;

		if (!make_room(pins, ram->slices[slice].size_bytes))
			return;
		pins->first = (pins->first + 1) % ram->n_slices;
		atomic_store(&pins->n_waiting, --pins->n_queued);
		if (pins->n_pending - pins->n_queued == 1)
			pins->progress_ns = clock_now_ns();
		pins->pin[slice].state = ASKED;
		pins->pinned_bytes += ram->slices[slice].size_bytes;
		note_error(pins, config->ask(config->context, slice, rails, &error), &error);
		registrar_request(pins->registrar, slice, rails, ram->regions[region].numa_node);
	}
}

bool pins_want(struct pins *pins, unsigned slice)
{
	unsigned n_slices = pins->config.ram->n_slices;
	bool usable;

	pthread_mutex_lock(&pins->lock);
	if (!pins->pin[slice].state) {
		pins->pin[slice].state = QUEUED;
		pins->queue[(pins->first + pins->n_queued) % n_slices] = slice;
		atomic_store(&pins->n_waiting, ++pins->n_queued);
		pins->n_pending++;
	}
	admit(pins);
	usable = atomic_load(&pins->pin[slice].usable);
	pthread_mutex_unlock(&pins->lock);
	return usable;
}

/* One side has registered it; returns false if that was not asked for. */
static bool advance(struct pins *pins, unsigned slice, uint8_t side)
{
	struct pin *pin = &pins->pin[slice];
	bool asked, complete;

	pthread_mutex_lock(&pins->lock);
	asked = pin->state & ASKED && !(pin->state & side);
	if (asked)
		pin->state |= side;
	complete = asked && pin->state == (ASKED | HERE | THERE);
	if (complete) {
		pins->n_pending--;
		pins->progress_ns = clock_now_ns();
		atomic_store(&pin->usable, true);
	}
	pthread_mutex_unlock(&pins->lock);
	if (complete)
		pins->config.usable(pins->config.context);
	return asked;
}

static int registered_here(void *context, unsigned slice, const struct slice_key *key,
			   struct ramlift_error *error)
{
	(void)key;
	(void)error;
	advance(context, slice, HERE);
	return 0;
}

bool pins_await_peer(struct pins *pins, unsigned slice)
{
	bool awaited;

	pthread_mutex_lock(&pins->lock);
	awaited = slice < pins->config.ram->n_slices && pins->pin[slice].state & ASKED &&
		  !(pins->pin[slice].state & THERE);
	pthread_mutex_unlock(&pins->lock);
	return awaited;
}

int pins_peer_ready(struct pins *pins, unsigned slice, struct ramlift_error *error)
{
	if (slice >= pins->config.ram->n_slices || !advance(pins, slice, THERE))
		return error_set(error, -EPROTO,
				 "the destination announced slice %u, which was not asked for",
				 slice);
	return 0;
}

static void let_waiting_in(struct pins *pins)
{
	if (!atomic_load(&pins->n_waiting))
		return;
	pthread_mutex_lock(&pins->lock);
	admit(pins);
	pthread_mutex_unlock(&pins->lock);
}

void pins_reserve(struct pins *pins, unsigned slice)
{
	if (pins->config.budget_bytes)
		atomic_fetch_add(&pins->pin[slice].holders, 1);
}

bool pins_usable(const struct pins *pins, unsigned slice)
{
	return atomic_load(&pins->pin[slice].usable);
}

bool pins_hold(struct pins *pins, unsigned slice)
{
	pins_reserve(pins, slice);
	if (pins_usable(pins, slice))
		return true;
	pins_release(pins, slice);
	return false;
}

void pins_release(struct pins *pins, unsigned slice)
{
	if (!pins->config.budget_bytes)
		return;
	if (atomic_fetch_sub(&pins->pin[slice].holders, 1) == 1)
		let_waiting_in(pins);
}

bool pins_are_kept(const struct pins *pins)
{
	return !pins->config.budget_bytes;
}

bool pins_settled(struct pins *pins)
{
	bool settled;

	pthread_mutex_lock(&pins->lock);
	settled = !pins->n_pending;
	pthread_mutex_unlock(&pins->lock);
	return settled;
}

int pins_check(struct pins *pins, uint64_t patience_ns, struct ramlift_error *error)
{
	int ret = registrar_check(pins->registrar, error);
	bool late;

	if (ret)
		return ret;
	pthread_mutex_lock(&pins->lock);
	admit(pins);
	ret = pins->error.code;
	if (ret && error)
		*error = pins->error;
	late = pins->n_pending > pins->n_queued && clock_now_ns() - pins->progress_ns > patience_ns;
	pthread_mutex_unlock(&pins->lock);
	if (ret || !late)
		return ret;
	return error_set(
		error, -ETIMEDOUT,
		"registering guest memory no longer gets on, here or at the destination: see "
		"its log");
}

int pins_start(const struct pins_config *config, struct pins **result, struct ramlift_error *error)
{
	unsigned n_slices = config->ram->n_slices;
	struct registrar_config registrar = {
		.transport = config->transport,
		.endpoint = config->endpoint,
		.n_slices = n_slices,
		.n_threads = config->n_threads,
		.ready = registered_here,
	};
	struct pins *pins = calloc(1, sizeof(*pins) + n_slices * sizeof(pins->pin[0]));
	int ret;

	if (pins)
		pins->queue = calloc(n_slices, sizeof(*pins->queue));
	if (!pins || !pins->queue) {
		free(pins);
		return error_set(error, -ENOMEM, "no memory for an account of %u slices", n_slices);
	}
	pins->config = *config;
	pthread_mutex_init(&pins->lock, NULL);
	registrar.context = pins;
	ret = registrar_start(&registrar, &pins->registrar, error);
	if (ret) {
		pins_free(pins);
		return ret;
	}
	*result = pins;
	return 0;
}

void pins_free(struct pins *pins)
{
	if (!pins)
		return;
	registrar_free(pins->registrar);
	pthread_mutex_destroy(&pins->lock);
	free(pins->queue);
	free(pins);
}
