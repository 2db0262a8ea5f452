/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP transport's source: connects the lanes and sends, each on its own thread, straight from
 * guest RAM. */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "core/error.h"
#include "core/fault_point.h"
#include "core/ramlift.h"
#include "core/tcp_transport.h"

/* Paths this short are a host's own or a rack's. */
#define SHORT_ROUND_TRIP_US 100
#define SHORT_QUEUE_BYTES   (256 << 10) /* the kernel doubles it, for its own needs */

/*
 * On a short path, keep the kernel from queueing megabytes: what waits has left the CPU's caches by
 * the time it is copied on, which costs more than half as much again, and has to be waited for at
 * the switchover. 512 KiB in flight a lane still is 5 GB/s at the longest such round trip. On
 * longer paths the kernel sizes the queue itself. Right after connect(), when nothing but the
 * handshake has been measured.
 */
static void bound_queue(int fd)
{
	const int queue_bytes = SHORT_QUEUE_BYTES;
	struct tcp_info info;
	socklen_t size = sizeof(info);

	/* Without it a lane works as well, only slower. */
	if (!getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) &&
	    info.tcpi_rtt <= SHORT_ROUND_TRIP_US)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &queue_bytes, sizeof(queue_bytes));
}

/* Bound what a post may take. */
static int set_timeout(const struct endpoint *endpoint, int fd)
{
	const struct timeval timeout = {
		.tv_sec = (time_t)(endpoint->params.io_timeout_ns / NS_PER_S),
		.tv_usec = (suseconds_t)(endpoint->params.io_timeout_ns % NS_PER_S / NS_PER_US),
	};

	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) ? -errno : 0;
}

static int introduce(const struct endpoint *endpoint, struct stream *stream, unsigned index,
		     uint64_t deadline_ns)
{
	struct lane_hello hello = {
		.magic = htobe32(HELLO_MAGIC),
		.lane = htobe16((uint16_t)index),
		.n_lanes = htobe16((uint16_t)endpoint->params.n_lanes),
	};
	int interrupt_fd = endpoint->params.interrupt_fd;
	uint8_t welcome = 0;
	int ret;

	memcpy(hello.session_id, endpoint->params.session_id, SESSION_ID_BYTES);
	ret = stream_send(stream, &hello, sizeof(hello), deadline_ns, interrupt_fd);
	if (!ret)
		ret = stream_receive(stream, &welcome, sizeof(welcome), deadline_ns, interrupt_fd);
	return ret || welcome == LANE_WELCOME ? ret : -EPROTO;
}

static int connect_lane(struct endpoint *endpoint, const struct address *peer, unsigned index,
			uint64_t deadline_ns, struct ramlift_error *error)
{
	struct ramlift_error why = { 0 };
	struct stream *stream;
	int one = 1;
	int fd, ret;

	ret = address_connect(peer, deadline_ns, endpoint->params.interrupt_fd, &fd, error);
	if (ret)
		return ret;
	bound_queue(fd);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* the token must not wait */
	ret = stream_connect_lane(fd, endpoint->params.lane_secret, deadline_ns,
				  endpoint->params.interrupt_fd, &stream, &why);
	if (ret)
		return error_set(error, ret, "lane %u was not admitted at %s: %s", index,
				 peer->text, why.text);
	ret = introduce(endpoint, stream, index, deadline_ns);
	if (ret) {
		stream_free(stream);
	} else {
		ret = tcp_lane_attach(&endpoint->lanes[index], stream);
		if (!ret)
			ret = set_timeout(endpoint, stream_fd(stream));
	}
	if (ret)
		return error_set(error, ret, "lane %u was not admitted at %s: %s", index,
				 peer->text, strerror(-ret));
	return 0;
}

int tcp_connect(const struct transport_params *params, const struct sockaddr_storage *peers,
		uint64_t deadline_ns, struct endpoint **result, struct ramlift_error *error)
{
	struct endpoint *endpoint = tcp_endpoint_new(params, error);
	struct address address = { 0 };

	if (!endpoint)
		return -ENOMEM;
	address.socket = peers[0]; /* no rails here: all lanes go the same way */
	address.length = peers[0].ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
							: sizeof(struct sockaddr_in);
	address_set_port(&address, address_port(&address)); /* for its text */
	for (unsigned i = 0; i < params->n_lanes; i++) {
		int ret = connect_lane(endpoint, &address, i, deadline_ns, error);

		if (ret) {
			tcp_close(endpoint);
			return ret;
		}
	}
	endpoint->params.lane_secret = NULL; /* may be gone now */
	*result = endpoint;
	return 0;
}

