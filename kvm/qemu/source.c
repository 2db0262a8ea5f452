/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side. QEMU takes three places of the engine's seams: it is the dirty source (its
 * stream names the pages), the controller (it stops the guest when it expects the downtime to be
 * short enough), and the guest's state (what follows its RAM section).
 */
#include "kvm/qemu/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/carried.h"
#include "core/clock.h"
#include "core/error.h"
#include "kvm/qemu/control.h"
#include "kvm/qemu/describe.h"
#include "kvm/qemu/guest_ram.h"
#include "kvm/qemu/inlet.h"
#include "kvm/qemu/no_state.h"

#define TICK_NS	 (10 * NS_PER_MS)
#define QUERY_NS (250 * NS_PER_MS)
/* The first limit for the downtime is this part of the user's: an eighth. */
#define FIRST_DOWNTIME_SHIFT 3
#define STOP_EVENT_NS	     (5 * NS_PER_MS) /* how long its event may lag behind QEMU's stream */
/* How far the inlet may run ahead of the lanes, in time: 1/64 s. */
#define WINDOW_DIVISOR 64

struct qemu_source {
	struct qemu_source_config config;
	char name[RAMLIFT_MAX_NAME];
	struct qmp *qmp;
	struct qemu_guest *guest;
	struct guest_ram ram;
	struct inlet *inlet;
	char *machine; /* the description that travels */
	struct ramlift_source *session;

	json_t *settings_before; /* NULL: nothing was changed */
	bool migrating;		 /* QEMU has been told to, and not been told to stop */
	bool stopped;		 /* the session has ended, or is in doubt */
	struct control_progress progress;
	uint64_t next_query_ns;
	uint64_t downtime_ns; /* what QEMU may cost its guest, for now */
};

static int region_of(void *context, const struct stream_block *block)
{
	const struct qemu_source *source = context;
	const struct qemu_block *shared = qemu_guest_block(source->guest, block->name);

	return shared && shared->size_bytes == block->size_bytes
		       ? (int)(shared - source->guest->blocks)
		       : -1;
}

static int start(void *context, struct ramlift_dirty_sink *sink, struct ramlift_error *error)
{
	struct qemu_source *source = context;
	const struct qemu_source_config *config = &source->config;
	struct control_settings settings = {
		.n_multifd = config->n_multifd,
		.max_downtime_ns = source->downtime_ns,
		.bandwidth_bytes_per_s = config->session.bandwidth_bytes_per_s,
		.auto_converge = config->auto_converge,
	};
	int ret;

	(void)sink; /* pages are named by way of carried.h */
	ret = control_set_source(source->qmp, &settings, &source->settings_before, error);
	if (!ret)
		ret = inlet_start(source->inlet, source->guest->pid, source->session, region_of,
				  source, error);
	if (ret)
		goto restore;
	source->migrating = true;
	ret = control_migrate(source->qmp, inlet_port(source->inlet), error);
	if (ret)
		goto stop_inlet;
	return 0;

stop_inlet:
	source->migrating = false;
	inlet_stop(source->inlet);
restore:
	if (source->settings_before)
		control_restore(source->qmp, source->settings_before);
	source->settings_before = NULL;
	return ret;
}

/* Everything that was read is named already. */
static int harvest(void *context, struct ramlift_error *error)
{
	(void)context;
	(void)error;
	return 0;
}

/* QEMU's settings are as before, once the guest has been taken back. */
static void restore(struct qemu_source *source)
{
	if (source->settings_before && !source->migrating) {
		control_restore(source->qmp, source->settings_before);
		source->settings_before = NULL;
	}
}

/* The guest is this side's: QEMU ends its migration and runs it, if it ran before. */
static int take_back(void *context, struct ramlift_error *error)
{
	struct qemu_source *source = context;
	int ret;

	if (!source->migrating)
		return 0;
	/* First, for QEMU may be stuck in writing what nobody reads any more. */
	inlet_stop(source->inlet);
	ret = control_take_back(source->qmp, source->guest->running, error);
	source->migrating = ret != 0;
	if (source->stopped) /* it was in doubt */
		restore(source);
	return ret;
}

