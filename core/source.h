/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side of one session. source.c makes it and answers other threads; source_run.c leads
 * it through its phases, source_prepare.c through the first of them; source_switch.c is the
 * switchover; source_rates.c keeps the numbers that the controller looks at; source_lanes.c
 * replaces lanes that are lost.
 */
#ifndef CORE_SOURCE_H
#define CORE_SOURCE_H

#include "core/carried.h"
#include "core/controller.h"
#include "core/journal.h"
#include "core/lanes.h"
#include "core/pins.h"
#include "core/session.h"

/* What the controller looks at. Rates are smoothed over about ten ticks. */
struct source_rates {
	uint64_t last_ns;
	uint64_t last_bytes_sent;
	uint64_t last_dirty_bytes;
	uint64_t new_dirty_bytes;   /* since last_ns */
	uint64_t least_dirty_bytes; /* since streaming began or the guest was last slowed down */
	uint64_t least_ns;	    /* when that was reached */
	bool settled;		    /* all that was wanted has been usable, once */
	double harvest_ns;	    /* how long a harvest takes */
	uint64_t journal_ns;	    /* how long a line takes, of the journals of both sides */
	double dirty_rate, send_rate, link_rate;
};

struct ramlift_source {
	struct session session;
	struct ramlift_source_config config;
	struct address peer;
	char host[256]; /* the peer as it was named, without the port */
	struct security *security;
	struct ram ram;
	struct ramlift_dirty_sink set;

	/* Set as the session gets on, undone in reverse order at its end. */
	const struct ramlift_transport *transport;
	struct endpoint *endpoint;
	unsigned region_rails[RAMLIFT_MAX_REGIONS]; /* which rails carry a region, as bits */
	struct pins *pins;
	struct lanes *lanes;
	uint64_t tokens[RAMLIFT_MAX_LANES]; /* what each lane ends with */
	uint64_t fencing;     /* lost lanes, as bits, that the destination is told to fence */
	uint64_t fence_by_ns; /* when it must have */
	bool tracking;	      /* the dirty source has started */
	bool paused;	      /* the guest is, or may be */

	/* When another program's migration is carried; see carried.h. */
	const struct carried_ops *carried;
	void *carrier;
	struct dirty_bitmap named;   /* pages that were ever queued */
	_Atomic uint64_t zero_pages; /* named as zeros, and not queued */
	uint64_t stopped_ns;	     /* since when that program's guest stands */

	/* The journal, and a doubt. */
	int lock_fd;		  /* of the guest, while the session lives; -1 */
	int settle_fd;		  /* readable: somebody has said whose it is, or to leave */
	_Atomic unsigned verdict; /* whose it is and who said so; 0: not known */
	atomic_bool left;

	struct source_rates rates;
	uint64_t stream_begin_ns;
	uint64_t limit_pages_per_s; /* of the guest's writing; 0: none */
	bool cannot_limit;
};

/* A rail that is not named counts as well. */
static inline unsigned source_n_rails(const struct ramlift_source_config *config)
{
	return config->n_rails ? config->n_rails : 1;
}

static inline unsigned source_n_lanes(const struct ramlift_source_config *config)
{
	return source_n_rails(config) * config->lanes_per_rail;
}

/* 0: none. */
static inline uint64_t source_pin_budget_bytes(const struct ramlift_source_config *config)
{
	return config->pin == RAMLIFT_PIN_BUDGET ? config->pin_budget_bytes : 0;
}

/*
 * The journal's part in the beginning: the lock that says that this guest's session lives, the
 * generation, BEGIN. -EBUSY: the guest is in doubt, or has a session.
 */
int source_begin(struct ramlift_source *source, struct ramlift_error *error);
void source_let_go(struct ramlift_source *source);

/* Agree with the destination; then connect the lanes and begin to stream. */
int source_preflight(struct ramlift_source *source, struct accept *accept,
		     struct ramlift_error *error);
int source_prepare(struct ramlift_source *source, const struct accept *accept,
		   struct ramlift_error *error);

/* Start the dirty source: every write from the return on is reported. */
int source_start_tracking(struct ramlift_source *source, struct ramlift_error *error);

/* A SLICE_KEY message. -EPROTO. */
int source_take_slice_key(struct ramlift_source *source, const struct message *message,
			  struct ramlift_error *error);

/* A LANE_FENCED message. -EPROTO, or -EIO where no other lane can do what that one did. */
int source_take_lane_fenced(struct ramlift_source *source, const struct message *message,
			    struct ramlift_error *error);

/* Tell the destination of lanes that were lost; -ETIMEDOUT when it does not confirm that they are
 * dead. */
int source_replace_lanes(struct ramlift_source *source, struct ramlift_error *error);

/* One tick's numbers: harvest, fold, and what the controller needs to know. */
int source_tick(struct ramlift_source *source, struct decision_input *input,
		struct ramlift_error *error);

/* Pause, send the rest, hand over. 0: the guest runs at the destination. */
int source_switch_over(struct ramlift_source *source, struct ramlift_error *error);

/* All that has not arrived yet: dirty, held by a lane, or in flight. A moment's figure while lanes
 * run. Any thread. */
uint64_t source_remaining_bytes(struct ramlift_source *source);

/* The guest belongs here: let it run, then tell the peer, with the reason. */
void source_take_back(struct ramlift_source *source, struct ramlift_error *error);

/* A line in the guest's journal, synced. */
int source_note(struct ramlift_source *source, enum journal_event event,
		struct ramlift_error *error);
/* The same: RESOLVED. */
int source_note_owner(struct ramlift_source *source, enum ramlift_owner owner,
		      struct ramlift_error *error);

/* Take the lanes' counters into the session's figures. */
void source_collect_stats(struct ramlift_source *source);

#endif
