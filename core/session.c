/* SPDX-License-Identifier: Apache-2.0 */
#include "core/session.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/journal.h"

int session_init(struct session *session, enum side side)
{
	memset(session, 0, sizeof(*session));
	session->side = side;
	session->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (session->cancel_fd < 0)
		return -errno;
	pthread_mutex_init(&session->lock, NULL);
	return 0;
}

void session_fini(struct session *session)
{
	pthread_mutex_destroy(&session->lock);
	close(session->cancel_fd);
}

void session_reopen(struct session *session)
{
	int committed = SESSION_COMMITTED;

	atomic_compare_exchange_strong(&session->fate, &committed, SESSION_OPEN);
}

void session_reset(struct session *session)
{
	session_reopen(session);
	session->phase = RAMLIFT_PHASE_IDLE;
	session->begin_ns = 0;
	memset(&session->stats, 0, sizeof(session->stats));
	pthread_mutex_lock(&session->lock);
	memset(&session->info, 0, sizeof(session->info));
	pthread_mutex_unlock(&session->lock);
	session_publish(session);
}

static void account_phase(struct session *session, uint64_t now_ns)
{
	if (session->begin_ns && session->phase != RAMLIFT_PHASE_DONE &&
	    session->phase != RAMLIFT_PHASE_FAILED) {
		session->stats.phase_ns[session->phase] += now_ns - session->phase_begin_ns;
		session->stats.elapsed_ns = now_ns - session->begin_ns;
	}
	session->phase_begin_ns = now_ns;
}

void session_enter(struct session *session, enum ramlift_phase phase)
{
	uint64_t now_ns = clock_now_ns();

	assert(phase_may_follow(session->phase, phase));
	account_phase(session, now_ns);
	if (!session->begin_ns)
		session->begin_ns = now_ns;
	session->phase = phase;
	session->stats.phase = phase;
	session_publish(session);
}

void session_publish(struct session *session)
{
	account_phase(session, clock_now_ns());
	pthread_mutex_lock(&session->lock);
	session->published = session->stats;
	pthread_mutex_unlock(&session->lock);
	if (session->progress)
		session->progress(session->progress_context, &session->stats);
}

void session_copy_stats(struct session *session, struct ramlift_stats *stats)
{
	pthread_mutex_lock(&session->lock);
	*stats = session->published;
	pthread_mutex_unlock(&session->lock);
}

void session_introduce(struct session *session, const char *guest)
{
	struct ramlift_session_info info = { .generation = session->generation };
	struct address local, peer;

	snprintf(info.guest, sizeof(info.guest), "%s", guest);
	journal_session_text(session->id, info.session);
	info.protection = "";
	if (session->channel) {
		int fd = stream_fd(channel_stream(session->channel));

		if (!address_of_socket(fd, &local))
			strcpy(info.local, local.text);
		if (!address_of_peer(fd, &peer))
			strcpy(info.peer, peer.text);
		info.protection = stream_protection(channel_stream(session->channel));
		snprintf(info.peer_name, sizeof(info.peer_name), "%s",
			 stream_peer_name(channel_stream(session->channel)));
	}
	pthread_mutex_lock(&session->lock);
	session->info = info;
	pthread_mutex_unlock(&session->lock);
}

void session_copy_info(struct session *session, struct ramlift_session_info *info)
{
	pthread_mutex_lock(&session->lock);
	*info = session->info;
	pthread_mutex_unlock(&session->lock);
	if (!info->protection)
		info->protection = "";
}

int session_checked(struct session *session, const char *check, int ret,
		    const struct ramlift_error *error)
{
	struct ramlift_error failed = { .code = ret };

	if (!session->checked || ret == -ECANCELED)
		return ret;
	if (ret && error->code)
		failed = *error;
	else if (ret)
		error_set(&failed, ret, "%s", strerror(-ret));
	session->checked(session->progress_context, check, ret ? &failed : NULL);
	return ret;
}

int session_cancel(struct session *session)
{
	int open = SESSION_OPEN;
	uint64_t one = 1;
	int saved_errno = errno; /* this runs in signal handlers, too */
	ssize_t n;

	if (!atomic_compare_exchange_strong(&session->fate, &open, SESSION_CANCELLED) &&
	    open == SESSION_COMMITTED)
		return -EALREADY;
	n = write(session->cancel_fd, &one, sizeof(one));
	(void)n; /* fails only when it is readable anyway */
	errno = saved_errno;
	return 0;
}

