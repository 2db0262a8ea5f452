/* SPDX-License-Identifier: Apache-2.0 */
/* Whoever looks after the two hosts: starts the migration, restarts what has died, and finds out
 * whose the guest is when the source's process is gone. */
#include <errno.h>
#include <string.h>

#include "adversary.h"
#include "core/clock.h"
#include "host.h"
#include "sides.h"

#define PATIENCE_NS    (150 * NS_PER_S) /* after which nothing goes wrong any more */
#define LAST_CHANCE_NS (300 * NS_PER_S) /* in which everything has to come to an end then */

/* The operator's hands: what has died is started again, sooner or later. */
static void keep_house(void)
{
	bool at_once = scenario.harmless || adversary_rests();

	if (!side_is_alive(&scenario.destination) && hosts[1].up && !scenario.fenced &&
	    one_in(at_once ? 1 : 6))
		side_start(&scenario.destination);
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

	if (scenario.fenced)
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
	while (scenario.owner == RAMLIFT_OWNER_UNKNOWN) {
		ret = ramlift_doubt_read(STATE_DIR, GUEST_NAME, &doubt, &error);
		happened((uint64_t)-ret, "the journal says %d: %s", ret,
			 ret ? error.text : "in doubt");
		if (ret == -EBADMSG)
			violated("the journal cannot be read: %s", error.text);
		if (ret == -ENOENT) {
			scenario.owner = owner_by_journal();
			break;
		}
		word = ret ? RAMLIFT_OWNER_UNKNOWN : ask_about(&doubt);
		if (word != RAMLIFT_OWNER_UNKNOWN &&
		    !ramlift_doubt_resolve(STATE_DIR, &doubt, word, &error))
			scenario.owner = word;
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
			 ramlift_phase_name(scenario.source.phase));
	return false;
}

/* The journal is in doubt, or the source's process is gone: whose is the guest? */
static void recover_source(void)
{
	uint64_t begin_ns = world.now_ns;
	struct process *process = NULL;

	scenario.owner = RAMLIFT_OWNER_UNKNOWN;
	scenario.report->recovered++;
	while (scenario.owner == RAMLIFT_OWNER_UNKNOWN && !is_over(begin_ns, "the doubt")) {
		if (hosts[0].up && (!process || !process->alive))
			process = process_start(&hosts[0], "resolve", resolve_main, NULL);
		task_sleep(random_below(50 * NS_PER_MS));
		keep_house();
	}
	happened(80, "the guest is the %s's",
		 scenario.owner == RAMLIFT_OWNER_SOURCE ? "source" : "destination");
	if (side_is_alive(&scenario.source) && scenario.owner == RAMLIFT_OWNER_DESTINATION)
		violated("the guest runs at the source, and is said to be the destination's");
	if (!side_is_alive(&scenario.source) && scenario.owner == RAMLIFT_OWNER_SOURCE)
		side_start(&scenario.source);
}

static void await_source(void)
{
	uint64_t begin_ns = world.now_ns;

	while (side_is_alive(&scenario.source) && scenario.source.busy &&
	       !is_over(begin_ns, "the migration")) {
		task_sleep(random_below(50 * NS_PER_MS));
		keep_house();
	}
	/* It ends by itself when the guest is gone, or left in doubt. */
	while (side_is_alive(&scenario.source) && scenario.source.quit)
		task_sleep(NS_PER_MS);
	if ((!side_is_alive(&scenario.source) && scenario.owner != RAMLIFT_OWNER_DESTINATION) ||
	    scenario.source.refused_in_doubt)
		recover_source();
	scenario.source.refused_in_doubt = false;
}

/* End a process and see that it leaves nothing behind. */
static void end_side(struct side *side)
{
	uint64_t begin_ns = world.now_ns;

	while (side_is_alive(side)) {
		side->quit = true;
		task_wake(side);
		if (!side->is_source && !side->arrived)
			side_cancel(false);
		task_sleep(10 * NS_PER_MS);
		if (world.now_ns - begin_ns > LAST_CHANCE_NS)
			violated("the %s does not end", side->process->name);
	}
}

void *operator_main(void *context)
{
	unsigned attempts = scenario.harmless ? 8 : 1 + (unsigned)random_below(3);

	(void)context;
	side_start(&scenario.destination);
	side_start(&scenario.source);
	task_sleep(10 * NS_PER_MS);
	for (unsigned i = 0;
	     i < attempts && scenario.owner == RAMLIFT_OWNER_SOURCE && !scenario.fenced; i++) {
		if (side_is_alive(&scenario.source)) {
			scenario.source.asked = true;
			scenario.source.busy = true;
			task_wake(&scenario.source);
		}
		await_source();
		/* A destination may wait for the lanes of the attempt before. */
		task_sleep(scenario.harmless ? 5 * NS_PER_S : random_below(2 * NS_PER_S));
		keep_house();
	}
	adversary_rest();
	task_sleep(5 * NS_PER_S);
	if (!side_is_alive(&scenario.source) && scenario.owner == RAMLIFT_OWNER_SOURCE)
		recover_source();
	if (scenario.owner == RAMLIFT_OWNER_SOURCE && copy_running() != scenario.source.copy)
		violated("in the end the guest is the source's, and does not run there");
	if (scenario.owner == RAMLIFT_OWNER_DESTINATION && !copy_running() && !guest_is_gone())
		violated("in the end the guest is the destination's, and does not run there");
	scenario.report->lost = !copy_running();
	end_side(&scenario.source);
	end_side(&scenario.destination);
	world.over = true;
	task_sleep(1);
	return NULL;
}
