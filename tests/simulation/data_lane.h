/* SPDX-License-Identifier: Apache-2.0 */
/* The data path's inside: what data_path.c, which keeps endpoints and registrations, and
 * data_lane.c, on which writes travel, share. */
#ifndef TESTS_SIMULATION_DATA_LANE_H
#define TESTS_SIMULATION_DATA_LANE_H

#include "data_path.h"

/*
 * A write or a token on its way. The adapter reads memory at any time before the completion; when
 * that comes the other side's adapter has the write, and its memory will have it soon (rule 5).
 */
struct on_lane {
	struct endpoint *source;
	unsigned lane;
	bool is_token, completed, lost;
	uint64_t token;
	struct transport_write write;
	struct on_lane *next; /* all of them */
	unsigned char data[];
};

struct data_lane {
	unsigned n_queued;
	uint64_t queued_bytes, last_ns, last_landing_ns;
	bool broken;	/* the queue pair is in the error state */
	bool has_token; /* at the destination; at the source: nothing may follow */
	uint64_t token;
};

/* The devices' half of an endpoint: kept until the world ends. */
struct endpoint {
	struct endpoint *next;
	struct process *process;
	struct endpoint *peer; /* NULL: none yet, or gone */
	bool at_source, open, aborted, fenced;
	struct transport_params params;
	struct slice *slices;
	unsigned *registered;
	struct slice_key *keys;
	struct data_lane lanes[];
};

void data_lanes_begin(void);
void data_lanes_end(void);

void *data_zeroed(size_t n, size_t size);
/* The session is to end. */
bool data_is_cancelled(const struct endpoint *endpoint);
/* Until a task of the process changes something, or for a moment. */
void data_wait_a_moment(const struct endpoint *endpoint);
uint64_t data_world_deadline(uint64_t deadline_ns);

/* Something that is posted to the slice has not completed. */
bool data_is_being_written(const struct endpoint *source, unsigned slice);

/* The calls of the transport. */
int data_post(struct endpoint *endpoint, unsigned index, const struct transport_write *posted,
	      unsigned n_writes, struct ramlift_error *error);
uint64_t data_in_flight(struct endpoint *endpoint, unsigned index);
int data_drain(struct endpoint *endpoint, unsigned index, struct ramlift_error *error);
int data_token(struct endpoint *endpoint, unsigned index, uint64_t token,
	       struct ramlift_error *error);
int data_await_tokens(struct endpoint *endpoint, const uint64_t *tokens, uint64_t deadline_ns,
		      struct ramlift_error *error);

#endif
