/* SPDX-License-Identifier: Apache-2.0 */
#include "adversary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "data_path.h"
#include "real.h"

#define MAX_MISFORTUNES 6u
#define MAX_OVERHEARD	256u

enum trigger { AT_POINT, AT_NAMED_POINT, AT_FRAME, AT_TIME };

struct misfortune {
	enum trigger trigger;
	enum action action;
	const char *point;
	enum message_type type;
	unsigned countdown;
	uint64_t delay_ns, duration_ns;
	bool source; /* whom it befalls */
	bool done;
};

static struct misfortune misfortunes[MAX_MISFORTUNES];
static unsigned n_misfortunes, fails_in;
static bool resting, breaking_lanes;
static struct overheard heard[MAX_OVERHEARD];
static unsigned n_heard;

struct process *(*side_process)(bool source);
void (*cancel_side)(bool source);
void (*let_stranger_in)(void);
void (*frame_seen)(const struct frame *frame);

/* All orders of magnitude between two bounds are equally likely. */
static uint64_t random_scale(uint64_t from, uint64_t to)
{
	unsigned n = 0;

	while (from << n < to)
		n++;
	from <<= random_below(n + 1);
	return from + random_below(from);
}

static void power_on(void *context)
{
	host_power_on(context);
}

static void empty_disk(void *context)
{
	((struct host *)context)->disk_full = false;
	happened(40, "there is room on the disk of %s again", ((struct host *)context)->name);
}

static void befall_process(const struct misfortune *misfortune, struct process *process)
{
	struct host *host = process ? process->host : &hosts[misfortune->source ? 0 : 1];

	switch (misfortune->action) {
	case ACTION_KILL:
		if (process)
			process_kill(process);
		break;
	case ACTION_POWER_OFF:
		at(world.now_ns + misfortune->duration_ns, power_on, host);
		host_power_off(host);
		break;
	case ACTION_STOP:
		if (process)
			process_stop(process, misfortune->duration_ns);
		break;
	case ACTION_DISK_FULL:
		happened(41, "the disk of %s is full", host->name);
		host->disk_full = true;
		at(world.now_ns + misfortune->duration_ns, empty_disk, host);
		break;
	case ACTION_CALL:
		fails_in = 1 + (unsigned)random_below(12);
		break;
	default:
		break;
	}
}

static void befall(void *context)
{
	struct misfortune *misfortune = context;

	if (resting)
		return;
	switch (misfortune->action) {
	case ACTION_RESET:
		network_reset(&hosts[0], &hosts[1]);
		break;
	case ACTION_PARTITION:
		network_partition(&hosts[0], &hosts[1],
				  one_in(4) ? NEVER_NS : world.now_ns + misfortune->duration_ns);
		break;
	case ACTION_LANE:
		data_path_break_lane();
		break;
	case ACTION_CANCEL:
		happened(42, "the %s is cancelled", misfortune->source ? "source" : "destination");
		cancel_side(misfortune->source);
		break;
	case ACTION_REPLAY:
		let_stranger_in();
		break;
	default:
		befall_process(misfortune, side_process(misfortune->source));
	}
}

static bool is_due(struct misfortune *misfortune)
{
	if (misfortune->done || resting || --misfortune->countdown)
		return false;
	misfortune->done = true;
	return true;
}

static void strike(struct misfortune *misfortune)
{
	if (misfortune->delay_ns)
		at(world.now_ns + misfortune->delay_ns, befall, misfortune);
	else
		befall(misfortune);
}

static void at_point(const char *point, struct process *process)
{
	(void)process;
	for (unsigned i = 0; i < n_misfortunes; i++) {
		struct misfortune *misfortune = &misfortunes[i];

		if ((misfortune->trigger == AT_POINT || (misfortune->trigger == AT_NAMED_POINT &&
							 !strcmp(misfortune->point, point))) &&
		    is_due(misfortune))
			strike(misfortune);
	}
}

