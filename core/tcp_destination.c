/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP transport's destination: lets the session's lanes in and receives, a thread a lane,
 * straight into guest RAM. */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/error.h"
#include "core/ramlift.h"
#include "core/tcp_strangers.h"
#include "core/tcp_transport.h"

/* The most to take by one call, but for a single vector: while a call copies, the lane's next
 * packets pile up behind the socket's lock. */
#define CALL_BYTES (TRANSPORT_MAX_WRITE_BYTES + sizeof(struct batch_header))
#define LOOK_NS	   (50 * NS_PER_MS) /* how often a wait for a token looks at interrupt_fd */

int tcp_listen(const struct transport_params *params, const struct sockaddr *local,
	       struct endpoint **result, struct sockaddr_storage *addresses,
	       struct ramlift_error *error)
{
	struct endpoint *endpoint = tcp_endpoint_new(params, error);
	struct address address = { 0 };
	int ret;

	if (!endpoint)
		return -ENOMEM;
	address.length = local->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
						      : sizeof(struct sockaddr_in);
	memcpy(&address.socket, local, address.length);
	address_set_port(&address, 0);
	ret = address_listen(&address, &endpoint->listen_fd, error);
	if (!ret)
		ret = address_of_socket(endpoint->listen_fd, &address);
	if (ret) {
		tcp_close(endpoint);
		return ret;
	}
	addresses[0] = address.socket;
	*result = endpoint;
	return 0;
}

/* Would this write stay inside its slice? Everything in the header comes from the peer. */
static bool write_fits(const struct endpoint *endpoint, const struct write_header *header)
{
	uint32_t slice = be32toh(header->slice);
	uint32_t length = be32toh(header->length_bytes);
	uint64_t offset = be64toh(header->offset_bytes);

	return slice < endpoint->params.n_slices && length && length <= TRANSPORT_MAX_WRITE_BYTES &&
	       offset <= endpoint->params.slices[slice].size_bytes &&
	       length <= endpoint->params.slices[slice].size_bytes - offset;
}

/* How many of the vectors, at least the first, to fill by one call. */
static unsigned one_call(const struct iovec *vectors, unsigned n)
{
	uint64_t bytes = vectors[0].iov_len;
	unsigned i = 1;

	while (i < n && bytes + vectors[i].iov_len <= CALL_BYTES)
		bytes += vectors[i++].iov_len;
	return i;
}

/* The same under TLS. What has been tampered with is not what the source sent: -EBADMSG. */
static int receive_encrypted(struct stream *stream, const struct iovec *vectors, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int ret = stream_receive(stream, vectors[i].iov_base, vectors[i].iov_len,
					 LANE_DEADLINE_NS, -1);

		if (ret)
			return ret == -EPROTO ? -EBADMSG : ret;
	}
	return 0;
}

/* Fill all of the vectors. */
static int receive_vectors(struct tcp_lane *lane, struct iovec *vectors, unsigned n)
{
	if (!stream_is_plain(lane->stream))
		return receive_encrypted(lane->stream, vectors, n);
	while (n) {
		struct msghdr message = { .msg_iov = vectors, .msg_iovlen = one_call(vectors, n) };
		ssize_t received = recvmsg(lane->fd, &message, MSG_WAITALL);

		if (!received)
			return -ECONNRESET;
		if (received < 0 && errno == EINTR)
			continue;
		if (received < 0)
			return -errno;
		while (n && (size_t)received >= vectors->iov_len) {
			received -= (ssize_t)vectors->iov_len;
			vectors++;
			n--;
		}
		if (n) {
			vectors->iov_base = (char *)vectors->iov_base + received;
			vectors->iov_len -= (size_t)received;
		}
	}
	return 0;
}

/* Is what the batch does not need 0, so that it may mean something one day? */
static bool header_is_clean(const struct batch_header *header)
{
	static const struct write_header unused[TRANSPORT_MAX_BATCH];
	unsigned n_writes = be32toh(header->n_writes);

	return !header->reserved && n_writes <= TRANSPORT_MAX_BATCH &&
	       (!n_writes || !header->token) &&
	       !memcmp(&header->writes[n_writes], unused,
		       (TRANSPORT_MAX_BATCH - n_writes) * sizeof(unused[0]));
}

/* Where the bytes of a batch's writes go. false: somewhere that is not guest memory. */
static bool place_writes(const struct endpoint *endpoint, const struct batch_header *header,
			 struct iovec *vectors)
{
	unsigned n_writes = be32toh(header->n_writes);

