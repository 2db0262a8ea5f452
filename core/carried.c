/* SPDX-License-Identifier: Apache-2.0 */
/* What a carrier calls: thin ways into the session, the dirty set and the lanes. */
#include "core/carried.h"

#include "core/destination.h"
#include "core/source.h"

void source_carry(struct ramlift_source *source, const struct carried_ops *ops, void *carrier)
{
	source->carried = ops;
	source->carrier = carrier;
	source->session.carry = ops->receive;
	source->session.carrier = carrier;
}

void destination_carry(struct ramlift_destination *destination, const struct carried_ops *ops,
		       void *carrier)
{
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

/* Counted only when a page was not waiting already: lanes will send it once. */
void source_queue_pages(struct ramlift_source *source, unsigned region, uint64_t first_page,
			uint64_t n_pages)
{
	uint64_t n_new = dirty_set_queue(&source->set, region, first_page, n_pages);

	atomic_fetch_add(&source->queued_bytes, n_new * RAMLIFT_PAGE_BYTES);
}

void source_wake_lanes(struct ramlift_source *source)
{
	lanes_wake(source->lanes);
}

uint64_t source_backlog_bytes(struct ramlift_source *source)
{
	uint64_t done = lanes_done_bytes(source->lanes);
	uint64_t queued = atomic_load(&source->queued_bytes);

	return queued > done ? queued - done : 0;
}

void source_hasten(struct ramlift_source *source)
{
	channel_wake(source->session.channel);
}
