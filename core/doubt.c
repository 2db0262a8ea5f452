/* SPDX-License-Identifier: Apache-2.0 */
#include "core/doubt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/channel.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/journal.h"

enum ramlift_owner doubt_owner(enum answer_word word)
{
	if (word == ANSWER_STARTED)
		return RAMLIFT_OWNER_DESTINATION;
	return word == ANSWER_NEVER ? RAMLIFT_OWNER_SOURCE : RAMLIFT_OWNER_UNKNOWN;
}

static int connect_to(const struct question *question, struct channel **channel,
		      struct ramlift_error *error)
{
	const struct ramlift_timeouts *timeouts = question->timeouts;
	struct stream *stream;
	int fd, ret;

	ret = address_connect(question->peer, clock_now_ns() + timeouts->connect_ns,
			      question->interrupt_fd, &fd, error);
	if (!ret)
		ret = stream_connect(fd, question->security, question->host,
				     clock_now_ns() + timeouts->authenticate_ns,
				     question->interrupt_fd, &stream, error);
	if (!ret)
		ret = channel_open(stream, timeouts->heartbeat_ns, channel, error);
	return ret;
}

static int hear(const struct message *message, enum answer_word *word, struct ramlift_error *error)
{
	struct abort_message abort;
	struct answer answer;

	if (!phase_accepts(RAMLIFT_PHASE_IN_DOUBT, SIDE_SOURCE, message->type))
		return error_set(error, -EPROTO, "the destination answered with %s",
				 message_name(message->type));
	if (message->type == MESSAGE_ABORT) {
		if (abort_decode(message->payload, message->length_bytes, &abort))
			return error_set(error, -EPROTO, "the destination's ABORT cannot be read");
		return error_set(error, -EREMOTEIO, "the destination does not say: %s", abort.text);
	}
	if (answer_decode(message->payload, message->length_bytes, &answer))
		return error_set(error, -EPROTO, "the destination's ANSWER cannot be read");
	*word = answer.word;
	return 0;
}

int doubt_ask(const struct question *question, enum answer_word *word, struct ramlift_error *error)
{
	struct channel *channel;
	struct message *message;
	uint32_t length;
	void *payload;
	int ret;

	ret = connect_to(question, &channel, error);
	if (ret)
		return ret;
	payload = ask_encode(&question->ask, &length);
	ret = channel_send_owned(channel, MESSAGE_ASK, payload, length, error);
	if (!ret)
		ret = channel_receive(channel, clock_now_ns() + question->timeouts->connect_ns,
				      question->interrupt_fd, &message, error);
	if (ret == -ETIMEDOUT)
		error_set(error, ret, "%s does not answer", question->peer->text);
	if (!ret) {
		ret = hear(message, word, error);
		free(message);
	}
	channel_close(channel);
	return ret;
}

/* ---- when the source's process is gone ---- */

int ramlift_doubt_read(const char *state_dir, const char *guest, struct ramlift_doubt *doubt,
		       struct ramlift_error *error)
{
	const struct journal_entry *found;
	struct journal_history history;
	int ret = journal_read(state_dir, guest, &history, error);

	if (ret)
		return ret;
	found = journal_find_doubt(&history);
	if (found) {
		memset(doubt, 0, sizeof(*doubt));
		strcpy(doubt->guest, guest);
		journal_session_text(found->session_id, doubt->session);
		doubt->generation = found->generation;
		strcpy(doubt->peer, found->peer);
		doubt->time_s = found->time_s;
	} else {
		ret = error_set(error, -ENOENT, "%s is not in doubt", guest);
	}
	journal_history_fini(&history);
	return ret;
}

static int check_doubt(const struct ramlift_doubt *doubt, uint8_t session_id[SESSION_ID_BYTES],
		       struct ramlift_error *error)
{
	if (!memchr(doubt->guest, 0, sizeof(doubt->guest)) || !journal_name_fits(doubt->guest) ||
	    !memchr(doubt->peer, 0, sizeof(doubt->peer)) ||
	    !journal_session_parse(doubt->session, session_id))
		return error_set(error, -EINVAL, "this is no doubt: take it from the journal");
	return 0;
}

int ramlift_doubt_ask(const struct ramlift_doubt *doubt, const struct ramlift_security *config,
		      const struct ramlift_timeouts *timeouts, enum ramlift_owner *owner,
		      struct ramlift_error *error)
{
	struct question question = { .timeouts = timeouts, .interrupt_fd = -1 };
	struct security *security;
	struct address peer;
	enum answer_word word;
	char host[256];
	int ret;

	ret = check_doubt(doubt, question.ask.session_id, error);
	if (!ret)
		ret = address_parse(doubt->peer, 0, &peer, error);
	if (!ret)
		ret = security_new(config, &security, error);
	if (ret)
		return ret;
	address_host(doubt->peer, host, sizeof(host));
	question.peer = &peer;
	question.host = host;
	question.security = security;
	question.ask.generation = doubt->generation;
	strcpy(question.ask.name, doubt->guest);
	ret = doubt_ask(&question, &word, error);
	security_free(security);
	if (!ret)
		*owner = doubt_owner(word);
	return ret;
}

int ramlift_doubt_resolve(const char *state_dir, const struct ramlift_doubt *doubt,
			  enum ramlift_owner owner, struct ramlift_error *error)
{
	struct journal_entry entry = {
		.event = JOURNAL_RESOLVED,
		.side = SIDE_SOURCE,
		.generation = doubt->generation,
		.owner = owner,
	};
	struct ramlift_doubt now;
	int lock_fd, ret;

	if (owner != RAMLIFT_OWNER_SOURCE && owner != RAMLIFT_OWNER_DESTINATION)
		return error_set(error, -EINVAL, "the guest is the source's or the destination's");
	ret = check_doubt(doubt, entry.session_id, error);
	if (!ret) /* a source that lives settles it itself */
		ret = journal_lock(state_dir, doubt->guest, SIDE_SOURCE, &lock_fd, error);
	if (ret)
		return ret;
	ret = ramlift_doubt_read(state_dir, doubt->guest, &now, error);
	if (!ret && strcmp(now.session, doubt->session) != 0)
		ret = error_set(error, -ENOENT, "%s is not in doubt over session %s", doubt->guest,
				doubt->session);
	if (!ret) {
		strcpy(entry.peer, now.peer);
		ret = journal_append(state_dir, doubt->guest, &entry, error);
	}
	close(lock_fd);
	return ret;
}
