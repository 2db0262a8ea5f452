/* SPDX-License-Identifier: Apache-2.0 */
/* Taken by the linker in place of core/carried.c. */
#include "fake_carried.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/carried.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/wire.h"
#include "unit.h"

void fake_carried_init(struct fake_carried *carried)
{
	memset(carried, 0, sizeof(*carried));
	pthread_mutex_init(&carried->lock, NULL);
}

void fake_carried_fini(struct fake_carried *carried)
{
	for (unsigned i = 0; i < FAKE_CARRIED_STREAMS; i++)
		free(carried->streams[i].bytes);
	pthread_mutex_destroy(&carried->lock);
}

static int take_piece(struct fake_carried *carried, unsigned index, const void *bytes,
		      size_t n_bytes, struct ramlift_error *error)
{
	struct fake_stream *stream = &carried->streams[index];
	int ret;

	if (index >= FAKE_CARRIED_STREAMS || n_bytes > WIRE_MAX_STREAM_BYTES)
		abort();
	pthread_mutex_lock(&carried->lock);
	ret = carried->send_ret;
	if (!ret && n_bytes) {
		stream->bytes = realloc(stream->bytes, stream->n_bytes + n_bytes);
		if (!stream->bytes)
			abort();
		memcpy(stream->bytes + stream->n_bytes, bytes, n_bytes);
		stream->n_bytes += n_bytes;
		stream->n_pieces++;
	}
	if (!ret && !n_bytes)
		stream->n_ends++;
	pthread_mutex_unlock(&carried->lock);
	return ret ? error_set(error, ret, "the session is over") : 0;
}

int source_send_piece(struct ramlift_source *source, unsigned stream, const void *bytes,
		      size_t n_bytes, struct ramlift_error *error)
{
	return take_piece(&source->carried, stream, bytes, n_bytes, error);
}

int destination_send_piece(struct ramlift_destination *destination, unsigned stream,
			   const void *bytes, size_t n_bytes, struct ramlift_error *error)
{
	return take_piece(&destination->carried, stream, bytes, n_bytes, error);
}

static void name(struct fake_carried *carried, unsigned region, uint64_t first_page,
		 uint64_t n_pages, bool zeros)
{
	pthread_mutex_lock(&carried->lock);
	for (uint64_t page = first_page; page < first_page + n_pages; page++) {
		if (region < FAKE_CARRIED_REGIONS && page < FAKE_CARRIED_PAGES) {
			carried->named[region][page]++;
			carried->zeros[region][page] += zeros;
		} else {
			carried->n_outside++;
		}
	}
	carried->n_named += (unsigned)n_pages;
	pthread_mutex_unlock(&carried->lock);
}

void source_queue_pages(struct ramlift_source *source, unsigned region, uint64_t first_page,
			uint64_t n_pages)
{
	name(&source->carried, region, first_page, n_pages, false);
}

void source_queue_zeros(struct ramlift_source *source, unsigned region, uint64_t first_page,
			uint64_t n_pages)
{
	name(&source->carried, region, first_page, n_pages, true);
}

void source_wake_lanes(struct ramlift_source *source)
{
	atomic_fetch_add(&source->carried.wakes, 1);
}

uint64_t source_backlog_bytes(struct ramlift_source *source)
{
	atomic_fetch_add(&source->carried.backlog_asked, 1);
	return atomic_load(&source->carried.backlog_bytes);
}

void source_hasten(struct ramlift_source *source)
{
	atomic_fetch_add(&source->carried.hastens, 1);
}

unsigned fake_carried_named(struct fake_carried *carried)
{
	unsigned n_named;

	pthread_mutex_lock(&carried->lock);
	n_named = carried->n_named;
	pthread_mutex_unlock(&carried->lock);
	return n_named;
}

size_t fake_carried_bytes(struct fake_carried *carried, unsigned stream)
{
	size_t n_bytes;

	pthread_mutex_lock(&carried->lock);
	n_bytes = carried->streams[stream].n_bytes;
	pthread_mutex_unlock(&carried->lock);
	return n_bytes;
}

unsigned fake_carried_ends(struct fake_carried *carried, unsigned stream)
{
	unsigned n_ends;

	pthread_mutex_lock(&carried->lock);
	n_ends = carried->streams[stream].n_ends;
	pthread_mutex_unlock(&carried->lock);
	return n_ends;
}

void fake_carried_fail(struct fake_carried *carried, int ret)
{
	pthread_mutex_lock(&carried->lock);
	carried->send_ret = ret;
	pthread_mutex_unlock(&carried->lock);
}

void fake_carried_await(bool (*condition)(void *context), void *context, const char *what)
{
	uint64_t deadline_ns = clock_now_ns() + 60 * NS_PER_S;

	while (!condition(context)) {
		if (clock_now_ns() > deadline_ns)
			fail_msg("waited in vain: %s", what);
		clock_sleep_until(clock_now_ns() + NS_PER_MS);
	}
}
