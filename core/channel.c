/* SPDX-License-Identifier: Apache-2.0 */
#include "core/channel.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"

#define QUEUE_MAX_BYTES (2u * WIRE_MAX_STATE_BYTES)
#define QUEUE_MAX	1024u		  /* messages that wait for the session's thread */
#define GOODBYE_NS	(500 * NS_PER_MS) /* for the peer to read our last words */

struct queued {
	struct queued *next;
	struct message *message;
};

struct channel {
	struct stream *stream;
	int stop_fd;  /* readable: the thread ends */
	int ready_fd; /* readable: the queue is not empty, or the channel has failed */
	int over_fd;  /* readable: the peer has said ABORT, or the channel has failed */
	char peer[sizeof(((struct address *)0)->text)];
	uint64_t heartbeat_ns;
	uint64_t last_heard_ns; /* the thread's own */
	_Atomic uint64_t rtt_ns;
	pthread_t thread;
	pthread_mutex_t send_lock;

	pthread_mutex_t lock; /* of the below */
	pthread_cond_t taken;
	struct queued *first, **last;
	unsigned n_queued;
	uint64_t queued_bytes;
	bool failed, closing;
	bool woken; /* channel_receive() is to return though nothing came */
	struct ramlift_error error;
};

static void signal_fd(int fd)
{
	uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n; /* cannot fail but by overflow, and then it is readable anyway */
}

static int explain(struct channel *channel, int ret, struct ramlift_error *error)
{
	if (ret == -ECONNRESET || ret == -EPIPE)
		return error_set(error, ret,
				 "the connection to %s was lost: its ramlift has ended or the "
				 "network broke it; look there with 'ramlift status'",
				 channel->peer);
	if (ret == -ETIMEDOUT)
		return error_set(error, -EHOSTDOWN,
				 "%s has been silent for %" PRIu64
				 " ms: the host is down, the process is stopped, or the link is",
				 channel->peer, channel->heartbeat_ns / NS_PER_MS);
	return error_set(error, ret, "the connection to %s failed: %s", channel->peer,
			 strerror(-ret));
}

int channel_send(struct channel *channel, enum message_type type, const void *payload,
		 uint32_t length_bytes, struct ramlift_error *error)
{
	struct wire_header header = { .type = type, .length_bytes = length_bytes };
	uint64_t deadline_ns = clock_now_ns() + channel->heartbeat_ns;
	uint8_t bytes[WIRE_HEADER_BYTES];
	struct iovec vectors[] = { { bytes, sizeof(bytes) }, { (void *)payload, length_bytes } };
	int ret;

	wire_header_encode(&header, bytes);
	pthread_mutex_lock(&channel->send_lock);
	ret = stream_send_vectors(channel->stream, vectors, 2, deadline_ns, channel->stop_fd);
	if (ret) /* the frame may be torn: nothing may follow it */
		shutdown(stream_fd(channel->stream), SHUT_RDWR);
	pthread_mutex_unlock(&channel->send_lock);
	return ret ? explain(channel, ret, error) : 0;
}

int channel_send_owned(struct channel *channel, enum message_type type, void *payload,
		       uint32_t length_bytes, struct ramlift_error *error)
{
	int ret;

	if (!payload)
		return error_set(error, -ENOMEM, "no memory for the message %s",
				 message_name(type));
	ret = channel_send(channel, type, payload, length_bytes, error);
	free(payload);
	return ret;
}

static int send_ping(struct channel *channel, struct ramlift_error *error)
{
	uint64_t now_ns = clock_now_ns();

	return channel_send(channel, MESSAGE_PING, &now_ns, sizeof(now_ns), error);
}

/* The session's thread is busy, but this side lives: tell so. Under the lock. */
static void await_room(struct channel *channel)
{
	uint64_t until_ns = clock_now_ns() + channel->heartbeat_ns / 5;

	if (clock_wait(&channel->taken, &channel->lock, until_ns) != ETIMEDOUT)
		return;
	pthread_mutex_unlock(&channel->lock);
	send_ping(channel, NULL); /* a failure shows at the next message */
	pthread_mutex_lock(&channel->lock);
}

static int enqueue(struct channel *channel, struct message *message)
{
	struct queued *queued = malloc(sizeof(*queued));

	if (!queued)
		return -ENOMEM;
	queued->next = NULL;
	queued->message = message;
	pthread_mutex_lock(&channel->lock);
	while ((channel->n_queued >= QUEUE_MAX || channel->queued_bytes > QUEUE_MAX_BYTES) &&
	       !channel->closing)
		await_room(channel);
	*channel->last = queued;
	channel->last = &queued->next;
	channel->n_queued++;
	channel->queued_bytes += message->length_bytes;
	pthread_mutex_unlock(&channel->lock);
	signal_fd(channel->ready_fd);
	return 0;
}

