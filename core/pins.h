/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's account of which slices are registered, here and at the destination, so that lanes
 * may post to them.
 *
 *   want ----> queued --within the budget--> asked --both sides have said so--> usable
 *                ^                                                                |
 *                '---------- wanted again <-- retired, to make room <-------------'
 *
 * A slice is wanted by the session for what the guest has in it, or by a lane that finds a page of
 * it. Without a budget it stays usable to the end. With one, lanes hold the slice that they post
 * to, until what they posted has completed; one that nobody holds may be retired: deregistered
 * here, and there.
 */
#ifndef CORE_PINS_H
#define CORE_PINS_H

#include "core/ram.h"
#include "core/transport.h"

struct pins;

struct pins_config {
	const struct ram *ram;
	const struct ramlift_transport *transport;
	struct endpoint *endpoint;
	const unsigned *region_rails; /* by region: the rails whose lanes carry it, as bits */
	unsigned n_threads;	      /* that register */
	uint64_t budget_bytes;	      /* 0: no limit; else at least a slice */

	/* Tell the destination. Any thread; 0 or -errno with a sentence. */
	int (*ask)(void *context, unsigned slice, unsigned rails, struct ramlift_error *error);
	int (*retire)(void *context, unsigned slice, struct ramlift_error *error);
	/* Some slice has become usable. On one of the registrar's threads or the session's. */
	void (*usable)(void *context);
	void *context;
};

/* -ENOMEM, -EAGAIN. Nothing is wanted yet. */
int pins_start(const struct pins_config *config, struct pins **pins, struct ramlift_error *error);

/* Any thread; again and again does no harm. True: it is usable already, or again: a retire that
 * came to nothing made pins_hold() fail, and usable() will not be called. */
bool pins_want(struct pins *pins, unsigned slice);

/* The destination was asked for it, and has not answered. The session's thread. */
bool pins_await_peer(struct pins *pins, unsigned slice);

/* The destination has registered it. -EPROTO: nobody had asked. */
int pins_peer_ready(struct pins *pins, unsigned slice, struct ramlift_error *error);

/*
 * True: it is usable, and stays so until pins_release(). Lanes' threads. Without a budget this is
 * one atomic load, and there is nothing to release.
 */
bool pins_hold(struct pins *pins, unsigned slice);
void pins_release(struct pins *pins, unsigned slice);

/*
 * The same for a slice that may not be usable yet: once it is, it stays so until pins_release().
 * Whoever waits for one must hold no other: it could be the one that has to make room.
 */
void pins_reserve(struct pins *pins, unsigned slice);
bool pins_usable(const struct pins *pins, unsigned slice);

/* Without a budget: a slice that is usable stays so. */
bool pins_are_kept(const struct pins *pins);

/* Every slice that is wanted is usable. */
bool pins_settled(struct pins *pins);

/* What has failed; -ETIMEDOUT when the destination owes a slice for longer than patience_ns. To be
 * called now and then: it lets those in that wait for room which nobody had to let go. */
int pins_check(struct pins *pins, uint64_t patience_ns, struct ramlift_error *error);

/* Stop and free; deregisters nothing. NULL is fine. */
void pins_free(struct pins *pins);

#endif
