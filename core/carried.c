/* SPDX-License-Identifier: Apache-2.0 */
/* What a carrier calls: thin ways into the session, the dirty set and the lanes. */
#include "core/carried.h"

#include <errno.h>

#include "core/destination.h"
#include "core/error.h"
#include "core/source.h"

int source_carry(struct ramlift_source *source, const struct carried_ops *ops, void *carrier,
		 struct ramlift_error *error)
{
	if (dirty_bitmap_init(&source->named, source->ram.n_stripes))
		return error_set(error, -ENOMEM, "no memory for the bitmap of named pages");
	source->carried = ops;
	source->carrier = carrier;
	source->config.pin = RAMLIFT_PIN_ALL; /* its guest may stop at any time */
	source->session.carry = ops->receive;
	source->session.carrier = carrier;
	return 0;
}

void destination_carry(struct ramlift_destination *destination, const struct carried_ops *ops,
		       void *carrier)
{
	destination->carried = ops;
	destination->session.carry = ops->receive;
	destination->session.carrier = carrier;
}

int source_send_piece(struct ramlift_source *source, unsigned stream, const void *bytes,
		      size_t n_bytes, struct ramlift_error *error)
{
	return session_send_piece(&source->session, stream, bytes, n_bytes, error);
}

int destination_send_piece(struct ramlift_destination *destination, unsigned stream,
			   const void *bytes, size_t n_bytes, struct ramlift_error *error)
{
	return session_send_piece(&destination->session, stream, bytes, n_bytes, error);
}

/*
 * The pages of one stripe. Zeros that were never named are left out. That holds whatever thread
 * reads a naming first: who is named is sent as it is at that time, which is no older than the
 * zeros.
 */
static void queue_stripe(struct ramlift_source *source, uint64_t stripe, uint64_t bits, bool zeros)
{
	uint64_t named = bits;

	if (zeros)
		named &= atomic_load(&source->named.words[stripe]);
	else
		dirty_bitmap_set(&source->named, stripe, bits);
	atomic_fetch_add(&source->zero_pages, (uint64_t)__builtin_popcountll(bits & ~named));
	dirty_set_add(&source->set, stripe, named);
}

static void queue(struct ramlift_source *source, unsigned region, uint64_t first_page,
		  uint64_t n_pages, bool zeros)
{
	n_pages = ram_clip(&source->ram, region, first_page, n_pages);
	while (n_pages) {
		uint64_t stripe;
		uint64_t bits = stripe_take(&first_page, &n_pages, &stripe);

		queue_stripe(source, source->ram.first_stripe[region] + stripe, bits, zeros);
	}
}

void source_queue_pages(struct ramlift_source *source, unsigned region, uint64_t first_page,
			uint64_t n_pages)
{
	queue(source, region, first_page, n_pages, false);
}

void source_queue_zeros(struct ramlift_source *source, unsigned region, uint64_t first_page,
			uint64_t n_pages)
{
	queue(source, region, first_page, n_pages, true);
}

void source_wake_lanes(struct ramlift_source *source)
{
	lanes_wake(source->lanes);
}

uint64_t source_backlog_bytes(struct ramlift_source *source)
{
	return source_remaining_bytes(source);
}

void source_hasten(struct ramlift_source *source)
{
	channel_wake(source->session.channel);
}