/* If the guest has not been taken back by now, it has gone, or is in doubt. */
static void stop(void *context)
{
	struct qemu_source *source = context;

	inlet_stop(source->inlet);
	source->stopped = true;
	restore(source);
}

static const struct ramlift_dirty_source_ops dirty_source_ops = {
	.start = start,
	.harvest = harvest,
	.stop = stop,
};

/* When this is called, QEMU has stopped its guest. */
static int pause_guest(void *context, struct ramlift_error *error)
{
	(void)context;
	(void)error;
	return 0;
}

static const struct ramlift_guest_ops guest_ops = {
	.pause = pause_guest,
	.resume = take_back,
	.save_state = no_state_save,
};

static int receive(void *context, unsigned stream, const void *bytes, size_t n_bytes,
		   struct ramlift_error *error)
{
	struct qemu_source *source = context;

	return stream ? 0 : inlet_write(source->inlet, bytes, n_bytes, error);
}

/* Why a connection of QEMU's broke is mostly known to QEMU itself. */
static int check_inlet(struct qemu_source *source, struct ramlift_error *error)
{
	struct ramlift_error ours;
	int ret = inlet_check(source->inlet, &ours);

	if (!ret)
		return 0;
	/* First, for QEMU may be writing to another connection, and answers nobody then. */
	inlet_stop(source->inlet);
	if (ret == -ECONNRESET)
		ret = control_query(source->qmp, &source->progress, error);
	if (ret == -EREMOTEIO || ret == -ECANCELED)
		return ret;
	*error = ours;
	return ours.code;
}

static int ask_figures(struct qemu_source *source, struct ramlift_error *error)
{
	uint64_t now_ns = clock_now_ns();
	int ret = 0;

	if (now_ns < source->next_query_ns)
		return 0;
	source->next_query_ns = now_ns + QUERY_NS;
	ret = control_ask(source->qmp, error);
	return ret == -EAGAIN ? 0 : ret;
}

/*
 * QEMU switches over as soon as it expects the downtime to be within its limit, even if the next
 * pass would make it much shorter. So it gets a part of the user's limit at first, and twice as
 * much with each pass that has not sufficed.
 */
static int relax_downtime(struct qemu_source *source, struct ramlift_error *error)
{
	uint64_t limit_ns = source->config.session.max_downtime_ns;
	uint64_t passes = source->progress.iterations; /* the first sync comes before any pass */
	uint64_t wanted_ns = limit_ns >> FIRST_DOWNTIME_SHIFT;
	int ret;

	if (passes > 2)
		wanted_ns =
			passes - 2 < FIRST_DOWNTIME_SHIFT ? wanted_ns << (passes - 2) : limit_ns;
	if (wanted_ns <= source->downtime_ns || source->progress.guest_stopped)
		return 0;
	ret = control_set_downtime(source->qmp, wanted_ns, error);
	if (!ret)
		source->downtime_ns = wanted_ns;
	return ret == -EAGAIN ? 0 : ret;
}

static void judge_completeness(struct qemu_source *source, struct carried_tick *tick)
{
	uint64_t since_ns;

	if (!inlet_complete(source->inlet, &since_ns))
		return;
	tick->stopped_ns = since_ns;
	tick->complete = true;
	if (!source->guest->running)
		return;
	if (source->progress.guest_stopped)
		tick->stopped_ns = source->progress.stopped_ns;
	else
		tick->complete = clock_now_ns() - since_ns > STOP_EVENT_NS;
}

/* Neither may the guest stand for ever, nor can QEMU be done before its memory has been taken. */
static int check_stop(const struct qemu_source *source, const struct carried_tick *tick,
		      struct ramlift_error *error)
{
	uint64_t patience_ns = source->config.session.timeouts.hand_over_ns;