int session_commit(struct session *session, struct ramlift_error *error)
{
	int open = SESSION_OPEN;

	if (atomic_compare_exchange_strong(&session->fate, &open, SESSION_COMMITTED))
		return 0;
	return error_set(error, -ECANCELED, "cancelled");
}

static int unwrap_abort(const struct session *session, const struct message *message,
			struct ramlift_error *error)
{
	struct abort_message abort;

	if (abort_decode(message->payload, message->length_bytes, &abort))
		return error_set(error, -EPROTO,
				 "the peer gave up without a reason that can be read");
	/* After COMMIT any ABORT is the destination's word that it has not run the guest. */
	if (abort.code == -ECANCELED && session->phase != RAMLIFT_PHASE_COMMITTED)
		return error_set(error, -ECANCELED, "the peer says: %s", abort.text);
	return error_set(error, -EREMOTEIO, "the peer says: %s", abort.text);
}

static int take_piece(struct session *session, const struct message *message,
		      struct ramlift_error *error)
{
	struct stream_piece piece;
	int ret;

	if (stream_piece_decode(message->payload, message->length_bytes, &piece))
		return error_set(error, -EPROTO, "the peer's STREAM makes no sense");
	ret = session->carry(session->carrier, piece.stream, piece.bytes, piece.n_bytes, error);
	/* Not to be taken for the end of a wait for messages, or for the peer's own word. */
	if (ret == -ETIMEDOUT || ret == -EREMOTEIO) {
		ret = -EIO;
		if (error)
			error->code = ret;
	}
	return ret;
}

/* Messages that mean the same in every phase that allows them; *taken: it was one of those. */
static int take_message(struct session *session, const struct message *message, bool *taken,
			struct ramlift_error *error)
{
	bool carried = message->type == MESSAGE_STREAM;

	*taken = true;
	if (!phase_accepts(session->phase, session->side, message->type) ||
	    (carried && !session->carry))
		return error_set(error, -EPROTO, "the peer sent %s in phase %s",
				 message_name(message->type), ramlift_phase_name(session->phase));
	if (message->type == MESSAGE_ABORT)
		return unwrap_abort(session, message, error);
	if (carried)
		return take_piece(session, message, error);
	*taken = false;
	return 0;
}

int session_receive(struct session *session, uint64_t deadline_ns, const char *what,
		    struct message **result, struct ramlift_error *error)
{
	do {
		bool committed = atomic_load(&session->fate) == SESSION_COMMITTED;
		struct message *message;
		bool taken;
		int ret;

		ret = channel_receive(session->channel, deadline_ns,
				      committed ? -1 : session->cancel_fd, &message, error);
		if (ret == -ECANCELED)
			return error_set(error, ret, "cancelled");
		if (ret == -ETIMEDOUT && what) /* perhaps only woken */
			continue;
		if (ret)
			return ret;
		ret = take_message(session, message, &taken, error);
		if (!ret && !taken) {
			*result = message;
			return 0;
		}
		free(message);
		if (ret)
			return ret;
	} while (clock_now_ns() < deadline_ns);
	return what ? error_set(error, -ETIMEDOUT, "%s took too long", what) : -ETIMEDOUT;
}

int session_send_piece(struct session *session, unsigned stream, const void *bytes, size_t n_bytes,
		       struct ramlift_error *error)
{
	struct stream_piece piece = {
		.stream = (uint16_t)stream,
		.bytes = bytes,
		.n_bytes = (uint32_t)n_bytes,
	};
	uint32_t length;
	void *payload = stream_piece_encode(&piece, &length);

	return channel_send_owned(session->channel, MESSAGE_STREAM, payload, length, error);
}

void session_refuse(struct channel *channel, const struct ramlift_error *error)
{
	struct abort_message abort = { .code = error->code ? error->code : -EIO };
	uint32_t length;
	void *payload;

	strcpy(abort.text, error->text);
	for (char *c = abort.text; *c; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
	payload = abort_encode(&abort, &length);
	channel_send_owned(channel, MESSAGE_ABORT, payload, length, NULL);
}

void session_send_abort(struct session *session, const struct ramlift_error *error)
{
	if (session->channel)
		session_refuse(session->channel, error);
}
