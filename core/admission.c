/* SPDX-License-Identifier: Apache-2.0 */
#include "core/admission.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/session.h"

/* When a connection went away again, or descriptors are short. */
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

enum place {
	PLACE_FREE,
	PLACE_STRANGER, /* has not said a word that makes sense: may be pushed out */
	PLACE_PUSHED,	/* is being pushed out */
	PLACE_HEARD,	/* its word is being dealt with */
	PLACE_LEFT	/* its thread is to be joined */
};

struct stranger {
	struct admission *admission;
	enum place place; /* under the lock */
	uint64_t begin_ns;
	pthread_t thread;
	int fd;	     /* the connection, until it has become a stream */
	int stop_fd; /* readable: it is to go */
	struct newcomer newcomer;
};

/* The session's thread. */
enum host {
	HOST_AWAY, /* is expected to wait soon */
	HOST_WAITS,
	HOST_BUSY,
	HOST_GONE /* will not wait any more */
};

struct admission {
	struct admission_config config;
	int stop_fd;  /* readable: the thread below ends */
	int offer_fd; /* readable: there is a newcomer */
	pthread_t thread;

	pthread_mutex_t lock; /* of the below */
	pthread_cond_t changed;
	bool stopping;
	enum host host;
	bool has_candidate; /* somebody waits for the host to wait */
	bool has_newcomer;
	struct newcomer newcomer;
	struct stranger *strangers;
};

static void signal_fd(int fd)
{
	uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n; /* cannot fail but by overflow, and then it is readable anyway */
}

static void reset_fd(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
}

/* Prove who you are, and speak. */
static int hear(struct stranger *stranger, struct message **message, struct ramlift_error *error)
{
	const struct admission_config *config = &stranger->admission->config;
	uint64_t deadline_ns = stranger->begin_ns + config->authenticate_ns;
	struct stream *stream;
	int ret;

	ret = stream_accept(stranger->fd, config->security, deadline_ns, stranger->stop_fd, &stream,
			    error);
	if (!ret)
		ret = channel_open(stream, config->heartbeat_ns, &stranger->newcomer.channel,
				   error);
	if (ret)
		return ret;
	ret = channel_receive(stranger->newcomer.channel, deadline_ns, stranger->stop_fd, message,
			      error);
	if (ret == -ETIMEDOUT)
		return error_set(error, ret, "it said nothing for %llu ms",
				 (unsigned long long)(config->authenticate_ns / NS_PER_MS));
	return ret;
}

/* Give the session's thread its source. It may be about to wait; but not for ever. */
static int hand_over(struct stranger *stranger, struct message *message,
		     struct ramlift_error *error)
{
	struct admission *admission = stranger->admission;
	uint64_t deadline_ns = clock_now_ns() + admission->config.authenticate_ns;
	int ret = -EBUSY;

	pthread_mutex_lock(&admission->lock);
	if (!admission->has_candidate) {
		admission->has_candidate = true;
		while (admission->host == HOST_AWAY && !admission->stopping &&
		       clock_wait(&admission->changed, &admission->lock, deadline_ns) != ETIMEDOUT)
			;
		admission->has_candidate = false;
		ret = admission->host == HOST_WAITS && !admission->stopping ? 0 : -EBUSY;
	}
	if (!ret) {
		stranger->newcomer.offer = message;
		admission->newcomer = stranger->newcomer;
		stranger->newcomer.channel = NULL;
		admission->has_newcomer = true;
		admission->host = HOST_BUSY;
		signal_fd(admission->offer_fd);
	}
	pthread_mutex_unlock(&admission->lock);
	if (ret)
		return error_set(error, ret,
				 "busy: this destination has a session, or its guest; try again "
				 "later, or elsewhere");
	return 0;
}

static int take_offer(struct stranger *stranger, struct message *message,
		      struct ramlift_error *error)
{
	struct offer *offer = malloc(sizeof(*offer));
	int ret;

	if (!offer)
		return error_set(error, -ENOMEM, "no memory for an OFFER");
	ret = offer_decode(message->payload, message->length_bytes, offer);
	free(offer);
	if (ret)
		return error_set(error, ret, "the OFFER cannot be read");
	return hand_over(stranger, message, error);
}

static int take_ask(struct stranger *stranger, const struct message *message,
		    struct ramlift_error *error)
{
	const struct admission_config *config = &stranger->admission->config;
	struct answer answer;
	uint32_t length;
	struct ask ask;
	void *payload;
	int ret;

	if (ask_decode(message->payload, message->length_bytes, &ask))
		return error_set(error, -EPROTO, "the ASK cannot be read");
	ret = config->answer(config->context, &ask, &answer.word, error);
	if (ret)
		return ret;
	payload = answer_encode(&answer, &length);
	channel_send_owned(stranger->newcomer.channel, MESSAGE_ANSWER, payload, length, NULL);
	return 0; /* who has not heard it asks again */
}

