/* SPDX-License-Identifier: Apache-2.0 */
#include "far_side.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/memory_transport.h"

static void carry_out(struct far_side *far, const struct far_order *order)
{
	const struct ramlift_transport *memory = memory_transport();
	struct slice_key key;

	if (!order->rails) {
		memory->deregister_slice(far->endpoint, order->slice);
		return;
	}
	if (memory->register_slice(far->endpoint, order->slice, order->rails, &key, NULL))
		return; /* it was told to fail, and stays silent */
	memory->set_peer_key(far->source, order->slice, &key);
	if (pins_peer_ready(far->pins, order->slice, NULL))
		abort();
}

static void *far_thread(void *argument)
{
	struct far_side *far = argument;

	pthread_mutex_lock(&far->lock);
	while (!far->quit) {
		struct far_order order;

		if (atomic_load(&far->hold) || far->n_done == far->n_orders) {
			pthread_cond_wait(&far->changed, &far->lock);
			continue;
		}
		order = far->orders[far->n_done++];
		pthread_mutex_unlock(&far->lock);
		carry_out(far, &order);
		pthread_mutex_lock(&far->lock);
	}
	pthread_mutex_unlock(&far->lock);
	return NULL;
}

void far_side_start(struct far_side *far, struct endpoint *source, struct endpoint *endpoint)
{
	memset(far, 0, sizeof(*far));
	far->source = source;
	far->endpoint = endpoint;
	pthread_mutex_init(&far->lock, NULL);
	pthread_cond_init(&far->changed, NULL);
	assert_int_equal(pthread_create(&far->thread, NULL, far_thread, far), 0);
}

void far_side_stop(struct far_side *far)
{
	pthread_mutex_lock(&far->lock);
	far->quit = true;
	pthread_cond_broadcast(&far->changed);
	pthread_mutex_unlock(&far->lock);
	pthread_join(far->thread, NULL);
	pthread_cond_destroy(&far->changed);
	pthread_mutex_destroy(&far->lock);
	free(far->orders);
}

static void hear(struct far_side *far, unsigned slice, unsigned rails)
{
	pthread_mutex_lock(&far->lock);
	if (far->n_orders == far->n_room) {
		far->n_room = far->n_room * 2 + 64;
		far->orders = realloc(far->orders, far->n_room * sizeof(*far->orders));
		if (!far->orders)
			abort();
	}
	far->orders[far->n_orders++] = (struct far_order){ slice, rails };
	pthread_cond_broadcast(&far->changed);
	pthread_mutex_unlock(&far->lock);
}

int far_side_ask(void *context, unsigned slice, unsigned rails, struct ramlift_error *error)
{
	struct far_side *far = context;
	int ret = atomic_load(&far->fail_ask);

	if (!rails)
		abort();
	if (ret)
		return error_set(error, ret, "asking fails as it was told to");
	hear(far, slice, rails);
	return 0;
}

int far_side_retire(void *context, unsigned slice, struct ramlift_error *error)
{
	struct far_side *far = context;
	int ret = atomic_load(&far->fail_retire);

	hear(far, slice, 0);
	return ret ? error_set(error, ret, "retiring fails as it was told to") : 0;
}

void far_side_hold(struct far_side *far, bool hold)
{
	pthread_mutex_lock(&far->lock);
	atomic_store(&far->hold, hold);
	pthread_cond_broadcast(&far->changed);
	pthread_mutex_unlock(&far->lock);
}

unsigned far_side_orders(struct far_side *far)
{
	unsigned n;

	pthread_mutex_lock(&far->lock);
	n = far->n_orders;
	pthread_mutex_unlock(&far->lock);
	return n;
}

struct far_order far_side_order(struct far_side *far, unsigned index)
{
	struct far_order order = { UINT32_MAX, 0 };

	pthread_mutex_lock(&far->lock);
	if (index < far->n_orders)
		order = far->orders[index];
	pthread_mutex_unlock(&far->lock);
	return order;
}
