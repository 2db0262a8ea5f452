/* SPDX-License-Identifier: Apache-2.0 */
/* The decision of each tick, as a pure function of numbers: no clock, no I/O, no state. */
#ifndef CORE_CONTROLLER_H
#define CORE_CONTROLLER_H

#include "core/ramlift.h"

enum decision {
	DECISION_GO_ON,
	DECISION_SWITCH_OVER,
	DECISION_SLOW_DOWN, /* limit the guest, or limit it further */
	DECISION_GIVE_UP,   /* the time is up, or the policy is to abort */
};

struct decision_input {
	bool first_pass_done;	/* once and for all */
	bool settled;		/* no slice has to be registered before the rest can go */
	uint64_t dirty_bytes;	/* still to be sent */
	uint64_t link_rate;	/* bytes a second that busy lanes send; 0: not known yet */
	uint64_t fixed_cost_ns; /* of a switchover with nothing left to send */
	uint64_t elapsed_ns;
	uint64_t stuck_ns; /* since dirty_bytes last reached a new minimum, or the guest was slowed
			      down */
	bool can_slow_down;
	/* policy */
	uint64_t max_downtime_ns;
	uint64_t max_total_ns; /* 0: no limit */
	enum ramlift_on_divergence on_divergence;
};

/* After so long without a new minimum, the rest is as small as it gets. */
#define CONTROLLER_SETTLE_NS 100000000ull

/* After so long without a new minimum the guest counts as outrunning the link. */
#define CONTROLLER_PATIENCE_NS 2000000000ull

/* Fixed cost + remaining / rate; UINT64_MAX while the rate is not known. */
uint64_t controller_predict_downtime_ns(const struct decision_input *input);

enum decision controller_decide(const struct decision_input *input);

#endif
