/* SPDX-License-Identifier: Apache-2.0 */
#include "scenario.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adversary.h"
#include "core/address.h"
#include "core/clock.h"
#include "data_path.h"
#include "guest.h"
#include "host.h"
#include "memory.h"
#include "promises.h"

#define PATIENCE_NS    (150 * NS_PER_S) /* after which nothing goes wrong any more */
#define LAST_CHANCE_NS (300 * NS_PER_S) /* in which everything has to come to an end then */

/* One of the two VMMs. What its process shares with the operator. */
struct side {
	bool is_source;
	struct process *process;
	struct copy *copy;
	struct ramlift_source *source;
	struct ramlift_destination *destination;
	bool asked, busy, quit, arrived, settling;
	unsigned n_callers; /* of cancel */
	enum ramlift_phase phase;
	struct ramlift_source_config config;
};

static struct side source_side, destination_side;
static enum ramlift_owner owner; /* of the guest, as far as the source's side knows */
static bool fenced;		 /* the destination's host was taken from the network for good */
static struct run *report;
static bool nothing_goes_wrong; /* but what the caller lets fail */
static uint64_t guest_pages;
static bool guest_is_busy;

static bool is_alive(const struct side *side)
{
	return side->process && side->process->alive;
}

static struct process *process_of(bool source)
{
	struct side *side = source ? &source_side : &destination_side;

	return is_alive(side) ? side->process : NULL;
}

/* It died with the process that had it, or that was about to run it. */
static bool is_gone(void)
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
		if (side->copy->running || (!copy_running() && !is_gone()))
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
	if (!fenced && !one_in(4))
		return RAMLIFT_OWNER_UNKNOWN;
	fenced = true;
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
	if (guest_is_busy) { /* it writes faster than the lanes send */
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
	config->fence = !nothing_goes_wrong && one_in(16) ? fence : NULL;
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

	report->outcomes[!ret ? 0 : in_doubt ? 2 : 1]++;
	if (ret && !in_doubt)
		check_stayed(side);
	if (in_doubt && side->copy->running)
		violated("the guest is in doubt and runs at the source");
	owner = RAMLIFT_OWNER_SOURCE;
	if (!ret)
		owner = RAMLIFT_OWNER_DESTINATION;
	else if (in_doubt)
		owner = RAMLIFT_OWNER_UNKNOWN;
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
	report->settled++;
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
	if (side->process->n_allocations != n_before)
		violated("the source leaks %d allocations",
			 (int)side->process->n_allocations - (int)n_before);
	if (descriptors_open(side->process) != n_fds)
		violated("the source leaves a descriptor open");
}

