/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the destination promises, and what it says when it is asked about it.
 *
 * From before its first word in the journal to after its last a session holds the lock of its
 * guest. So whoever gets that lock knows that no session lives whose last word is still to come:
 * one that was received, and not started, can be given up for good.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/destination.h"
#include "core/error.h"

#define LINE_ENOUGH_NS (10 * NS_PER_MS) /* a line that took longer is timed once more */

static struct journal_entry line(const struct ramlift_destination *destination,
				 enum journal_event event)
{
	struct journal_entry entry = {
		.event = event,
		.side = SIDE_DESTINATION,
		.generation = destination->session.generation,
	};

	memcpy(entry.session_id, destination->session.id, SESSION_ID_BYTES);
	strcpy(entry.peer, destination->peer);
	return entry;
}

static int append(const struct ramlift_destination *destination, enum journal_event event,
		  struct ramlift_error *error)
{
	struct journal_entry entry = line(destination, event);

	return journal_append(destination->config.state_dir, destination->offer.name, &entry,
			      error);
}

/* The source predicts the downtime, of which the line STARTED is a part: it is told what one
 * takes. */
static int write_receive(struct ramlift_destination *destination, struct ramlift_error *error)
{
	struct journal_entry entry = line(destination, JOURNAL_RECEIVE);

	return journal_append_timed(destination->config.state_dir, destination->offer.name, &entry,
				    LINE_ENOUGH_NS, &destination->journal_ns, error);
}

/* Sessions whose process has fallen: they have no lock, so they never start. */
static int give_up_the_fallen(const struct ramlift_destination *destination,
			      const struct journal_history *history, struct ramlift_error *error)
{
	int ret = 0;

	for (unsigned i = 0; i < history->n_sessions && !ret; i++) {
		struct journal_entry entry = history->sessions[i];

		if (entry.event != JOURNAL_RECEIVE)
			continue;
		entry.event = JOURNAL_DISCARDED;
		ret = journal_append(destination->config.state_dir, destination->offer.name, &entry,
				     error);
	}
	return ret;
}

static int check_replay(const struct ramlift_destination *destination,
			const struct journal_history *history, struct ramlift_error *error)
{
	const struct journal_entry *before =
		journal_find(history, SIDE_DESTINATION, destination->session.id);
	char session[RAMLIFT_SESSION_TEXT];

	if (!before)
		return 0;
	journal_session_text(destination->session.id, session);
	return error_set(error, -EEXIST,
			 "session %s has been here before (%s): an OFFER is good for one session",
			 session, journal_event_name(before->event));
}

int destination_receive_begins(struct ramlift_destination *destination, struct ramlift_error *error)
{
	const char *state_dir = destination->config.state_dir;
	const char *guest = destination->offer.name;
	struct session *session = &destination->session;
	struct journal_history history;
	int ret;

	ret = journal_lock(state_dir, guest, SIDE_DESTINATION, &destination->lock_fd, error);
	if (!ret)
		ret = journal_read(state_dir, guest, &history, error);
	if (ret)
		return session_checked(session, "journal", ret, error);
	ret = session_checked(session, "replay", check_replay(destination, &history, error), error);
	if (!ret) {
		ret = give_up_the_fallen(destination, &history, error);
		if (!ret)
			ret = write_receive(destination, error);
		destination->received = !ret;
		session_checked(session, "journal", ret, error);
	}
	journal_history_fini(&history);
	return ret;
}

int destination_will_start(struct ramlift_destination *destination, struct ramlift_error *error)
{
	return session_checked(&destination->session, "journal",
			       append(destination, JOURNAL_STARTED, error), error);
}

void destination_let_go(struct ramlift_destination *destination)
{
	if (destination->lock_fd >= 0)
		close(destination->lock_fd);
	destination->lock_fd = -1;
}

int destination_settle(struct ramlift_destination *destination, struct ramlift_error *error)
{
	int ret = 0;

	pthread_mutex_lock(&destination->owes_lock);
	if (destination->owes_discarded) {
		ret = append(destination, JOURNAL_DISCARDED, error);
		destination->owes_discarded = ret != 0;
		if (!ret)
			destination_let_go(destination);
	}
	pthread_mutex_unlock(&destination->owes_lock);
	return ret;
}

int destination_discarded(struct ramlift_destination *destination, struct ramlift_error *error)
{
	pthread_mutex_lock(&destination->owes_lock);
	if (destination->received)
		destination->owes_discarded = true;
	else if (!destination->owes_discarded) /* of the session before */
		destination_let_go(destination);
	pthread_mutex_unlock(&destination->owes_lock);
	return destination_settle(destination, error);
}

/* event is JOURNAL_EVENT_COUNT where there is no such session. */
static int look_up(const char *state_dir, const struct ask *ask, struct journal_entry *entry,
		   bool *newest, struct ramlift_error *error)
{
	const struct journal_entry *found;
	struct journal_history history;
	int ret = journal_read(state_dir, ask->name, &history, error);

	if (ret)
		return ret;
	entry->event = JOURNAL_EVENT_COUNT;
	found = journal_find(&history, SIDE_DESTINATION, ask->session_id);
	if (found) {
		*entry = *found;
		*newest = found == journal_newest(&history, SIDE_DESTINATION);
	}
	if (found && found->generation != ask->generation)
		ret = error_set(error, -EPROTO, "that session is of generation %u, not %u",
				found->generation, ask->generation);
	journal_history_fini(&history);
	return ret;
}

static enum answer_word word_of(enum journal_event event)
{
	switch (event) {
	case JOURNAL_RECEIVE:
		return ANSWER_PENDING;
	case JOURNAL_STARTED:
		return ANSWER_STARTED;
	case JOURNAL_DISCARDED:
		return ANSWER_NEVER;
	default:
		return ANSWER_UNKNOWN;
	}
}

int destination_answer(const char *state_dir, const struct ask *ask, enum answer_word *word,
		       struct ramlift_error *error)
{
	struct journal_entry entry;
	bool newest = false;
	int lock_fd, ret;

	ret = look_up(state_dir, ask, &entry, &newest, error);
	if (!ret && entry.event == JOURNAL_EVENT_COUNT) /* no file is made for a stranger's word */
		*word = ANSWER_UNKNOWN;
	if (ret || entry.event == JOURNAL_EVENT_COUNT)
		return ret;
	ret = journal_lock(state_dir, ask->name, SIDE_DESTINATION, &lock_fd, error);
	if (ret == -EBUSY) {
		/* It lives, or a later session of that guest does, before which it was settled. */
		*word = newest ? ANSWER_PENDING : word_of(entry.event);
		return 0;
	}
	if (ret)
		return ret;
	ret = look_up(state_dir, ask, &entry, &newest, error);
	if (!ret && entry.event == JOURNAL_RECEIVE) {
		entry.event = JOURNAL_DISCARDED;
		ret = journal_append(state_dir, ask->name, &entry, error);
	}
	close(lock_fd);
	if (!ret)
		*word = word_of(entry.event);
	return ret;
}
