/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words for what goes wrong below: completion states, connection events, addresses without a
 * device. Knows nothing of endpoints and lanes but a lane's number.
 */
#include "rdma/verbs_error.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/ramlift.h"
#include "rdma/address.h"

/* Reject reasons of the InfiniBand connection manager (specification volume 1, table 107). */
enum {
	REJECT_INVALID_SERVICE = 8,
	REJECT_BY_CONSUMER = 28,
};

static const char *completion_advice(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_RETRY_EXC_ERR:
		return "the peer does not answer any more: check its host, and the link and MTU on "
		       "the way";
	case IBV_WC_RNR_RETRY_EXC_ERR:
		return "the peer has no receive posted: is it the same version of Ramlift?";
	case IBV_WC_REM_ACCESS_ERR:
	case IBV_WC_REM_INV_REQ_ERR:
	case IBV_WC_REM_OP_ERR:
		return "the destination's adapter refused it: see the destination's log for why it "
		       "gave the session up";
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
		return "guest memory is not registered as it should be: was it unmapped or "
		       "discarded?";
	case IBV_WC_LOC_LEN_ERR:
		return "the peer sent more than a token: is it the same version of Ramlift?";
	case IBV_WC_WR_FLUSH_ERR:
		return "the connection was closed: see the peer's log";
	case IBV_WC_FATAL_ERR:
		return "the adapter failed: see the kernel's log";
	default:
		return "see the kernel's log on both hosts";
	}
}

int verbs_completion_error(struct ramlift_error *error, unsigned lane, enum ibv_wc_status status)
{
	bool silent = status == IBV_WC_RETRY_EXC_ERR || status == IBV_WC_RNR_RETRY_EXC_ERR;

	return error_set(error, silent ? -ETIMEDOUT : -EIO, "lane %u: %s; %s", lane,
			 ibv_wc_status_str(status), completion_advice(status));
}

int verbs_connect_error(struct ramlift_error *error, unsigned lane, enum rdma_cm_event_type event,
			int status)
{
	switch (event) {
	case RDMA_CM_EVENT_REJECTED:
		if (status == REJECT_BY_CONSUMER)
			return error_set(
				error, -ECONNREFUSED,
				"lane %u: the destination turned it away: it waits for another "
				"session",
				lane);
		if (status == REJECT_INVALID_SERVICE)
			return error_set(
				error, -ECONNREFUSED,
				"lane %u: nobody listens for it at the destination: see the "
				"destination's log",
				lane);
		return error_set(error, -ECONNREFUSED,
				 "lane %u: the destination's adapter rejected the connection "
				 "(reason %d)",
				 lane, status);
	case RDMA_CM_EVENT_UNREACHABLE:
		return error_set(error, -ETIMEDOUT,
				 "lane %u: no answer to the connect request: check that UDP port "
				 "4791 (RoCE) passes between the hosts",
				 lane);
	case RDMA_CM_EVENT_ADDR_ERROR:
		return error_set(error, status == -ENODEV ? -ENODEV : -EHOSTUNREACH,
				 "lane %u: no RDMA device reaches the destination's address (%s)",
				 lane, strerror(-status));
	case RDMA_CM_EVENT_ROUTE_ERROR:
		return error_set(error, -EHOSTUNREACH,
				 "lane %u: no RDMA route to the destination (%s): check the subnet "
				 "manager or the RoCE configuration",
				 lane, strerror(-status));
	default:
		return error_set(error, -EIO, "lane %u: cannot connect: %s (%d)", lane,
				 rdma_event_str(event), status);
	}
}

int verbs_no_device_error(struct ramlift_error *error, const struct sockaddr *address)
{
	char text[ADDRESS_TEXT_BYTES];

	address_text(address, text);
	return error_set(error, -ENODEV,
			 "no RDMA device serves %s: use --transport tcp, or set up an RNIC or "
			 "soft-RoCE (rdma link add rxe0 type rxe netdev eth0)",
			 text);
}

void verbs_size_text(uint64_t bytes, char text[SIZE_TEXT_BYTES])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	unsigned unit = 0;
	double size = (double)bytes;

	while (size >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		size /= 1024;
		unit++;
	}
	snprintf(text, SIZE_TEXT_BYTES, unit >= 3 ? "%.1f %s" : "%.0f %s", size, units[unit]);
}