	for (unsigned i = 0; i < n_writes; i++) {
		const struct write_header *write = &header->writes[i];

		if (!write_fits(endpoint, write))
			return false;
		vectors[i].iov_base = (char *)endpoint->params.slices[be32toh(write->slice)].hva +
				      be64toh(write->offset_bytes);
		vectors[i].iov_len = be32toh(write->length_bytes);
	}
	return true;
}

int tcp_receive(struct tcp_lane *lane, uint64_t *token)
{
	struct iovec vectors[TRANSPORT_MAX_BATCH + 1];
	struct batch_header header;
	unsigned n_writes = 0;
	int ret;

	for (;;) {
		vectors[n_writes] = (struct iovec){ &header, sizeof(header) };
		ret = receive_vectors(lane, vectors, n_writes + 1);
		if (ret)
			return ret;
		if (!header_is_clean(&header))
			return -EPROTO;
		n_writes = be32toh(header.n_writes);
		if (!n_writes)
			break;
		if (!place_writes(lane->endpoint, &header, vectors))
			return -EPROTO;
	}
	*token = be64toh(header.token);
	return 0;
}

static void *receive_thread(void *argument)
{
	struct tcp_lane *lane = argument;
	struct endpoint *endpoint = lane->endpoint;
	uint64_t token = 0;
	int ret = tcp_receive(lane, &token);

	if (ret) /* the source is to notice, too */
		shutdown(lane->fd, SHUT_RDWR);
	pthread_mutex_lock(&endpoint->lock);
	lane->status = ret;
	lane->token = token;
	lane->has_token = !ret;
	pthread_cond_broadcast(&endpoint->changed);
	pthread_mutex_unlock(&endpoint->lock);
	return NULL;
}

bool tcp_hello_is_ours(const struct endpoint *endpoint, const struct lane_hello *hello)
{
	unsigned lane = be16toh(hello->lane);

	return be32toh(hello->magic) == HELLO_MAGIC &&
	       be16toh(hello->n_lanes) == endpoint->params.n_lanes &&
	       lane < endpoint->params.n_lanes && endpoint->lanes[lane].fd < 0 &&
	       !memcmp(hello->session_id, endpoint->params.session_id, SESSION_ID_BYTES);
}

static int join_lane(struct endpoint *endpoint, struct stream *stream, unsigned index,
		     struct ramlift_error *error)
{
	struct tcp_lane *lane = &endpoint->lanes[index];
	const uint8_t welcome = LANE_WELCOME;
	int ret;

	ret = stream_send(stream, &welcome, sizeof(welcome), clock_now_ns() + HELLO_TIMEOUT_NS,
			  endpoint->params.interrupt_fd);
	if (ret) {
		stream_free(stream);
		return error_set(error, ret, "lane %u broke while it joined: %s", index,
				 strerror(-ret));
	}
	ret = tcp_lane_attach(lane, stream);
	if (!ret)
		ret = -pthread_create(&lane->thread, NULL, receive_thread, lane);
	if (ret)
		return error_set(error, ret, "cannot start lane %u: %s", index, strerror(-ret));
	lane->has_thread = true;
	return 0;
}

/* Who it is must be told in time. */
static int hear_hello(struct endpoint *endpoint, int fd, struct stream **result,
		      struct lane_hello *hello)
{
	uint64_t deadline_ns = clock_now_ns() + HELLO_TIMEOUT_NS;
	int interrupt_fd = endpoint->params.interrupt_fd;
	struct stream *stream;
	int ret;

	ret = stream_accept_lane(fd, endpoint->params.lane_secret, deadline_ns, interrupt_fd,
				 &stream, NULL);
	if (ret)
		return ret;
	ret = stream_receive(stream, hello, sizeof(*hello), deadline_ns, interrupt_fd);
	if (!ret && !tcp_hello_is_ours(endpoint, hello))
		ret = -EACCES;
	if (ret)
		stream_free(stream);
	else
		*result = stream;
	return ret;
}

/* One connection: 1 if it became a lane, 0 if it was a stranger. */
static int admit(struct endpoint *endpoint, struct strangers *strangers, uint64_t deadline_ns,
		 struct ramlift_error *error)
{
	struct lane_hello hello;
	struct stream *stream;
	int fd, ret;