/* The shortest is what the link takes; what is above that is this moment's load. */
static void note_rtt(struct channel *channel, uint64_t rtt_ns)
{
	uint64_t shortest_ns = atomic_load(&channel->rtt_ns);

	if (!shortest_ns || rtt_ns < shortest_ns)
		atomic_store(&channel->rtt_ns, rtt_ns);
}

static int answer_or_enqueue(struct channel *channel, struct message *message)
{
	uint64_t now_ns = clock_now_ns();
	uint64_t sent_ns;
	int ret = 0;

	if (message->type != MESSAGE_PING && message->type != MESSAGE_PONG) {
		bool over = message->type == MESSAGE_ABORT;

		ret = enqueue(channel, message);
		if (ret)
			free(message);
		else if (over)
			signal_fd(channel->over_fd);
		return ret;
	}
	if (message->length_bytes != sizeof(sent_ns)) {
		ret = -EPROTO;
	} else if (message->type == MESSAGE_PING) {
		ret = channel_send(channel, MESSAGE_PONG, message->payload, sizeof(sent_ns), NULL);
	} else {
		memcpy(&sent_ns, message->payload, sizeof(sent_ns));
		if (sent_ns < now_ns) /* it is the peer that says so */
			note_rtt(channel, now_ns - sent_ns);
	}
	free(message);
	return ret;
}

static int read_message(struct channel *channel, struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + channel->heartbeat_ns;
	uint8_t bytes[WIRE_HEADER_BYTES];
	struct wire_header header;
	struct message *message;
	int ret;

	ret = stream_receive(channel->stream, bytes, sizeof(bytes), deadline_ns, channel->stop_fd);
	if (ret)
		return explain(channel, ret, error);
	ret = wire_header_decode(bytes, &header, error);
	if (ret)
		return ret;
	message = malloc(sizeof(*message) + header.length_bytes);
	if (!message)
		return error_set(error, -ENOMEM, "no memory for the message %s",
				 message_name(header.type));
	message->type = header.type;
	message->length_bytes = header.length_bytes;
	ret = stream_receive(channel->stream, message->payload, header.length_bytes, deadline_ns,
			     channel->stop_fd);
	if (ret) {
		free(message);
		return explain(channel, ret, error);
	}
	ret = answer_or_enqueue(channel, message);
	channel->last_heard_ns = clock_now_ns(); /* waiting for room was not the peer's silence */
	return ret ? explain(channel, ret, error) : 0;
}

/* For something to read, or for a ping to be due. */
static int await_bytes(struct channel *channel, uint64_t deadline_ns)
{
	bool pending = stream_has_pending(channel->stream);
	int ret = wait_for_fd(stream_fd(channel->stream), POLLIN, pending ? 0 : deadline_ns,
			      channel->stop_fd);

	return pending && ret == -ETIMEDOUT ? 0 : ret;
}

/* Until the channel fails or is closed (-ECANCELED). */
static int serve(struct channel *channel, struct ramlift_error *error)
{
	uint64_t ping_ns = channel->heartbeat_ns / 5;
	uint64_t next_ping_ns = clock_now_ns();

	channel->last_heard_ns = clock_now_ns();
	for (;;) {
		int ret = await_bytes(channel, next_ping_ns);

		if (!ret)
			ret = read_message(channel, error);
		else if (ret == -ETIMEDOUT)
			ret = 0;
		if (ret)
			return ret;
		if (clock_now_ns() - channel->last_heard_ns > channel->heartbeat_ns)
			return explain(channel, -ETIMEDOUT, error);
		if (clock_now_ns() >= next_ping_ns) {
			next_ping_ns = clock_now_ns() + ping_ns;
			ret = send_ping(channel, error);
			if (ret)
				return ret;
		}
	}
}

static void *channel_thread(void *argument)
{
	struct channel *channel = argument;
	struct ramlift_error error = { 0 };
	int ret = serve(channel, &error);

	if (!error.code)
		explain(channel, ret, &error);
	pthread_mutex_lock(&channel->lock);
	channel->failed = true;
	channel->error = error;
	pthread_mutex_unlock(&channel->lock);
	signal_fd(channel->ready_fd);
	signal_fd(channel->over_fd);
	return NULL;
}

int channel_open(struct stream *stream, uint64_t heartbeat_ns, struct channel **result,
		 struct ramlift_error *error)
{
	struct channel *channel = calloc(1, sizeof(*channel));
	struct address peer;
	int one = 1;
	int ret;

