/* SPDX-License-Identifier: Apache-2.0 */
/* What the processes of the two VMMs do, and what has to hold in them. */
#include "sides.h"

#include <errno.h>
#include <string.h>

#include "core/clock.h"
#include "data_path.h"
#include "host.h"
#include "promises.h"

struct scenario scenario;

bool side_is_alive(const struct side *side)
{
	return side->process && side->process->alive;
}

bool guest_is_gone(void)
{
	return copy_was_lost() || promises_taker_died();
}

/* Where the source says that it is, the guest is. */
static void look_at_phase(void *context, const struct ramlift_stats *stats)
{
	struct side *side = context;

	if (side->phase == stats->phase)
		return;
	side->phase = stats->phase;
	happened(60 + stats->phase, "phase %s", ramlift_phase_name(stats->phase));
	switch (stats->phase) {
	case RAMLIFT_PHASE_IDLE:
	case RAMLIFT_PHASE_PREFLIGHT:
	case RAMLIFT_PHASE_PREPARE:
	case RAMLIFT_PHASE_STREAM:
	case RAMLIFT_PHASE_FAILED:
		if (copy_running() != side->copy)
			violated("the source is in phase %s and its guest does not run",
				 ramlift_phase_name(stats->phase));
		break;
	case RAMLIFT_PHASE_DONE:
		if (side->copy->running || (!copy_running() && !guest_is_gone()))
			violated("the source is done and its guest runs nowhere else");
		break;
	default:
		break;
	}
}

/* Power off the destination's host, and make sure that nobody turns it on again. */
static enum ramlift_owner fence(void *context, const struct ramlift_doubt *doubt)
{
	(void)context;
	if (strcmp(doubt->guest, GUEST_NAME) != 0 || !doubt->session[0])
		violated("the fence is asked about another guest");
	task_sleep(random_below(NS_PER_S));
	if (!scenario.fenced && !one_in(4))
		return RAMLIFT_OWNER_UNKNOWN;
	scenario.fenced = true;
	host_power_off(&hosts[1]);
	return RAMLIFT_OWNER_SOURCE;
}

static void configure_source(struct side *side)
{
	static const struct ramlift_transport *transport;
	struct ramlift_source_config *config = &side->config;

	transport = data_path();
	ramlift_source_config_init(config);
	config->guest_name = GUEST_NAME;
	config->guest_ops = &copy_guest_ops;
	config->guest = side->copy;
	config->dirty_source_ops = &copy_dirty_ops;
	config->dirty_source = side->copy;
	config->regions = side->copy->regions;
	config->n_regions = side->copy->n_regions;
	config->to = "10.0.0.2:7440";
	config->transports = &transport;
	config->n_transports = 1;
	config->lanes_per_rail = 1 + (unsigned)random_below(3);
	config->max_total_ns = (1 + random_below(5)) * NS_PER_S;
	if (scenario.guest_is_busy) { /* it writes faster than the lanes send */
		config->bandwidth_bytes_per_s = (1 + random_below(8)) << 20;
		config->max_downtime_ns = 30 * NS_PER_MS;
	}
	config->on_divergence = (enum ramlift_on_divergence)random_below(3);
	config->verify = one_in(2);
	config->slice_bytes = one_in(2) ? 256 << 10 : 512 << 10;
	config->register_threads = 1 + (unsigned)random_below(2);
	config->pin = one_in(4) ? RAMLIFT_PIN_ALL : RAMLIFT_PIN_DEMAND;
	config->tick_ns = (1 + random_below(20)) * NS_PER_MS;
	config->state_dir = STATE_DIR;
	config->security.insecure = true;
	config->timeouts.connect_ns = 2 * NS_PER_S;
	config->timeouts.heartbeat_ns = (1 + random_below(4)) * NS_PER_S;
	config->timeouts.prepare_ns = 5 * NS_PER_S;
	config->timeouts.hand_over_ns = (2 + random_below(8)) * NS_PER_S;
	config->timeouts.io_ns = 2 * NS_PER_S;
	config->progress = look_at_phase;
	config->fence = !scenario.harmless && one_in(16) ? fence : NULL;
	config->progress_context = side;
}

