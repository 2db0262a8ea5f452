/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source in doubt: it asks the destination again and again, and the fence, until one of them or
 * an operator has said whose the guest is. It acts on the first word, once that is in the journal;
 * never on silence, and never on time that has passed.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/doubt.h"
#include "core/error.h"
#include "core/source.h"

#define FIRST_PAUSE_NS (200 * NS_PER_MS)
#define LAST_PAUSE_NS  (10 * NS_PER_S)

/* Who has said it. */
enum { SAID_BY_DESTINATION, SAID_BY_FENCE, SAID_BY_OPERATOR };

#define VERDICT(owner, by) ((unsigned)(owner) << 2 | (by))
#define VERDICT_OWNER(v)   ((enum ramlift_owner)((v) >> 2))
#define VERDICT_BY(v)	   ((v)&3u)

static bool say(struct ramlift_source *source, enum ramlift_owner owner, unsigned by)
{
	unsigned none = 0;

	return owner != RAMLIFT_OWNER_UNKNOWN &&
	       atomic_compare_exchange_strong(&source->verdict, &none, VERDICT(owner, by));
}

static void wake(struct ramlift_source *source)
{
	uint64_t one = 1;
	int saved_errno = errno; /* this runs in signal handlers, too */
	ssize_t n = write(source->settle_fd, &one, sizeof(one));

	(void)n; /* fails only when it is readable anyway */
	errno = saved_errno;
}

int ramlift_source_resolve(struct ramlift_source *source, enum ramlift_owner owner)
{
	struct ramlift_stats stats;

	if (owner != RAMLIFT_OWNER_SOURCE && owner != RAMLIFT_OWNER_DESTINATION)
		return -EINVAL;
	session_copy_stats(&source->session, &stats);
	if (stats.phase != RAMLIFT_PHASE_IN_DOUBT)
		return stats.phase == RAMLIFT_PHASE_DONE || stats.phase == RAMLIFT_PHASE_FAILED
			       ? -EALREADY
			       : -EAGAIN;
	if (!say(source, owner, SAID_BY_OPERATOR))
		return -EALREADY;
	wake(source);
	return 0;
}

void ramlift_source_leave(struct ramlift_source *source)
{
	atomic_store(&source->left, true);
	wake(source);
}

static void ask_destination(struct ramlift_source *source, struct ramlift_error *why)
{
	static const char *const not_yet[ANSWER_COUNT] = {
		[ANSWER_PENDING] = "it has not decided yet",
		[ANSWER_UNKNOWN] = "it does not know that session: is its state directory another?",
	};
	struct question question = {
		.peer = &source->peer,
		.host = source->host,
		.security = source->security,
		.timeouts = &source->config.timeouts,
		.interrupt_fd = source->settle_fd,
		.ask = { .generation = source->session.generation },
	};
	enum answer_word word;

	memcpy(question.ask.session_id, source->session.id, SESSION_ID_BYTES);
	strcpy(question.ask.name, source->config.guest_name);
	if (doubt_ask(&question, &word, why))
		return;
	if (not_yet[word])
		error_set(why, -EAGAIN, "%s", not_yet[word]);
	say(source, doubt_owner(word), SAID_BY_DESTINATION);
}

static void ask_fence(struct ramlift_source *source, time_t since)
{
	const struct ramlift_source_config *config = &source->config;
	struct ramlift_doubt doubt = {
		.generation = source->session.generation,
		.time_s = since,
	};
	enum ramlift_owner owner;

	if (!config->fence)
		return;
	strcpy(doubt.guest, config->guest_name);
	journal_session_text(source->session.id, doubt.session);
	snprintf(doubt.peer, sizeof(doubt.peer), "%s", config->to);
	owner = config->fence(config->progress_context, &doubt);
	if (owner == RAMLIFT_OWNER_SOURCE || owner == RAMLIFT_OWNER_DESTINATION)
		say(source, owner, SAID_BY_FENCE);
}

static bool is_open(struct ramlift_source *source)
{
	return !atomic_load(&source->verdict) && !atomic_load(&source->left);
}

/* Until somebody has said whose it is. -ECANCELED when this process is to leave instead. */
static int find_out(struct ramlift_source *source, unsigned *verdict, struct ramlift_error *error)
{
	uint64_t pause_ns = FIRST_PAUSE_NS;
	struct ramlift_error why = { .text = "it was not asked" };
	time_t since = time(NULL);

	while (is_open(source)) {
		ask_destination(source, &why);
		if (is_open(source))
			ask_fence(source, since);
		session_publish(&source->session);
		if (!is_open(source))
			break;
		wait_for_fd(source->settle_fd, POLLIN, clock_now_ns() + pause_ns, -1);
		pause_ns = 2 * pause_ns < LAST_PAUSE_NS ? 2 * pause_ns : LAST_PAUSE_NS;
	}
	*verdict = atomic_load(&source->verdict);
	if (*verdict)
		return 0;
	return error_set(error, -ECANCELED,
			 "IN DOUBT: %s was handed to %s, which has not said whether it runs there "
			 "(%.200s); 'ramlift resolve %s' asks again, or is told",
			 source->config.guest_name, source->peer.text, why.text,
			 source->config.guest_name);
}

/* What was heard, as the journal says it. */
static int note(struct ramlift_source *source, unsigned verdict, struct ramlift_error *error)
{
	enum ramlift_owner owner = VERDICT_OWNER(verdict);

	if (VERDICT_BY(verdict) != SAID_BY_DESTINATION)
		return source_note_owner(source, owner, error);
	return source_note(
		source, owner == RAMLIFT_OWNER_SOURCE ? JOURNAL_REFUSED : JOURNAL_STARTED, error);
}

int ramlift_source_settle(struct ramlift_source *source, struct ramlift_error *error)
{
	static const char *const by[] = {
		[SAID_BY_DESTINATION] = "the destination has said",
		[SAID_BY_FENCE] = "the fence has made sure",
		[SAID_BY_OPERATOR] = "the operator has said",
	};
	struct ramlift_error outcome = { 0 };
	unsigned verdict;
	int ret;

	if (source->session.phase != RAMLIFT_PHASE_IN_DOUBT)
		return error_set(error, -EALREADY, "%s is not in doubt", source->config.guest_name);
	ret = find_out(source, &verdict, error);
	if (!ret)
		ret = note(source, verdict, error);
	if (ret)
		return ret;
	source_let_go(source);
	if (VERDICT_OWNER(verdict) == RAMLIFT_OWNER_DESTINATION) {
		session_enter(&source->session, RAMLIFT_PHASE_DONE);
		return 0;
	}
	ret = error_set(&outcome, -EREMOTEIO, "%s that the guest never ran at %s: it runs here",
			by[VERDICT_BY(verdict)], source->peer.text);
	source_take_back(source, &outcome);
	session_enter(&source->session, RAMLIFT_PHASE_FAILED);
	if (error)
		*error = outcome;
	return ret;
}
