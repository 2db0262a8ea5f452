/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's half of a transparent pair of proxies; see proxy_source.h. */
#ifndef KVM_QEMU_PROXY_DESTINATION_H
#define KVM_QEMU_PROXY_DESTINATION_H

#include "core/ramlift.h"

struct proxy_destination;

/*
 * session: where to listen, transports, progress. connect: where the waiting QEMU will listen on
 * this host once its manager has started it, "127.0.0.1:port". -EINVAL, -EADDRINUSE, -ENOMEM...
 */
int proxy_destination_new(const char *connect, const struct ramlift_destination_config *session,
			  struct proxy_destination **proxy, struct ramlift_error *error);

uint16_t proxy_destination_port(const struct proxy_destination *proxy);

/* Take one migration to the QEMU that waits by then. May be called again. */
int proxy_destination_run(struct proxy_destination *proxy, struct ramlift_error *error);

/* Of the present or last migration. */
void proxy_destination_stats(struct proxy_destination *proxy, struct ramlift_stats *stats);
void proxy_destination_info(struct proxy_destination *proxy, struct ramlift_session_info *info);

/* Any thread, signal handlers. */
void proxy_destination_cancel(struct proxy_destination *proxy);

/* NULL is fine. */
void proxy_destination_free(struct proxy_destination *proxy);

#endif