static void overhear(const struct frame *frame)
{
	struct overheard *overheard = &heard[n_heard];

	if (n_heard == MAX_OVERHEARD || frame->type == MESSAGE_PING ||
	    frame->type == MESSAGE_PONG || socket_host(frame->from) == &hosts[1])
		return;
	overheard->connection = frame->connection;
	overheard->type = frame->type;
	overheard->n_bytes = frame->n_bytes;
	overheard->bytes = __real_malloc(frame->n_bytes);
	if (!overheard->bytes)
		abort();
	memcpy(overheard->bytes, frame->bytes, frame->n_bytes);
	n_heard++;
}

/* A COMMIT that is not of this session, or not of this generation. */
static void forge_commit(unsigned connection, struct frame_fate *fate)
{
	static uint8_t forged[WIRE_HEADER_BYTES + SESSION_ID_BYTES + 4];
	const struct overheard *offer = NULL;

	for (unsigned i = 0; i < n_heard; i++) {
		if (heard[i].type == MESSAGE_OFFER && heard[i].connection == connection)
			offer = &heard[i];
	}
	if (!offer)
		return;
	/* An OFFER begins with the same two. */
	memcpy(forged, offer->bytes, sizeof(forged));
	forged[2] = MESSAGE_COMMIT;
	memset(&forged[4], 0, 4);
	forged[7] = sizeof(forged) - WIRE_HEADER_BYTES;
	forged[WIRE_HEADER_BYTES + random_below(SESSION_ID_BYTES + 4)] ^= 1u << random_below(8);
	happened(47, "a forged COMMIT follows");
	fate->followed_by = forged;
	fate->followed_by_bytes = sizeof(forged);
}

/* Something that was said before in the same direction, COMMIT rather than others. */
static void insert_old_frame(struct frame_fate *fate)
{
	const struct overheard *chosen = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < n_heard; i++) {
		if (heard[i].type == MESSAGE_COMMIT && one_in(2))
			chosen = &heard[i];
		else if (!random_below(++n))
			chosen = &heard[i];
	}
	if (!chosen)
		return;
	happened(46, "an old %s follows", message_name(chosen->type));
	fate->followed_by = chosen->bytes;
	fate->followed_by_bytes = chosen->n_bytes;
}

static bool is_for_frames(enum action action)
{
	return action == ACTION_DROP || action == ACTION_DOUBLE || action == ACTION_DELAY ||
	       action == ACTION_INSERT;
}

static void decide_fate(const struct misfortune *misfortune, const struct frame *frame,
			struct frame_fate *fate)
{
	static const char *const words[ACTION_COUNT] = {
		[ACTION_DROP] = "lost",
		[ACTION_DOUBLE] = "doubled",
		[ACTION_DELAY] = "late",
		[ACTION_INSERT] = "not alone",
	};

	happened(43, "frame %s is %s", message_name(frame->type), words[misfortune->action]);
	if (misfortune->action == ACTION_DROP)
		fate->copies = 0;
	else if (misfortune->action == ACTION_DOUBLE)
		fate->copies = 2;
	else if (misfortune->action == ACTION_DELAY)
		fate->delay_ns = misfortune->duration_ns;
	else if (socket_host(frame->from) == &hosts[0] && one_in(2))
		forge_commit(frame->connection, fate);
	else if (socket_host(frame->from) == &hosts[0])
		insert_old_frame(fate);
}

static void at_frame(const struct frame *frame, struct frame_fate *fate)
{
	overhear(frame);
	if (frame_seen)
		frame_seen(frame);
	for (unsigned i = 0; i < n_misfortunes; i++) {
		struct misfortune *misfortune = &misfortunes[i];

		if (misfortune->trigger != AT_FRAME || misfortune->type != frame->type ||
		    !is_due(misfortune))
			continue;
		if (is_for_frames(misfortune->action))
			decide_fate(misfortune, frame, fate);
		else
			strike(misfortune);
	}
}

static int at_call(const char *name, int plausible_errno)
{
	if (resting || !fails_in || --fails_in)
		return 0;
	happened(44, "%s fails", name);
	return plausible_errno;
}