	if (tick->complete)
		return 0;
	if (source->progress.completed)
		return error_set(error, -EPROTO,
				 "QEMU says that its guest has arrived before all memory was sent");
	if (source->progress.guest_stopped &&
	    clock_now_ns() - source->progress.stopped_ns > patience_ns)
		return error_set(error, -ETIMEDOUT,
				 "QEMU has stopped its guest, and the rest of its memory does not "
				 "get through: is the link up?");
	return 0;
}

static int tick(void *context, struct carried_tick *tick, struct ramlift_error *error)
{
	struct qemu_source *source = context;
	int ret;

	ret = control_follow(source->qmp, &source->progress, error);
	if (!ret)
		ret = check_inlet(source, error);
	if (!ret)
		ret = ask_figures(source, error);
	if (!ret)
		ret = relax_downtime(source, error);
	if (ret)
		return ret;
	inlet_set_window(source->inlet, tick->link_rate / WINDOW_DIVISOR);
	tick->stats->bytes_remaining = source->progress.remaining_bytes + tick->backlog_bytes;
	tick->stats->passes = source->progress.iterations;
	tick->stats->dirty_rate_bytes_per_s = source->progress.dirty_bytes_per_s;
	judge_completeness(source, tick);
	return check_stop(source, tick, error);
}

static int release(void *context, struct ramlift_error *error)
{
	struct qemu_source *source = context;

	(void)error;
	inlet_release(source->inlet);
	return 0;
}

static int released(void *context, struct ramlift_error *error)
{
	struct qemu_source *source = context;
	int ret = control_follow(source->qmp, &source->progress, error);

	if (ret || source->progress.completed)
		return ret;
	ret = check_inlet(source, error);
	return ret ? ret : -EAGAIN;
}

static const struct carried_ops carried_ops = {
	.receive = receive,
	.tick = tick,
	.release = release,
	.released = released,
};

/* A name is part of a file's name, and travels. */
static int choose_name(struct qemu_source *source, struct ramlift_error *error)
{
	const char *name = source->config.name ? source->config.name : source->guest->name;
	int n;

	if (name[0])
		n = snprintf(source->name, sizeof(source->name), "%s", name);
	else
		n = snprintf(source->name, sizeof(source->name), "qemu-%d",
			     (int)source->guest->pid);
	if ((size_t)n >= sizeof(source->name) || strchr(source->name, '/'))
		return error_set(error, -EINVAL,
				 "the guest's name is no file name of up to %u characters: choose "
				 "another one with --name",
				 RAMLIFT_MAX_NAME - 1);
	return 0;
}

static int check_status(const struct qemu_guest *guest, struct ramlift_error *error)
{
	if (guest->running || !strcmp(guest->status, "paused") ||
	    !strcmp(guest->status, "prelaunch"))
		return 0;
	if (!strcmp(guest->status, "postmigrate"))
		return error_set(error, -EBUSY,
				 "this QEMU's guest has moved away already, or is in doubt: look "
				 "at 'ramlift status' first; then end this QEMU, or say 'cont' if "
				 "the guest is to run here after all");
	return error_set(error, -EBUSY,
			 "this QEMU is in state '%s': only a running or paused guest can move",
			 guest->status);
}

/* Pages that the guest has given back are not sent, and differ. */
static int check_verify(const struct qemu_source *source, struct ramlift_error *error)
{
	if (!source->config.session.verify || !source->guest->free_page_hints)
		return 0;
	return error_set(error, -EOPNOTSUPP,
			 "--verify compares all memory, and this QEMU leaves out what its guest "
			 "reports as free: leave --verify out, or free-page-hint=on of the "
			 "virtio-balloon");
}

static int map_ram(struct qemu_source *source, struct ramlift_error *error)
{
	const struct qemu_guest *guest = source->guest;
	int ret = 0;

	for (unsigned i = 0; !ret && i < guest->n_blocks; i++)
		ret = guest_ram_add(&source->ram, guest->pid, &guest->blocks[i].mapping, error);
	return ret;
}