	setsockopt(stream_fd(stream), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!channel) {
		ret = -ENOMEM;
		goto free_stream;
	}
	channel->stream = stream;
	channel->heartbeat_ns = heartbeat_ns;
	channel->last = &channel->first;
	strcpy(channel->peer, address_of_peer(stream_fd(stream), &peer) ? "the peer" : peer.text);
	pthread_mutex_init(&channel->send_lock, NULL);
	pthread_mutex_init(&channel->lock, NULL);
	clock_cond_init(&channel->taken);
	channel->stop_fd = eventfd(0, EFD_CLOEXEC);
	channel->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	channel->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (channel->stop_fd < 0 || channel->ready_fd < 0 || channel->over_fd < 0) {
		ret = -errno;
		goto close_eventfds;
	}
	ret = -pthread_create(&channel->thread, NULL, channel_thread, channel);
	if (ret)
		goto close_eventfds;
	*result = channel;
	return 0;

close_eventfds:
	if (channel->over_fd >= 0)
		close(channel->over_fd);
	if (channel->ready_fd >= 0)
		close(channel->ready_fd);
	if (channel->stop_fd >= 0)
		close(channel->stop_fd);
	free(channel);
free_stream:
	stream_free(stream);
	return error_set(error, ret, "cannot open a control channel: %s", strerror(-ret));
}

/* The first queued message, or NULL. Resets ready_fd as long as there is nothing to tell. */
static struct message *dequeue(struct channel *channel)
{
	struct message *message = NULL;
	struct queued *queued;
	uint64_t count;

	pthread_mutex_lock(&channel->lock);
	queued = channel->first;
	if (queued) {
		channel->first = queued->next;
		if (!channel->first)
			channel->last = &channel->first;
		channel->n_queued--;
		message = queued->message;
		channel->queued_bytes -= message->length_bytes;
		free(queued);
		pthread_cond_signal(&channel->taken);
	} else if (!channel->failed) {
		ssize_t n = read(channel->ready_fd, &count, sizeof(count));

		(void)n;
	}
	pthread_mutex_unlock(&channel->lock);
	return message;
}

void channel_wake(struct channel *channel)
{
	pthread_mutex_lock(&channel->lock);
	channel->woken = true;
	pthread_mutex_unlock(&channel->lock);
	signal_fd(channel->ready_fd);
}

int channel_receive(struct channel *channel, uint64_t deadline_ns, int interrupt_fd,
		    struct message **result, struct ramlift_error *error)
{
	for (;;) {
		struct message *message = dequeue(channel);
		bool failed, woken;
		int ret;

		if (message) {
			*result = message;
			return 0;
		}
		pthread_mutex_lock(&channel->lock);
		failed = channel->failed && !channel->first;
		if (failed && error)
			*error = channel->error;
		ret = channel->error.code;
		woken = channel->woken;
		channel->woken = false;
		pthread_mutex_unlock(&channel->lock);
		if (failed)
			return ret;
		if (woken)
			return -ETIMEDOUT;
		ret = wait_for_fd(channel->ready_fd, POLLIN, deadline_ns, interrupt_fd);
		if (ret)
			return ret;
	}
}

int channel_over_fd(const struct channel *channel)
{
	return channel->over_fd;
}

int channel_local_address(struct channel *channel, struct address *address)
{
	return address_of_socket(stream_fd(channel->stream), address);
}

struct stream *channel_stream(struct channel *channel)
{
	return channel->stream;
}

int channel_lane_secret(struct channel *channel, uint8_t secret[STREAM_SECRET_BYTES],
			const uint8_t **lane_secret, struct ramlift_error *error)
{
	bool plain = stream_is_plain(channel->stream);

	/* Never plain lanes beside an encrypted connection. */
	if (!plain && !stream_secret(channel->stream, "tcp lanes", secret))
		return error_set(error, -ENOMEM, "no memory for the lanes' secret");
	*lane_secret = plain ? NULL : secret;
	return 0;
}

uint64_t channel_rtt_ns(struct channel *channel)
{
	return atomic_load(&channel->rtt_ns);
}

void channel_close(struct channel *channel)
{
	struct message *message;

	if (!channel)
		return;
	pthread_mutex_lock(&channel->lock);
	channel->closing = true;
	pthread_cond_signal(&channel->taken);
	pthread_mutex_unlock(&channel->lock);
	signal_fd(channel->stop_fd);
	pthread_join(channel->thread, NULL);
	stream_say_goodbye(channel->stream, clock_now_ns() + GOODBYE_NS);
	while ((message = dequeue(channel)))
		free(message);
	stream_free(channel->stream);
	close(channel->stop_fd);
	close(channel->ready_fd);
	close(channel->over_fd);
	pthread_cond_destroy(&channel->taken);
	pthread_mutex_destroy(&channel->lock);
	pthread_mutex_destroy(&channel->send_lock);
	free(channel);
}