/* Rule 9: as it was. */
static void check_stayed(const struct side *side)
{
	const struct copy *copy = side->copy;

	if (copy_running() != copy)
		violated("the migration has failed and the guest does not run");
	if (copy->tracking || copy->limit)
		violated("the migration has failed and the guest is still %s",
			 copy->tracking ? "tracked" : "slowed down");
}

static void take_outcome(struct side *side, int ret)
{
	bool in_doubt = side->phase == RAMLIFT_PHASE_IN_DOUBT;

	scenario.report->outcomes[!ret ? 0 : in_doubt ? 2 : 1]++;
	if (ret && !in_doubt)
		check_stayed(side);
	if (in_doubt && side->copy->running)
		violated("the guest is in doubt and runs at the source");
	scenario.owner = RAMLIFT_OWNER_SOURCE;
	if (!ret)
		scenario.owner = RAMLIFT_OWNER_DESTINATION;
	else if (in_doubt)
		scenario.owner = RAMLIFT_OWNER_UNKNOWN;
	side->quit = !ret || in_doubt;
}

/* Nobody may call a source that is about to be freed. */
static void withdraw(struct side *side)
{
	side->copy->source = NULL;
	while (side->n_callers)
		task_sleep(NS_PER_MS);
}

/* Until it is known whose the guest is, or somebody wants the process to end. */
static int settle(struct side *side, struct ramlift_source *source, struct ramlift_error *error)
{
	int ret;

	if (side->copy->running)
		violated("the guest is in doubt and runs at the source");
	side->settling = true;
	scenario.report->settled++;
	do {
		ret = ramlift_source_settle(source, error);
		happened((uint64_t)-ret, "settle: %d: %s", ret, ret ? error->text : "gone");
		if (ret && ret != -EREMOTEIO && ret != -ECANCELED)
			task_sleep(NS_PER_S); /* the journal cannot be written */
	} while (ret && ret != -EREMOTEIO && ret != -ECANCELED);
	side->settling = false;
	return ret;
}

static void migrate(struct side *side)
{
	unsigned n_before = side->process->n_allocations, n_fds = descriptors_open(side->process);
	struct ramlift_source *source;
	struct ramlift_error error = { 0 };
	int ret;

	configure_source(side);
	side->phase = RAMLIFT_PHASE_IDLE;
	ret = ramlift_source_new(&side->config, &source, &error);
	if (!ret) {
		side->source = source;
		side->copy->source = source;
		ret = ramlift_source_run(source, &error);
		if (ret == -EINPROGRESS)
			ret = settle(side, source, &error);
		side->source = NULL;
		withdraw(side);
		if (data_path_endpoints(side->process) || data_path_registered(side->process))
			violated("the source is back and still has lanes or registered memory");
		ramlift_source_free(source);
	}
	happened((uint64_t)-ret, "source: %d: %s", ret, ret ? error.text : "moved");
	if (ret && (error.code != ret || !error.text[0]))
		violated("the source returns %d without a sentence", ret);
	take_outcome(side, ret);
	side->refused_in_doubt = ret == -EBUSY && !strncmp(error.text, "IN DOUBT", 8);
	if (side->process->n_allocations != n_before)
		violated("the source leaks %d allocations",
			 (int)side->process->n_allocations - (int)n_before);
	if (descriptors_open(side->process) != n_fds)
		violated("the source leaves a descriptor open");
}

static void *source_main(void *context)
{
	struct side *side = context;

	side->copy = copy_new(scenario.guest_pages);
	side->copy->busy = scenario.guest_is_busy;
	copy_start_writer(side->copy);
	copy_boot(side->copy);
	while (!side->quit) {
		if (!side->asked) {
			task_wait(side, NEVER_NS);
			continue;
		}
		side->asked = false;
		migrate(side);
		side->busy = false;
	}
	copy_destroy(side->copy);
	process_exit();
	return NULL;
}

