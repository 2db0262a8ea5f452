/* SPDX-License-Identifier: Apache-2.0 */
#include "promises.h"

#include <stdio.h>
#include <string.h>

#define MAX_SESSIONS 64u
#define HEX_BYTES    (2 * SESSION_ID_BYTES + 1)

/* What has been said of a session, by whomever. */
struct told {
	uint8_t id[SESSION_ID_BYTES];
	unsigned offered_on, accepted_on; /* connections; 0: not yet */
	const struct process *accepted_by;
	bool committed, started, never;
};

/* Which session a connection is about. */
struct subject {
	unsigned connection;
	struct told *told;
};

static struct told sessions[MAX_SESSIONS];
static struct subject subjects[4 * MAX_SESSIONS];
static unsigned n_sessions, n_subjects;
static uint32_t last_generation;

void promises_begin(void)
{
	n_sessions = 0;
	n_subjects = 0;
	last_generation = 0;
}

static void to_hex(const struct told *told, char hex[HEX_BYTES])
{
	for (unsigned i = 0; i < SESSION_ID_BYTES; i++)
		snprintf(&hex[2 * i], 3, "%02x", told->id[i]);
}

/* Has the host's journal that word of the session, for good? */
static bool is_in_journal(const struct host *host, const char *event, const struct told *told)
{
	const char *line = disk_durable_text(host, STATE_DIR "/" GUEST_NAME ".journal");
	char hex[HEX_BYTES];

	to_hex(told, hex);
	for (; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *end = strchr(line, '\n'), *found = strstr(line, hex);

		if (!strncmp(line, event, strlen(event)) && end && found && found < end)
			return true;
	}
	return false;
}

static struct told *told_of(const uint8_t *id)
{
	for (unsigned i = 0; i < n_sessions; i++) {
		if (!memcmp(sessions[i].id, id, SESSION_ID_BYTES))
			return &sessions[i];
	}
	if (n_sessions == MAX_SESSIONS)
		return NULL;
	memset(&sessions[n_sessions], 0, sizeof(sessions[0]));
	memcpy(sessions[n_sessions].id, id, SESSION_ID_BYTES);
	return &sessions[n_sessions++];
}

static struct told *subject_of(unsigned connection)
{
	for (unsigned i = n_subjects; i-- > 0;) {
		if (subjects[i].connection == connection)
			return subjects[i].told;
	}
	return NULL;
}

static void set_subject(unsigned connection, struct told *told)
{
	if (n_subjects == sizeof(subjects) / sizeof(subjects[0]))
		return;
	subjects[n_subjects].connection = connection;
	subjects[n_subjects++].told = told;
}

static void see_offer(const struct frame *frame)
{
	static struct offer offer;
	struct told *told;

	if (offer_decode(frame->payload, frame->length_bytes, &offer))
		return;
	told = told_of(offer.session_id);
	if (!told)
		return;
	set_subject(frame->connection, told);
	if (socket_host(frame->from) != &hosts[0])
		return; /* a stranger repeats it */
	if (told->offered_on)
		violated("the id of a session is used again");
	if (offer.generation <= last_generation)
		violated("generation %u is offered after generation %u", offer.generation,
			 last_generation);
	told->offered_on = frame->connection;
	last_generation = offer.generation;
}

static void see_accept(const struct frame *frame, struct told *told)
{
	if (told->accepted_on)
		violated("a session is accepted twice");
	told->accepted_on = frame->connection;
	told->accepted_by = frame->sender;
}

static void see_commit(const struct frame *frame)
{
	struct commit commit;
	struct told *told;

	if (commit_decode(frame->payload, frame->length_bytes, &commit))
		return;
	told = told_of(commit.session_id);
	if (!told || socket_host(frame->from) != &hosts[0])
		return;
	if (!is_in_journal(&hosts[0], "COMMIT", told))
		violated("COMMIT is sent, and is not in the journal for good");
	told->committed = true;
}

static void say_started(const struct frame *frame, struct told *told)
{
	if (!is_in_journal(socket_host(frame->from), "STARTED", told))
		violated("STARTED is said, and is not in the journal for good");
	if (told->never)
		violated("STARTED is said of a session that was told never to");
	if (!told->committed)
		violated("STARTED is said of a session that was not committed");
	told->started = true;
}

static void say_never(struct told *told)
{
	if (told->started)
		violated("a session is said never to run that was said to have");
	told->never = true;
}

static void answer_never(const struct frame *frame, struct told *told)
{
	if (!is_in_journal(socket_host(frame->from), "DISCARDED", told))
		violated("NEVER is answered, and DISCARDED is not in the journal for good");
	say_never(told);
}

static void see_answer(const struct frame *frame, struct told *told)
{
	struct answer answer;

	if (answer_decode(frame->payload, frame->length_bytes, &answer))
		violated("an ANSWER makes no sense");
	happened(50 + answer.word, "answers %u", answer.word);
	if (answer.word == ANSWER_STARTED)
		say_started(frame, told);
	else if (answer.word == ANSWER_NEVER)
		answer_never(frame, told);
	else if (answer.word == ANSWER_UNKNOWN && told->committed)
		violated("the destination does not know a session that was committed");
}

void promises_see(const struct frame *frame)
{
	struct told *told = subject_of(frame->connection);
	bool at_b = socket_host(frame->from) == &hosts[1];
	struct ask ask;

	happened(100 + frame->type, "sends %s", message_name(frame->type));
	if (frame->type == MESSAGE_OFFER)
		see_offer(frame);
	else if (frame->type == MESSAGE_ASK &&
		 !ask_decode(frame->payload, frame->length_bytes, &ask))
		set_subject(frame->connection, told_of(ask.session_id));
	else if (frame->type == MESSAGE_COMMIT)
		see_commit(frame);
	if (!told || !at_b)
		return;
	if (frame->type == MESSAGE_ACCEPT)
		see_accept(frame, told);
	else if (frame->type == MESSAGE_STARTED)
		say_started(frame, told);
	else if (frame->type == MESSAGE_ABORT && told->accepted_on == frame->connection)
		say_never(told);
	else if (frame->type == MESSAGE_ANSWER)
		see_answer(frame, told);
}

bool promises_taker_died(void)
{
	const struct told *told = NULL;

	for (unsigned i = 0; i < n_sessions; i++) {
		if (sessions[i].committed)
			told = &sessions[i];
	}
	return told && told->accepted_by && !told->accepted_by->alive;
}

void promises_arrived(const struct copy *copy)
{
	const struct told *told = NULL;

	for (unsigned i = 0; i < n_sessions; i++) {
		if (sessions[i].accepted_by == copy->process)
			told = &sessions[i]; /* the latest one */
	}
	if (!told || !told->committed)
		violated("the guest is to run at %s without a COMMIT", copy->process->name);
	if (told->never)
		violated("the guest is to run at %s, which has said that it never will",
			 copy->process->name);
	if (!is_in_journal(copy->process->host, "STARTED", told))
		violated("the guest is to run at %s, and STARTED is not in the journal for good",
			 copy->process->name);
}