	/* Whatever it says, a hello is the least of it. */
	fd = strangers_next(strangers, endpoint->listen_fd, sizeof(hello), HELLO_TIMEOUT_NS,
			    deadline_ns, endpoint->params.interrupt_fd);
	if (fd == -EAGAIN)
		return 0;
	if (fd < 0)
		return error_set(error, fd,
				 fd == -ECANCELED ? "cancelled"
						  : "the source's lanes did not connect in time");
	if (hear_hello(endpoint, fd, &stream, &hello))
		return 0;
	ret = join_lane(endpoint, stream, be16toh(hello.lane), error);
	return ret ? ret : 1;
}

int tcp_accept(struct endpoint *endpoint, uint64_t deadline_ns, struct ramlift_error *error)
{
	struct strangers strangers = { .n = 0 };
	int ret = 0;

	for (unsigned joined = 0; joined < endpoint->params.n_lanes && ret >= 0;) {
		ret = admit(endpoint, &strangers, deadline_ns, error);
		if (ret >= 0 && atomic_load(&endpoint->aborted))
			ret = error_set(error, -ECANCELED, "cancelled");
		else if (!ret && clock_now_ns() >= deadline_ns)
			ret = error_set(error, -ETIMEDOUT,
					"only strangers connected, not the source's lanes");
		joined += ret > 0;
	}
	strangers_fini(&strangers);
	endpoint->params.lane_secret = NULL; /* may be gone now */
	return ret < 0 ? ret : 0;
}

/* 1: the token is here; 0: not yet. Under the lock. */
static int check_token(const struct tcp_lane *lane, uint64_t token, struct ramlift_error *error)
{
	if (lane->status == -EPROTO)
		return error_set(error, -EPROTO,
				 "lane %u carried a write outside guest memory, or a batch that is "
				 "too long or malformed",
				 lane->index);
	if (lane->status)
		return error_set(error, lane->status, "lane %u broke: %s", lane->index,
				 strerror(-lane->status));
	if (lane->has_token && lane->token != token)
		return error_set(error, -EPROTO, "lane %u ended with a wrong token", lane->index);
	return lane->has_token;
}

/* Until a lane has something to tell, or for a moment: nothing but a look finds interrupt_fd. Under
 * the lock. */
static int await_change(struct endpoint *endpoint, unsigned lane, uint64_t deadline_ns,
			struct ramlift_error *error)
{
	uint64_t now_ns = clock_now_ns();
	uint64_t until_ns = deadline_ns - now_ns < LOOK_NS ? deadline_ns : now_ns + LOOK_NS;

	if (atomic_load(&endpoint->aborted) ||
	    (endpoint->params.interrupt_fd >= 0 &&
	     !wait_for_fd(endpoint->params.interrupt_fd, POLLIN, 0, -1)))
		return error_set(error, -ECANCELED, "cancelled");
	if (now_ns >= deadline_ns)
		return error_set(error, -ETIMEDOUT, "the token of lane %u did not come", lane);
	clock_wait(&endpoint->changed, &endpoint->lock, until_ns);
	return 0;
}

int tcp_await_tokens(struct endpoint *endpoint, const uint64_t *tokens, uint64_t deadline_ns,
		     struct ramlift_error *error)
{
	int ret = 0;

	pthread_mutex_lock(&endpoint->lock);
	for (unsigned i = 0; i < endpoint->params.n_lanes && ret >= 0;) {
		ret = tokens[i] ? check_token(&endpoint->lanes[i], tokens[i], error) : 1;
		if (ret == 1)
			i++;
		else if (!ret)
			ret = await_change(endpoint, i, deadline_ns, error);
	}
	pthread_mutex_unlock(&endpoint->lock);
	return ret < 0 ? ret : 0;
}

/* When its thread has ended, nobody writes guest memory by this lane any more. */
int tcp_fence_lane(struct endpoint *endpoint, unsigned index, struct ramlift_error *error)
{
	struct tcp_lane *lane = &endpoint->lanes[index];

	(void)error;
	if (!lane->has_thread)
		return 0;
	shutdown(lane->fd, SHUT_RDWR);
	pthread_join(lane->thread, NULL);
	lane->has_thread = false;
	return 0;
}

int tcp_fence(struct endpoint *endpoint, struct ramlift_error *error)
{
	for (unsigned i = 0; i < endpoint->params.n_lanes; i++)
		tcp_fence_lane(endpoint, i, error);
	return 0;
}
