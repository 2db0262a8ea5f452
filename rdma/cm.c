/* SPDX-License-Identifier: Apache-2.0 */
/* Event channels and connect requests' private data. Knows nothing of endpoints. */
#include "rdma/cm.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/error.h"
#include "core/ramlift.h"

/*
 * The private data of a connect request: at most 56 bytes are ours, and the receiver is handed
 * 56 bytes whatever was sent, padded with zeros.
 *
 *     0        4         6      8         10         12          28
 *     | magic  | version | lane | n_lanes | reserved | session id |
 */
#define HELLO_MAGIC   0x524c4654u /* "RLFT" */
#define HELLO_VERSION 1u

enum {
	HELLO_AT_MAGIC = 0,
	HELLO_AT_VERSION = 4,
	HELLO_AT_LANE = 6,
	HELLO_AT_N_LANES = 8,
	HELLO_AT_SESSION = 12,
};

_Static_assert(HELLO_AT_SESSION + SESSION_ID_BYTES == CM_HELLO_BYTES, "layout of the hello");

int cm_channel_open(struct rdma_event_channel **channel, struct ramlift_error *error)
{
	struct rdma_event_channel *opened = rdma_create_event_channel();
	int flags, ret;

	if (!opened) {
		ret = errno ? -errno : -EIO;
		if (ret == -ENODEV || ret == -ENOSYS)
			return error_set(
				error, -ENODEV,
				"this host has no RDMA device: use --transport tcp, or set "
				"up an RNIC or soft-RoCE (rdma link add rxe0 type rxe "
				"netdev eth0)");
		if (ret == -ENOENT)
			return error_set(
				error, -ENODEV,
				"this host has no RDMA connection manager: load the module "
				"rdma_ucm, or use --transport tcp");
		return error_set(error, ret, "cannot open an RDMA event channel: %s",
				 strerror(-ret));
	}
	flags = fcntl(opened->fd, F_GETFL);
	if (flags < 0 || fcntl(opened->fd, F_SETFL, flags | O_NONBLOCK)) {
		ret = -errno;
		rdma_destroy_event_channel(opened);
		return error_set(error, ret, "cannot set up an RDMA event channel: %s",
				 strerror(-ret));
	}
	*channel = opened;
	return 0;
}

int cm_channel_next(struct rdma_event_channel *channel, struct cm_event *event)
{
	struct rdma_cm_event *raw;

	if (rdma_get_cm_event(channel, &raw))
		return errno ? -errno : -EIO;
	*event = (struct cm_event){ .type = raw->event, .status = raw->status, .id = raw->id };
	if (raw->event == RDMA_CM_EVENT_CONNECT_REQUEST && raw->param.conn.private_data) {
		event->private_data_bytes = raw->param.conn.private_data_len;
		if (event->private_data_bytes > CM_HELLO_BYTES)
			event->private_data_bytes = CM_HELLO_BYTES;
		memcpy(event->private_data, raw->param.conn.private_data,
		       event->private_data_bytes);
	}
	rdma_ack_cm_event(raw);
	return 0;
}

static void put_be16(uint8_t *bytes, unsigned value)
{
	uint16_t wire = htobe16((uint16_t)value);

	memcpy(bytes, &wire, sizeof(wire));
}

static unsigned get_be16(const uint8_t *bytes)
{
	uint16_t wire;

	memcpy(&wire, bytes, sizeof(wire));
	return be16toh(wire);
}

void cm_hello_pack(const struct cm_hello *hello, uint8_t bytes[CM_HELLO_BYTES])
{
	uint32_t magic = htobe32(HELLO_MAGIC);

	memset(bytes, 0, CM_HELLO_BYTES);
	memcpy(bytes + HELLO_AT_MAGIC, &magic, sizeof(magic));
	put_be16(bytes + HELLO_AT_VERSION, HELLO_VERSION);
	put_be16(bytes + HELLO_AT_LANE, hello->lane);
	put_be16(bytes + HELLO_AT_N_LANES, hello->n_lanes);
	memcpy(bytes + HELLO_AT_SESSION, hello->session_id, SESSION_ID_BYTES);
}

bool cm_hello_unpack(const uint8_t *bytes, unsigned n_bytes, struct cm_hello *hello)
{
	uint32_t magic;

	if (n_bytes < CM_HELLO_BYTES)
		return false;
	memcpy(&magic, bytes + HELLO_AT_MAGIC, sizeof(magic));
	if (be32toh(magic) != HELLO_MAGIC || get_be16(bytes + HELLO_AT_VERSION) != HELLO_VERSION)
		return false;
	hello->lane = get_be16(bytes + HELLO_AT_LANE);
	hello->n_lanes = get_be16(bytes + HELLO_AT_N_LANES);
	memcpy(hello->session_id, bytes + HELLO_AT_SESSION, SESSION_ID_BYTES);
	return true;
}