static void configure_destination(struct side *side, struct ramlift_destination_config *config)
{
	static const struct ramlift_transport *transport;

	transport = data_path();
	ramlift_destination_config_init(config);
	config->guest_ops = &copy_guest_ops;
	config->guest = side->copy;
	config->listen = "10.0.0.2:7440";
	config->transports = &transport;
	config->n_transports = 1;
	config->register_threads = 1 + (unsigned)random_below(2);
	config->state_dir = STATE_DIR;
	config->security.insecure = true;
	config->timeouts.connect_ns = 2 * NS_PER_S;
	config->timeouts.authenticate_ns = 2 * NS_PER_S;
	config->timeouts.heartbeat_ns = (1 + random_below(4)) * NS_PER_S;
	config->timeouts.prepare_ns = 5 * NS_PER_S;
	config->timeouts.hand_over_ns = (2 + random_below(8)) * NS_PER_S;
	config->timeouts.io_ns = 2 * NS_PER_S;
}

/* Until a guest has come, or it is asked to end. */
static void receive_guests(struct side *side)
{
	struct ramlift_error error = { 0 };
	int ret;

	do {
		ret = ramlift_destination_run(side->destination, &error);
		happened((uint64_t)-ret, "destination: %d: %s", ret, ret ? error.text : "arrived");
		if (ret && (error.code != ret || !error.text[0]))
			violated("the destination returns %d without a sentence", ret);
		if (ret && copy_running() == side->copy)
			violated("the destination has failed and its guest runs");
		if (ret && side->copy->n_regions)
			violated("the destination has failed and its guest is still there");
		if (data_path_endpoints(side->process) || data_path_registered(side->process))
			violated("the destination is back and still has lanes");
		if (ret)
			task_sleep(random_below(100 * NS_PER_MS)); /* it does not spin */
	} while (ret && ret != -ECANCELED && !side->quit);
	side->arrived = !ret;
	if (!ret && copy_running() != side->copy)
		violated("the guest has arrived and does not run");
	if (!ret)
		copy_start_writer(side->copy);
	while (!ret && !side->quit)
		task_wait(side, NEVER_NS);
}

static void *destination_main(void *context)
{
	struct side *side = context;
	struct ramlift_destination_config config;
	struct ramlift_error error = { 0 };
	struct ramlift_destination *destination;

	side->copy = copy_new(0);
	configure_destination(side, &config);
	if (!ramlift_destination_new(&config, &destination, &error)) {
		side->destination = destination;
		receive_guests(side);
		side->destination = NULL;
		withdraw(side);
		ramlift_destination_free(destination);
	} else {
		happened(70, "destination: %s", error.text);
	}
	copy_destroy(side->copy);
	process_exit();
	return NULL;
}

static void *cancel_main(void *context)
{
	struct side *side = context;

	if (side->is_source && side->source) {
		if (side->settling)
			ramlift_source_leave(side->source);
		else
			ramlift_source_cancel(side->source);
	}
	if (!side->is_source && side->destination)
		ramlift_destination_cancel(side->destination);
	side->n_callers--;
	return NULL;
}

void side_cancel(bool of_source)
{
	struct side *side = of_source ? &scenario.source : &scenario.destination;
	struct task *task;

	if (!side_is_alive(side) || !(of_source ? (void *)side->source : (void *)side->destination))
		return;
	side->n_callers++;
	task = task_new(side->process, "signal", cancel_main, side);
	task->detached = true;
}

void side_start(struct side *side)
{
	bool is_source = side == &scenario.source;

	memset(side, 0, sizeof(*side));
	side->is_source = is_source;
	side->process =
		process_start(&hosts[is_source ? 0 : 1], is_source ? "source" : "destination",
			      is_source ? source_main : destination_main, side);
}
