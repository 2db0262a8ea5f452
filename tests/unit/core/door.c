/* SPDX-License-Identifier: Apache-2.0 */
/* A destination's port; see the header. */
#include "door.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/address.h"
#include "tests/support/cmocka_all.h"

static void turned_away(void *context, const char *peer, const struct ramlift_error *why)
{
	struct door *door = context;

	pthread_mutex_lock(&door->lock);
	door->n_turned_away++;
	door->last = *why;
	snprintf(door->peer, sizeof(door->peer), "%s", peer);
	pthread_cond_broadcast(&door->changed);
	pthread_mutex_unlock(&door->lock);
}

void door_init(struct door *door)
{
	memset(door, 0, sizeof(*door));
	pthread_mutex_init(&door->lock, NULL);
	clock_cond_init(&door->changed);
	pair_init(&door->pair, memory_transport());
	door->pair.destination_config.turned_away = turned_away;
	door->pair.destination_config.progress_context = door;
}

void door_fini(struct door *door)
{
	pair_fini(&door->pair);
	pthread_mutex_destroy(&door->lock);
	pthread_cond_destroy(&door->changed);
}

/* Until so many were turned away; what the last one was told. */
struct ramlift_error await_turned_away(struct door *door, unsigned n)
{
	uint64_t deadline_ns = clock_now_ns() + SOON_NS;
	struct ramlift_error last;

	pthread_mutex_lock(&door->lock);
	while (door->n_turned_away < n)
		assert_int_equal(clock_wait(&door->changed, &door->lock, deadline_ns), 0);
	last = door->last;
	pthread_mutex_unlock(&door->lock);
	return last;
}

int knock(const struct door *door)
{
	struct address address;
	int fd;

	assert_int_equal(address_parse(door->pair.to, 0, &address, NULL), 0);
	assert_int_equal(address_connect(&address, clock_now_ns() + SOON_NS, -1, &fd, NULL), 0);
	return fd;
}

void assert_moves(struct door *door)
{
	struct pair *pair = &door->pair;
	int ret;

	pair_start_destination(pair);
	ret = ramlift_source_run(pair->source, &pair->source_error);
	pair_join(pair);
	pair_assert_moved(pair, ret);
}
