/* SPDX-License-Identifier: Apache-2.0 */
#include "core/controller.h"

#include "core/clock.h"

uint64_t controller_predict_downtime_ns(const struct decision_input *input)
{
	double send_ns;

	if (!input->dirty_bytes)
		return input->fixed_cost_ns;
	if (!input->link_rate)
		return UINT64_MAX;
	send_ns = (double)input->dirty_bytes * (double)NS_PER_S / (double)input->link_rate;
	if (send_ns >= (double)(UINT64_MAX - input->fixed_cost_ns))
		return UINT64_MAX; /* the link all but stands still */
	return input->fixed_cost_ns + (uint64_t)send_ns;
}

/* Waiting longer would not make the downtime much shorter: nothing is left to send, or no more than
 * the switchover costs by itself, or the rest has stopped shrinking. */
static bool bottomed_out(const struct decision_input *input)
{
	uint64_t predicted_ns = controller_predict_downtime_ns(input);

	return predicted_ns - input->fixed_cost_ns <= input->fixed_cost_ns ||
	       input->stuck_ns >= CONTROLLER_SETTLE_NS;
}

enum decision controller_decide(const struct decision_input *input)
{
	if (input->max_total_ns && input->elapsed_ns >= input->max_total_ns)
		return DECISION_GIVE_UP;
	if (!input->first_pass_done)
		return DECISION_GO_ON;
	if (controller_predict_downtime_ns(input) <= input->max_downtime_ns)
		return input->settled && bottomed_out(input) ? DECISION_SWITCH_OVER
							     : DECISION_GO_ON;
	if (input->stuck_ns < CONTROLLER_PATIENCE_NS)
		return DECISION_GO_ON;
	if (input->fixed_cost_ns > input->max_downtime_ns &&
	    input->on_divergence != RAMLIFT_DIVERGENCE_STOP)
		return DECISION_GIVE_UP; /* no guest is slow enough for that */
	switch (input->on_divergence) {
	case RAMLIFT_DIVERGENCE_STOP:
		return DECISION_SWITCH_OVER;
	case RAMLIFT_DIVERGENCE_ABORT:
		return DECISION_GIVE_UP;
	case RAMLIFT_DIVERGENCE_THROTTLE:
		break;
	}
	return input->can_slow_down ? DECISION_SLOW_DOWN : DECISION_GO_ON;
}
