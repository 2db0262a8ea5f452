/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam for another program's migration that Ramlift carries: QEMU's, in kvm/qemu/.
 *
 * Such a program tracks its guest's writes itself and says, in a stream of its own, which pages are
 * to be sent, when its guest has stopped, and what is left besides pages. So the carrier takes the
 * place of the dirty source, of the controller and of the saved state:
 *
 *   source's program                                           destination's program
 *     names pages ----> source_queue_pages() ----> lanes ======> guest RAM
 *     the rest -------> source_send_piece() -----> STREAM -----> receive()
 *     receive() <------------- STREAM <-- destination_send_piece() <-- its return path
 *
 * The rules stay: a page is named only after its tracking has been armed again; what follows the
 * last page waits for release(), which is called once the destination has said that every lane is
 * fenced.
 */
#ifndef CORE_CARRIED_H
#define CORE_CARRIED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ramlift_destination;
struct ramlift_error;
struct ramlift_source;
struct ramlift_stats;

/* What a tick of the source tells the carrier, and hears of it. */
struct carried_tick {
	uint64_t link_rate;	     /* bytes a second that the lanes get through */
	uint64_t backlog_bytes;	     /* named, and not arrived yet */
	struct ramlift_stats *stats; /* the carrier may add what its program knows */
	bool complete;		     /* out: the guest has stopped, every page has been named */
	uint64_t stopped_ns;	     /* out, with complete: since when the guest stands */
};

/* On the session's thread, but for one. Each returns 0 or -errno with a sentence. */
struct carried_ops {
	/* A piece from the other side's program; n_bytes 0: that stream has ended there. */
	int (*receive)(void *carrier, unsigned stream, const void *bytes, size_t n_bytes,
		       struct ramlift_error *error);

	/*
	 * Destination, on the registrar's threads: a part of guest memory is about to be
	 * registered. When this returns it reads as zeros. NULL: it has since create().
	 */
	int (*clear)(void *carrier, void *hva, uint64_t size_bytes, struct ramlift_error *error);

	/* The rest is the source's alone. */
	int (*tick)(void *carrier, struct carried_tick *tick, struct ramlift_error *error);

	/* RAM is complete at the destination, and no lane can change it any more: let the rest of
	 * the stream go. */
	int (*release)(void *carrier, struct ramlift_error *error);

	/* 0 once the program has let go of its guest for good; -EAGAIN before. */
	int (*released)(void *carrier, struct ramlift_error *error);
};

/*
 * Make a source or destination carry. Before its run; what pointers point to must outlive it. At
 * the source the dirty source's start() sets the program going, once all slices are usable;
 * harvest() has nothing to do. -ENOMEM.
 */
int source_carry(struct ramlift_source *source, const struct carried_ops *ops, void *carrier,
		 struct ramlift_error *error);
void destination_carry(struct ramlift_destination *destination, const struct carried_ops *ops,
		       void *carrier);

/* Send a piece (at most WIRE_MAX_STREAM_BYTES) to the other side's program; n_bytes 0: the stream
 * has ended. Any thread, while the session streams; blocks while the connection is full. */
int source_send_piece(struct ramlift_source *source, unsigned stream, const void *bytes,
		      size_t n_bytes, struct ramlift_error *error);
int destination_send_piece(struct ramlift_destination *destination, unsigned stream,
			   const void *bytes, size_t n_bytes, struct ramlift_error *error);

/*
 * These between start() and stop() of the dirty source, from any thread.
 *
 * Name pages to send, counted from the start of the region; what lies outside is ignored. Lanes are
 * not woken: that is source_wake_lanes(), once for all pages of a packet.
 *
 * Pages that the program found to be zeros need not be sent unless they were named before: the
 * destination's memory is fresh.
 */
void source_queue_pages(struct ramlift_source *source, unsigned region, uint64_t first_page,
			uint64_t n_pages);
void source_queue_zeros(struct ramlift_source *source, unsigned region, uint64_t first_page,
			uint64_t n_pages);
void source_wake_lanes(struct ramlift_source *source);
uint64_t source_backlog_bytes(struct ramlift_source *source);

/* End the session thread's present wait, for there is something to look at: a tick comes at once.
 * Any thread, as above. */
void source_hasten(struct ramlift_source *source);

#endif