static void *source_main(void *context)
{
	struct side *side = context;

	side->copy = copy_new(guest_pages);
	side->copy->busy = guest_is_busy;
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

/* As a signal handler of the process would. */
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

static void cancel(bool of_source)
{
	struct side *side = of_source ? &source_side : &destination_side;
	struct task *task;

	if (!is_alive(side) || !(of_source ? (void *)side->source : (void *)side->destination))
		return;
	side->n_callers++;
	task = task_new(side->process, "signal", cancel_main, side);
	task->detached = true;
}

/* A host of the network that has overheard everything says it again, without its own lanes. */
static void *stranger_main(void *context)
{
	struct address to = { 0 };
	const struct overheard *frames;
	unsigned n = adversary_overheard(&frames), connection = 0, only = 0;
	struct ramlift_error error;
	int fd;

	(void)context;
	if (n)
		connection = frames[random_below(n)].connection;
	if (one_in(2))
		only = one_in(2) ? MESSAGE_COMMIT : MESSAGE_OFFER;
	if (!address_parse("10.0.0.2:7440", 0, &to, &error) &&
	    !address_connect(&to, clock_now_ns() + NS_PER_S, -1, &fd, &error)) {
		send_all(fd, "RLPLAIN\n", 8, clock_now_ns() + NS_PER_S, -1);
		for (unsigned i = 0; i < n; i++) {
			if (frames[i].connection != connection || (only && frames[i].type != only))
				continue;
			if (send_all(fd, frames[i].bytes, frames[i].n_bytes,
				     clock_now_ns() + NS_PER_S, -1))
				break;
			task_sleep(random_below(20 * NS_PER_MS));
		}
		task_sleep(random_below(one_in(8) ? 10 * NS_PER_S : 100 * NS_PER_MS));
		close(fd);
	}
	process_kill(world.current->process);
	return NULL;
}

static void let_in(void)
{
	process_start(&hosts[2], "stranger", stranger_main, NULL);
}

static void start(struct side *side)
{
	bool is_source = side == &source_side;

	memset(side, 0, sizeof(*side));
	side->is_source = is_source;
	side->process = process_start(&hosts[is_source ? 0 : 1], is_source ? "source" : "destination",
				      is_source ? source_main : destination_main, side);
}

/* The operator's hands: what has died is started again, sooner or later. */
static void keep_house(void)
{
	bool at_once = nothing_goes_wrong || adversary_rests();

	if (!is_alive(&destination_side) && hosts[1].up && !fenced && one_in(at_once ? 1 : 6))
		start(&destination_side);
}

/* ---- when the source's process is gone: what its journal says, and what the operator does ---- */

/* The last word of the last session, where that is no doubt. */
static enum ramlift_owner owner_by_journal(void)
{
	const char *text = disk_text(&hosts[0], STATE_DIR "/" GUEST_NAME ".journal");
	const char *line = text ? strrchr(text, '\n') : NULL;

	while (line && line > text && line[-1] != '\n')
		line--;
	if (line && (!strncmp(line, "STARTED", 7) ||
		     (!strncmp(line, "RESOLVED", 8) && strstr(line, "owner=destination"))))
		return RAMLIFT_OWNER_DESTINATION;
	return RAMLIFT_OWNER_SOURCE;
}

/* What an operator of a host that can be reached no more would say, having pulled its plug. */
static enum ramlift_owner ask_about(const struct ramlift_doubt *doubt)
{
	enum ramlift_owner word = RAMLIFT_OWNER_UNKNOWN;
	struct ramlift_source_config config;
	struct ramlift_error error;
	int ret;

	if (fenced)
		return RAMLIFT_OWNER_SOURCE;
	ramlift_source_config_init(&config);
	config.security.insecure = true;
	config.timeouts.connect_ns = 2 * NS_PER_S;
	ret = ramlift_doubt_ask(doubt, &config.security, &config.timeouts, &word, &error);
	happened((uint64_t)-ret, "asked: %d, owner %d", ret, (int)word);
	return ret ? RAMLIFT_OWNER_UNKNOWN : word;
}

/* `ramlift resolve`, on the source's host. */
static void *resolve_main(void *context)
{
	struct ramlift_doubt doubt;
	struct ramlift_error error;
	enum ramlift_owner word;
	int ret;

	(void)context;
	while (owner == RAMLIFT_OWNER_UNKNOWN) {
		ret = ramlift_doubt_read(STATE_DIR, GUEST_NAME, &doubt, &error);
		happened((uint64_t)-ret, "the journal says %d: %s", ret,
			 ret ? error.text : "in doubt");
		if (ret == -EBADMSG)
			violated("the journal cannot be read: %s", error.text);
		if (ret == -ENOENT) {
			owner = owner_by_journal();
			break;
		}
		word = ret ? RAMLIFT_OWNER_UNKNOWN : ask_about(&doubt);
		if (word != RAMLIFT_OWNER_UNKNOWN &&
		    !ramlift_doubt_resolve(STATE_DIR, &doubt, word, &error))
			owner = word;
		else
			task_sleep(NS_PER_S);
	}
	process_exit();
	return NULL;
}

static bool is_over(uint64_t begin_ns, const char *what)
{
	if (world.now_ns - begin_ns > PATIENCE_NS && !adversary_rests())
		adversary_rest();
	if (world.now_ns - begin_ns > PATIENCE_NS + LAST_CHANCE_NS)
		violated("%s does not come to an end; phase %s", what,
			 ramlift_phase_name(source_side.phase));
	return false;
}

/* The guest is to run again: where, is what has to be found out. */
static void recover_source(void)
{
	uint64_t begin_ns = world.now_ns;
	struct process *process = NULL;

	owner = RAMLIFT_OWNER_UNKNOWN;
	report->recovered++;
	while (owner == RAMLIFT_OWNER_UNKNOWN && !is_over(begin_ns, "the doubt")) {
		if (hosts[0].up && (!process || !process->alive))
			process = process_start(&hosts[0], "resolve", resolve_main, NULL);
		task_sleep(random_below(50 * NS_PER_MS));
		keep_house();
	}
	happened(80, "the guest is the %s's",
		 owner == RAMLIFT_OWNER_SOURCE ? "source" : "destination");
	if (owner == RAMLIFT_OWNER_SOURCE)
		start(&source_side);
}

static void await_source(void)
{
	uint64_t begin_ns = world.now_ns;

	while (is_alive(&source_side) && source_side.busy && !is_over(begin_ns, "the migration")) {
		task_sleep(random_below(50 * NS_PER_MS));
		keep_house();
	}
	/* It ends by itself when the guest is gone, or left in doubt. */
	while (is_alive(&source_side) && source_side.quit)
		task_sleep(NS_PER_MS);
	if (!is_alive(&source_side) && owner != RAMLIFT_OWNER_DESTINATION)
		recover_source();
}

/* End a process and see that it leaves nothing behind. */
static void end_side(struct side *side)
{
	uint64_t begin_ns = world.now_ns;

	while (is_alive(side)) {
		side->quit = true;
		task_wake(side);
		if (!side->is_source && !side->arrived)
			cancel(false);
		task_sleep(10 * NS_PER_MS);
		if (world.now_ns - begin_ns > LAST_CHANCE_NS)
			violated("the %s does not end", side->process->name);
	}
}

static void *operator_main(void *context)
{
	unsigned attempts = nothing_goes_wrong ? 3 : 1 + (unsigned)random_below(3);

	(void)context;
	start(&destination_side);
	start(&source_side);
	task_sleep(10 * NS_PER_MS);
	for (unsigned i = 0; i < attempts && owner == RAMLIFT_OWNER_SOURCE && !fenced; i++) {
		if (is_alive(&source_side)) {
			source_side.asked = true;
			source_side.busy = true;
			task_wake(&source_side);
		}
		await_source();
		/* A destination may wait for the lanes of the attempt before. */
		task_sleep(nothing_goes_wrong ? 5 * NS_PER_S : random_below(2 * NS_PER_S));
		keep_house();
	}
	adversary_rest();
	task_sleep(5 * NS_PER_S);
	if (!is_alive(&source_side) && owner == RAMLIFT_OWNER_SOURCE)
		recover_source();
	if (owner == RAMLIFT_OWNER_SOURCE && copy_running() != source_side.copy)
		violated("in the end the guest is the source's, and does not run there");
	if (owner == RAMLIFT_OWNER_DESTINATION && !copy_running() && !is_gone())
		violated("in the end the guest is the destination's, and does not run there");
	report->lost = !copy_running();
	end_side(&source_side);
	end_side(&destination_side);
	world.over = true;
	task_sleep(1);
	return NULL;
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
	report = run;
	nothing_goes_wrong = harmless;
	owner = RAMLIFT_OWNER_SOURCE;
	fenced = false;
	world_begin(seed, tracing);
	hosts_begin();
	data_path_begin();
	guests_begin();
	promises_begin();
	guest_pages = 64 * (1 + random_below(4));
	guest_is_busy = !harmless && one_in(16);
	side_process = process_of;
	cancel_side = cancel;
	let_stranger_in = let_in;
	frame_seen = promises_see;
	copy_resumes = arrives;
	adversary_begin(harmless);
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