static int describe(struct qemu_source *source, struct ramlift_error *error)
{
	json_t *machine = qemu_describe(source->guest);

	json_object_set_new(machine, "multifd", json_integer(source->config.n_multifd));
	json_object_set_new(machine, "running", json_boolean(source->guest->running));
	source->machine = json_dumps(machine, JSON_COMPACT);
	json_decref(machine);
	return source->machine ? 0 : error_set(error, -ENOMEM, "no memory to describe the guest");
}

static int make_session(struct qemu_source *source, struct ramlift_error *error)
{
	struct ramlift_source_config *config = &source->config.session;
	int ret;

	config->guest_name = source->name;
	config->guest_ops = &guest_ops;
	config->guest = source;
	config->dirty_source_ops = &dirty_source_ops;
	config->dirty_source = source;
	config->regions = source->ram.regions;
	config->n_regions = source->ram.n_regions;
	config->machine = source->machine;
	config->machine_bytes = strlen(source->machine);
	config->tick_ns = TICK_NS;
	ret = ramlift_source_new(config, &source->session, error);
	if (!ret)
		ret = source_carry(source->session, &carried_ops, source, error);
	return ret;
}

int qemu_source_new(const struct qemu_source_config *config, struct qemu_source **result,
		    struct ramlift_error *error)
{
	struct qemu_source *source = calloc(1, sizeof(*source));
	int ret;

	if (!source)
		return error_set(error, -ENOMEM, "no memory for a session");
	source->config = *config;
	source->downtime_ns = config->session.max_downtime_ns >> FIRST_DOWNTIME_SHIFT;
	ret = qmp_open(config->qmp_path, &source->qmp, error);
	if (!ret)
		ret = qemu_inspect(source->qmp, config->pid, &source->guest, error);
	if (!ret)
		ret = check_status(source->guest, error);
	if (!ret)
		ret = check_verify(source, error);
	if (!ret)
		ret = choose_name(source, error);
	if (!ret)
		ret = map_ram(source, error);
	if (!ret)
		ret = describe(source, error);
	if (!ret)
		ret = inlet_open(0, &source->inlet, error);
	if (!ret)
		ret = make_session(source, error);
	if (ret) {
		qemu_source_free(source);
		return ret;
	}
	*result = source;
	return 0;
}

static int ended(struct qemu_source *source, int ret)
{
	if (!ret && source->config.quit)
		qmp_call(source->qmp, "quit", NULL, NULL, NULL);
	return ret;
}

int qemu_source_run(struct qemu_source *source, struct ramlift_error *error)
{
	return ended(source, ramlift_source_run(source->session, error));
}

int qemu_source_settle(struct qemu_source *source, struct ramlift_error *error)
{
	return ended(source, ramlift_source_settle(source->session, error));
}

void qemu_source_leave(struct qemu_source *source)
{
	ramlift_source_leave(source->session);
}

void qemu_source_info(struct qemu_source *source, struct ramlift_session_info *info)
{
	ramlift_source_info(source->session, info);
}

int qemu_source_cancel(struct qemu_source *source)
{
	return ramlift_source_cancel(source->session);
}

void qemu_source_stats(struct qemu_source *source, struct ramlift_stats *stats)
{
	ramlift_source_stats(source->session, stats);
}

const char *qemu_source_name(const struct qemu_source *source)
{
	return source->name;
}

bool qemu_source_ran(const struct qemu_source *source)
{
	return source->guest->running;
}

void qemu_source_free(struct qemu_source *source)
{
	if (!source)
		return;
	ramlift_source_free(source->session);
	inlet_close(source->inlet);
	json_decref(source->settings_before);
	free(source->machine);
	guest_ram_fini(&source->ram);
	qemu_guest_free(source->guest);
	qmp_close(source->qmp);
	free(source);
}