/* The message is freed here, unless the session's thread has it. */
static int treat(struct stranger *stranger, struct message *message, struct ramlift_error *error)
{
	enum message_type type = message->type;
	int ret;

	if (!phase_accepts(RAMLIFT_PHASE_PREFLIGHT, SIDE_DESTINATION, type) ||
	    type == MESSAGE_ABORT)
		ret = error_set(error, -EPROTO, "its first word was %s", message_name(type));
	else if (type == MESSAGE_OFFER)
		ret = take_offer(stranger, message, error);
	else
		ret = take_ask(stranger, message, error);
	if (ret || type != MESSAGE_OFFER)
		free(message);
	return ret;
}

/* Where it stands now; false when it was pushed out before. */
static bool move_on(struct stranger *stranger, enum place from, enum place to)
{
	struct admission *admission = stranger->admission;
	bool moved;

	pthread_mutex_lock(&admission->lock);
	moved = stranger->place == from && !admission->stopping;
	if (moved)
		stranger->place = to;
	pthread_mutex_unlock(&admission->lock);
	return moved;
}

static void turn_away(struct stranger *stranger, const struct ramlift_error *why)
{
	const struct admission_config *config = &stranger->admission->config;

	if (stranger->newcomer.channel)
		session_refuse(stranger->newcomer.channel, why);
	if (config->turned_away)
		config->turned_away(config->context, stranger->newcomer.peer, why);
}

static void *stranger_thread(void *argument)
{
	struct stranger *stranger = argument;
	struct admission *admission = stranger->admission;
	struct ramlift_error error = { 0 };
	struct message *message;
	bool stopping;
	int ret = hear(stranger, &message, &error);

	if (!ret && move_on(stranger, PLACE_STRANGER, PLACE_HEARD)) {
		ret = treat(stranger, message, &error);
	} else if (!ret) {
		free(message);
		ret = -ECANCELED;
	}
	pthread_mutex_lock(&admission->lock);
	stopping = admission->stopping;
	pthread_mutex_unlock(&admission->lock);
	if (ret == -ECANCELED)
		error_set(&error, -EBUSY, "too many others knock at the same time");
	if (ret && !stopping)
		turn_away(stranger, &error);
	channel_close(stranger->newcomer.channel);

	pthread_mutex_lock(&admission->lock);
	stranger->place = PLACE_LEFT;
	pthread_cond_broadcast(&admission->changed);
	pthread_mutex_unlock(&admission->lock);
	return NULL;
}

/* A place that is free, and else the stranger who came first. Under the lock. */
static struct stranger *find_place(struct admission *admission, struct stranger **oldest)
{
	*oldest = NULL;
	for (unsigned i = 0; i < admission->config.max_strangers; i++) {
		struct stranger *stranger = &admission->strangers[i];

		if (stranger->place == PLACE_LEFT) {
			pthread_join(stranger->thread, NULL);
			stranger->place = PLACE_FREE;
		}
		if (stranger->place == PLACE_FREE)
			return stranger;
		if (stranger->place == PLACE_STRANGER &&
		    (!*oldest || stranger->begin_ns < (*oldest)->begin_ns))
			*oldest = stranger;
	}
	return NULL;
}

/* NULL: the port is being closed. */
static struct stranger *make_room(struct admission *admission)
{
	struct stranger *place, *oldest;

	pthread_mutex_lock(&admission->lock);
	while (!(place = find_place(admission, &oldest)) && !admission->stopping) {
		bool one_goes = false;

		for (unsigned i = 0; i < admission->config.max_strangers; i++)
			one_goes |= admission->strangers[i].place == PLACE_PUSHED;
		if (oldest && !one_goes) {
			oldest->place = PLACE_PUSHED;
			signal_fd(oldest->stop_fd);
		}
		pthread_cond_wait(&admission->changed, &admission->lock);
	}
	pthread_mutex_unlock(&admission->lock);
	return place;
}

static void let_knock(struct admission *admission, int fd)
{
	struct stranger *stranger = make_room(admission);
	struct address peer;
	int ret;

	if (!stranger) {
		close(fd);
		return;
	}
	reset_fd(stranger->stop_fd);
	memset(&stranger->newcomer, 0, sizeof(stranger->newcomer));
	strcpy(stranger->newcomer.peer,
	       address_of_peer(fd, &peer) ? "somebody who has left" : peer.text);
	stranger->fd = fd;
	stranger->begin_ns = clock_now_ns();
	pthread_mutex_lock(&admission->lock);
	ret = admission->stopping
		      ? -ECANCELED
		      : -pthread_create(&stranger->thread, NULL, stranger_thread, stranger);
	if (!ret)
		stranger->place = PLACE_STRANGER;
	pthread_mutex_unlock(&admission->lock);
	if (ret) {
		struct ramlift_error error;

		error_set(&error, ret, "cannot make a thread for it: %s", strerror(-ret));
		if (ret != -ECANCELED)
			turn_away(stranger, &error);
		close(fd);
	}
}

