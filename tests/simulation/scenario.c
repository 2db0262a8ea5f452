/* SPDX-License-Identifier: Apache-2.0 */
#include "scenario.h"

#include <string.h>

#include "adversary.h"
#include "data_path.h"
#include "guest.h"
#include "host.h"
#include "promises.h"
#include "sides.h"

static struct process *process_of(bool source)
{
	struct side *side = source ? &scenario.source : &scenario.destination;

	return side_is_alive(side) ? side->process : NULL;
}

static void arrives(struct copy *copy)
{
	if (copy->source)
		return;
	if (!data_path_fenced(copy->process))
		violated("the guest is to run while lanes may write its memory");
	promises_arrived(copy);
}

void scenario_run(uint64_t seed, bool tracing, bool harmless, void (*prepared)(void),
		  struct run *run)
{
	memset(run, 0, sizeof(*run));
	memset(&scenario, 0, sizeof(scenario));
	scenario.report = run;
	scenario.harmless = harmless;
	scenario.owner = RAMLIFT_OWNER_SOURCE;
	world_begin(seed, tracing);
	hosts_begin();
	data_path_begin();
	guests_begin();
	promises_begin();
	scenario.guest_pages = 64 * (1 + random_below(4));
	side_process = process_of;
	cancel_side = side_cancel;
	let_stranger_in = stranger_start;
	frame_seen = promises_see;
	copy_resumes = arrives;
	adversary_begin(harmless);
	scenario.guest_is_busy = !harmless && one_in(adversary_breaks_lanes() ? 2 : 16);
	if (prepared)
		prepared();
	process_start(&hosts[2], "operator", operator_main, NULL);
	world_run();
	run->failed = world.failure[0];
	memcpy(run->failure, world.failure, sizeof(run->failure));
	run->hash = world.hash;
	run->steps = world.steps;
	run->virtual_ns = world.now_ns;
	world_end();
	adversary_end();
	hosts_end();
	data_path_end();
	guests_end();
}
