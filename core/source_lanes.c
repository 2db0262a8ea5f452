/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane is lost while the session streams, and the others carry on:
 *
 *   it fails here, its end is killed    LANE_LOST ---->
 *                                       <---- LANE_FENCED   its end there is dead, too
 *   dirty again, dealt out to others
 *
 * The guest runs all the while, and there is no switchover before the last of these is done.
 */
#include <errno.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/source.h"

static int tell(struct ramlift_source *source, unsigned lane, struct ramlift_error *error)
{
	const struct ramlift_timeouts *timeouts = &source->config.timeouts;
	struct lane_message message = { .lane = (uint16_t)lane };
	uint32_t length;
	void *payload;

	source->transport->drop_lane(source->endpoint, lane);
	source->fencing |= 1ull << lane;
	source->fence_by_ns = clock_now_ns() + timeouts->io_ns + timeouts->heartbeat_ns;
	payload = lane_message_encode(&message, &length);
	return channel_send_owned(source->session.channel, MESSAGE_LANE_LOST, payload, length,
				  error);
}

static int too_late(struct ramlift_source *source, struct ramlift_error *error)
{
	unsigned lane = (unsigned)__builtin_ctzll(source->fencing);
	struct ramlift_error why = { 0 };

	lanes_loss(source->lanes, lane, &why);
	return error_set(error, -ETIMEDOUT,
			 "the destination did not confirm in time that lane %u, which was lost, is "
			 "dead there (%.200s)",
			 lane, why.text);
}

int source_replace_lanes(struct ramlift_source *source, struct ramlift_error *error)
{
	uint64_t lost = lanes_lost(source->lanes) & ~source->fencing;
	int ret = 0;

	for (unsigned lane; !ret && bit_next(&lost, &lane);)
		ret = tell(source, lane, error);
	if (!ret && source->fencing && clock_now_ns() >= source->fence_by_ns)
		ret = too_late(source, error);
	return ret;
}

int source_take_lane_fenced(struct ramlift_source *source, const struct message *message,
			    struct ramlift_error *error)
{
	struct lane_message fenced;

	if (lane_message_decode(message->payload, message->length_bytes, &fenced) ||
	    fenced.lane >= source_n_lanes(&source->config) || !(source->fencing >> fenced.lane & 1))
		return error_set(error, -EPROTO, "the destination's LANE_FENCED makes no sense");
	source->fencing &= ~(1ull << fenced.lane);
	/* There is more to send now: that is no sign of a guest that outruns the link. */
	source->rates.least_ns = 0;
	return lanes_adopt(source->lanes, fenced.lane, error);
}