static int send_error(struct tcp_lane *lane, int code, struct ramlift_error *error)
{
	if (atomic_load(&lane->endpoint->aborted))
		return error_set(error, -ECANCELED, "lane %u was stopped", lane->index);
	if (code == EAGAIN)
		return error_set(error, -ETIMEDOUT,
				 "lane %u: the destination took no data for %" PRIu64 " ms",
				 lane->index, lane->endpoint->params.io_timeout_ns / NS_PER_MS);
	return error_set(error, -code, "lane %u broke: %s", lane->index, strerror(code));
}

static int send_encrypted(struct tcp_lane *lane, struct iovec *vectors, unsigned n,
			  struct ramlift_error *error)
{
	int ret = stream_send_vectors(lane->stream, vectors, n, LANE_DEADLINE_NS, -1);

	return ret ? send_error(lane, ret == -ETIMEDOUT ? EAGAIN : -ret, error) : 0;
}

static int send_vectors(struct tcp_lane *lane, struct iovec *vectors, unsigned n,
			struct ramlift_error *error)
{
	if (!stream_is_plain(lane->stream))
		return send_encrypted(lane, vectors, n, error);
	while (n) {
		struct msghdr message = { .msg_iov = vectors, .msg_iovlen = n };
		ssize_t sent = sendmsg(lane->fd, &message, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return send_error(lane, errno, error);
		while (n && (size_t)sent >= vectors->iov_len) {
			sent -= (ssize_t)vectors->iov_len;
			vectors++;
			n--;
		}
		if (n) {
			vectors->iov_base = (char *)vectors->iov_base + sent;
			vectors->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

int tcp_post(struct endpoint *endpoint, unsigned index, const struct transport_write *writes,
	     unsigned n_writes, struct ramlift_error *error)
{
	struct batch_header header = { .n_writes = htobe32(n_writes) };
	struct iovec vectors[1 + TRANSPORT_MAX_BATCH];

	if (index == (endpoint->params.n_lanes > 1) && FAULT_ASKED("lane-post", "qp-error"))
		tcp_drop_lane(endpoint, index);
	vectors[0] = (struct iovec){ &header, sizeof(header) };
	for (unsigned i = 0; i < n_writes; i++) {
		const struct transport_write *write = &writes[i];
		char *slice = endpoint->params.slices[write->slice].hva;

		header.writes[i] = (struct write_header){
			.slice = htobe32(write->slice),
			.length_bytes = htobe32(write->length_bytes),
			.offset_bytes = htobe64(write->offset_bytes),
		};
		vectors[1 + i] = (struct iovec){ slice + write->offset_bytes, write->length_bytes };
	}
	return send_vectors(&endpoint->lanes[index], vectors, 1 + n_writes, error);
}

/* What the kernel has taken and the peer's has not acknowledged. */
uint64_t tcp_in_flight_bytes(struct endpoint *endpoint, unsigned lane)
{
	int bytes;

	return ioctl(endpoint->lanes[lane].fd, SIOCOUTQ, &bytes) || bytes < 0 ? 0 : (uint64_t)bytes;
}

/* What the kernel has taken is a copy already. */
int tcp_drain(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error)
{
	(void)endpoint;
	(void)lane;
	(void)error;
	return 0;
}

int tcp_token(struct endpoint *endpoint, unsigned index, uint64_t token,
	      struct ramlift_error *error)
{
	struct batch_header header = { .token = htobe64(token) };
	struct iovec vector = { &header, sizeof(header) };

	return send_vectors(&endpoint->lanes[index], &vector, 1, error);
}

/* What the kernel has taken may still go; the destination closes its end before others carry on. */
void tcp_drop_lane(struct endpoint *endpoint, unsigned lane)
{
	shutdown(endpoint->lanes[lane].fd, SHUT_RDWR);
}
