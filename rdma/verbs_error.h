/* SPDX-License-Identifier: Apache-2.0 */
/* What verbs and librdmacm report, as sentences that say what to do. */
#ifndef RDMA_VERBS_ERROR_H
#define RDMA_VERBS_ERROR_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdint.h>
#include <sys/socket.h>

struct ramlift_error;

#define SIZE_TEXT_BYTES 24

/*
 * Of a completion with an error, only status and wr_id are defined. -ETIMEDOUT where the peer did
 * not answer, else -EIO.
 */
int verbs_completion_error(struct ramlift_error *error, unsigned lane, enum ibv_wc_status status);

/* A lane that librdmacm could not connect: -ECONNREFUSED, -ETIMEDOUT, -ENODEV or -EIO. */
int verbs_connect_error(struct ramlift_error *error, unsigned lane, enum rdma_cm_event_type event,
			int status);

/* No RDMA device serves an address: -ENODEV and what to do about it. */
int verbs_no_device_error(struct ramlift_error *error, const struct sockaddr *address);

/* "256 MiB", "4.0 GiB", "64 KiB", "512 bytes". */
void verbs_size_text(uint64_t bytes, char text[SIZE_TEXT_BYTES]);

#endif