static void *admission_thread(void *argument)
{
	struct admission *admission = argument;

	for (;;) {
		int ret = wait_for_fd(admission->config.listen_fd, POLLIN, UINT64_MAX,
				      admission->stop_fd);
		int fd;

		if (ret == -ECANCELED)
			return NULL;
		fd = accept4(admission->config.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0)
			let_knock(admission, fd);
		else
			wait_for_fd(admission->stop_fd, POLLIN, clock_now_ns() + ACCEPT_PAUSE_NS,
				    -1);
	}
}

static void close_fds(struct admission *admission)
{
	for (unsigned i = 0; i < admission->config.max_strangers; i++) {
		if (admission->strangers[i].stop_fd >= 0)
			close(admission->strangers[i].stop_fd);
	}
	if (admission->stop_fd >= 0)
		close(admission->stop_fd);
	if (admission->offer_fd >= 0)
		close(admission->offer_fd);
}

/* -EMFILE and the like. */
static int open_fds(struct admission *admission)
{
	int ret = 0;

	admission->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (admission->stop_fd < 0)
		ret = -errno;
	admission->offer_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (admission->offer_fd < 0)
		ret = -errno;
	for (unsigned i = 0; i < admission->config.max_strangers; i++) {
		admission->strangers[i].admission = admission;
		admission->strangers[i].stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (admission->strangers[i].stop_fd < 0)
			ret = -errno;
	}
	return ret;
}

int admission_start(const struct admission_config *config, struct admission **result,
		    struct ramlift_error *error)
{
	struct admission *admission = calloc(1, sizeof(*admission));
	int ret = -ENOMEM;

	if (!admission)
		goto fail;
	admission->config = *config;
	admission->strangers = calloc(config->max_strangers, sizeof(*admission->strangers));
	if (!admission->strangers)
		goto free_admission;
	ret = open_fds(admission);
	if (ret)
		goto close_fds;
	pthread_mutex_init(&admission->lock, NULL);
	clock_cond_init(&admission->changed);
	ret = -pthread_create(&admission->thread, NULL, admission_thread, admission);
	if (ret)
		goto destroy_lock;
	*result = admission;
	return 0;

destroy_lock:
	pthread_cond_destroy(&admission->changed);
	pthread_mutex_destroy(&admission->lock);
close_fds:
	close_fds(admission);
	free(admission->strangers);
free_admission:
	free(admission);
fail:
	return error_set(error, ret, "cannot wait for connections: %s", strerror(-ret));
}

int admission_await(struct admission *admission, int interrupt_fd, struct newcomer *newcomer,
		    struct ramlift_error *error)
{
	int ret;

	pthread_mutex_lock(&admission->lock);
	admission->host = HOST_WAITS;
	pthread_cond_broadcast(&admission->changed);
	pthread_mutex_unlock(&admission->lock);
	do
		ret = wait_for_fd(admission->offer_fd, POLLIN, UINT64_MAX, interrupt_fd);
	while (ret == -ETIMEDOUT);
	pthread_mutex_lock(&admission->lock);
	if (admission->has_newcomer) {
		*newcomer = admission->newcomer;
		admission->has_newcomer = false;
		reset_fd(admission->offer_fd);
		ret = 0;
	} else {
		admission->host = HOST_AWAY;
	}
	pthread_mutex_unlock(&admission->lock);
	if (ret == -ECANCELED)
		return error_set(error, ret, "cancelled");
	if (ret)
		return error_set(error, ret, "cannot wait for an OFFER: %s", strerror(-ret));
	return 0;
}

void admission_done(struct admission *admission, bool last)
{
	pthread_mutex_lock(&admission->lock);
	admission->host = last ? HOST_GONE : HOST_AWAY;
	pthread_cond_broadcast(&admission->changed);
	pthread_mutex_unlock(&admission->lock);
}

void admission_free(struct admission *admission)
{
	if (!admission)
		return;
	pthread_mutex_lock(&admission->lock);
	admission->stopping = true;
	for (unsigned i = 0; i < admission->config.max_strangers; i++)
		signal_fd(admission->strangers[i].stop_fd);
	pthread_cond_broadcast(&admission->changed);
	pthread_mutex_unlock(&admission->lock);
	signal_fd(admission->stop_fd);
	pthread_join(admission->thread, NULL);
	for (unsigned i = 0; i < admission->config.max_strangers; i++) {
		bool taken;

		pthread_mutex_lock(&admission->lock);
		taken = admission->strangers[i].place != PLACE_FREE;
		pthread_mutex_unlock(&admission->lock);
		if (taken)
			pthread_join(admission->strangers[i].thread, NULL);
	}
	close_fds(admission);
	pthread_cond_destroy(&admission->changed);
	pthread_mutex_destroy(&admission->lock);
	free(admission->strangers);
	free(admission);
}