static void draw_misfortune(struct misfortune *misfortune)
{
	static const char *const points[] = { "send", "receive",  "write",   "fsync",
					      "lane", "register", "connect", "resume" };
	static const enum message_type types[] = {
		MESSAGE_OFFER,	  MESSAGE_ACCEPT,    MESSAGE_SLICE_KEY,	  MESSAGE_ABORT,
		MESSAGE_PING,	  MESSAGE_PONG,	     MESSAGE_FINAL,	  MESSAGE_FINAL,
		MESSAGE_PREPARED, MESSAGE_PREPARED,  MESSAGE_COMMIT,	  MESSAGE_COMMIT,
		MESSAGE_COMMIT,	  MESSAGE_COMMIT,    MESSAGE_STARTED,	  MESSAGE_STARTED,
		MESSAGE_REGISTER, MESSAGE_LANE_LOST, MESSAGE_LANE_FENCED, MESSAGE_ASK,
		MESSAGE_ANSWER,
	};
	static const enum message_type late_types[] = {
		MESSAGE_FINAL,	 MESSAGE_PREPARED, MESSAGE_COMMIT,
		MESSAGE_STARTED, MESSAGE_ASK,	   MESSAGE_ANSWER,
	};

	misfortune->trigger = (enum trigger)random_below(4);
	if (one_in(2))
		misfortune->trigger = AT_FRAME;
	misfortune->point = points[random_below(sizeof(points) / sizeof(points[0]))];
	misfortune->type = types[random_below(sizeof(types) / sizeof(types[0]))];
	misfortune->source = one_in(2);
	misfortune->duration_ns = random_scale(1000000, 60000000000);
	misfortune->delay_ns = one_in(2) ? 0 : random_scale(1000, 2000000000);
	if (one_in(3)) { /* where it matters most */
		misfortune->trigger = AT_FRAME;
		misfortune->type =
			late_types[random_below(sizeof(late_types) / sizeof(late_types[0]))];
	}
	do {
		misfortune->action = (enum action)random_below(ACTION_COUNT);
	} while (misfortune->trigger != AT_FRAME && is_for_frames(misfortune->action));
	if (misfortune->action == ACTION_DELAY)
		misfortune->duration_ns = random_scale(100000, 10000000000);
	misfortune->countdown = 1 + (one_in(2) ? 0 : (unsigned)random_below(6));
	if (misfortune->trigger == AT_POINT)
		misfortune->countdown = (unsigned)random_scale(1, 4000);
	else if (misfortune->trigger == AT_NAMED_POINT)
		misfortune->countdown = (unsigned)random_scale(1, 200);
	else if (misfortune->trigger == AT_TIME)
		at(world.now_ns + random_scale(100000, 5000000000), befall, misfortune);
}

void adversary_begin(bool harmless)
{
	point_passed = at_point;
	frame_sent = at_frame;
	call_hook = at_call;
	memset(misfortunes, 0, sizeof(misfortunes));
	n_heard = 0;
	fails_in = 0;
	resting = false;
	n_misfortunes = harmless ? 0 : (unsigned)random_below(MAX_MISFORTUNES - 1);
	for (unsigned i = 0; i < n_misfortunes; i++)
		draw_misfortune(&misfortunes[i]);
	breaking_lanes = !harmless && one_in(6);
	if (breaking_lanes)
		misfortunes[n_misfortunes++] = (struct misfortune){
			.trigger = AT_NAMED_POINT,
			.action = ACTION_LANE,
			.point = "lane",
			.countdown = (unsigned)random_scale(1, 60),
		};
	network_set_pace(random_scale(10000, 5000000), random_scale(2048, 65536));
}

void adversary_end(void)
{
	point_passed = NULL;
	frame_sent = NULL;
	call_hook = NULL;
	for (unsigned i = 0; i < n_heard; i++)
		__real_free(heard[i].bytes);
	n_heard = 0;
}

void adversary_rest(void)
{
	resting = true;
	happened(45, "nothing goes wrong any more");
	network_partition(&hosts[0], &hosts[1], 0);
	for (unsigned i = 0; i < MAX_HOSTS; i++) {
		hosts[i].disk_full = false;
		if (!hosts[i].up)
			host_power_on(&hosts[i]);
	}
	for (struct process *process = world.processes; process; process = process->next)
		process->stopped_until_ns = 0;
}

bool adversary_breaks_lanes(void)
{
	return breaking_lanes;
}

bool adversary_rests(void)
{
	return resting;
}

unsigned adversary_overheard(const struct overheard **frames)
{
	*frames = heard;
	return n_heard;
}
