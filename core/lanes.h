/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's lanes: threads that walk the dirty set, each its own stripes, and post runs of
 * pages.
 *
 * A lane carries the regions that its rail carries; of those, every k-th stripe of the k lanes that
 * do so, for the session's life (rule 2): RC orders writes within a queue pair only, so the newest
 * content of a page lands last only if one lane carries all of them.
 *
 *   a lane fails --> lost --the peer's end of it is dead--> lanes_adopt(): others carry its stripes
 *
 * Until then nobody touches its stripes. Once the lanes are to finish, or where no other lane
 * carries a region of the one that fails, all have failed. Knows nothing of dirty tracking, phases
 * or messages.
 */
#ifndef CORE_LANES_H
#define CORE_LANES_H

#include "core/dirty_set.h"
#include "core/pins.h"
#include "core/ram.h"
#include "core/transport.h"

struct lanes;

struct lanes_config {
	const struct ram *ram;
	struct ramlift_dirty_sink *set;
	struct pins *pins;
	const struct ramlift_transport *transport;
	struct endpoint *endpoint;
	unsigned n_rails;
	unsigned n_lanes;	      /* of all rails, a multiple of n_rails */
	const unsigned *region_rails; /* by region: the rails that carry it, as bits */
	bool skip_holes;	      /* what was marked at first: see dirty_set_mark_present() */
	const struct dirty_bitmap *named; /* instead of that, pages that were ever in the set; or
					     NULL */
	bool skip_zeros; /* the destination's memory is fresh: a page that is zeros when it is first
			    looked at need not be sent */
	uint64_t bandwidth_bytes_per_s; /* all lanes together; 0: no limit */

	/* All lanes have delivered their tokens, or it has come to nothing. On a lane's thread; may
	 * be NULL, as the next ones. */
	void (*ended)(void *context);
	/* A lane is lost: lanes_lost() has it. */
	void (*lost)(void *context);
	/* All lanes have sent what there was, and it has arrived; they wait for a wake. */
	void (*dry)(void *context);
	void *context;
};

/* Start the threads. They send what is in the set already, as far as its slices are usable.
 * -ENOMEM, -EAGAIN. */
int lanes_start(const struct lanes_config *config, struct lanes **lanes,
		struct ramlift_error *error);

/* There may be work in the set, or slices that can be posted to: wake who sleeps. Any thread. */
void lanes_wake(struct lanes *lanes);

/*
 * The guest is paused and the set is final: send what is left at full rate, then each lane its
 * token. Those of lanes that were lost become 0. Returns at once.
 */
void lanes_finish(struct lanes *lanes, uint64_t tokens[]);

/* Wait until every lane that is left has delivered its token. -ETIMEDOUT, or as lanes_check(). */
int lanes_wait(struct lanes *lanes, uint64_t deadline_ns, struct ramlift_error *error);

/* 0, or what that lane says whose failure was one too many. Any thread; cheap. */
int lanes_check(struct lanes *lanes, struct ramlift_error *error);

/* The lanes whose stripes nobody carries at the moment, as bits. Any thread; cheap. */
uint64_t lanes_lost(struct lanes *lanes);

/* Why a lane was lost; 0: it was not. */
int lanes_loss(struct lanes *lanes, unsigned lane, struct ramlift_error *error);

/*
 * Nothing of a lost lane can reach the destination any more: mark what it has carried as dirty
 * again, and deal its stripes out to others. -EIO: there is no lane left that could take them. The
 * session's thread, before lanes_finish().
 */
int lanes_adopt(struct lanes *lanes, unsigned lane, struct ramlift_error *error);

/* Every stripe has a lane, and every lane has been through its stripes once. */
bool lanes_first_pass_done(struct lanes *lanes);

/* Bytes that lanes have posted and that have not completed, without those of lost lanes: they never
 * will. Any thread. */
uint64_t lanes_in_flight_bytes(struct lanes *lanes);

/* Bytes of pages taken from the set that have arrived, or need not be sent. Any thread. */
uint64_t lanes_done_bytes(struct lanes *lanes);

/* Copy one lane's counters (not its rate). Any thread. */
void lanes_stats(struct lanes *lanes, unsigned lane, struct ramlift_lane_stats *stats);

/* Stop the threads wherever they are. Aborts the endpoint, does not close it. NULL is fine. */
void lanes_stop(struct lanes *lanes);

/* Stop, and free. NULL is fine. */
void lanes_free(struct lanes *lanes);

#endif
