/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's half of a transparent pair of proxies: whoever manages QEMU (libvirt) lets it
 * migrate to a port here, and QEMU at the other end gets the same migration from
 * proxy_destination.h. The manager decides which side's guest runs, as it would without them.
 */
#ifndef KVM_QEMU_PROXY_SOURCE_H
#define KVM_QEMU_PROXY_SOURCE_H

#include <sys/types.h>

#include "core/ramlift.h"

struct proxy_source;

/*
 * Listen for a QEMU on loopback. session: where to, transports, lanes, state_dir, progress; what
 * concerns the guest is filled in for each migration. -EADDRINUSE, -ENOMEM...
 */
int proxy_source_new(uint16_t port, const struct ramlift_source_config *session,
		     struct proxy_source **proxy, struct ramlift_error *error);

uint16_t proxy_source_port(const struct proxy_source *proxy);

/*
 * Wait for a QEMU and carry its migration. 0: all of it was delivered. After a failure QEMU's
 * migration fails, too. May be called again.
 */
int proxy_source_run(struct proxy_source *proxy, struct ramlift_error *error);

/* Of the present or last migration: its QEMU's process, 0 before the first, its figures, and who
 * takes part. */
pid_t proxy_source_pid(const struct proxy_source *proxy);
void proxy_source_stats(struct proxy_source *proxy, struct ramlift_stats *stats);
void proxy_source_info(const struct proxy_source *proxy, struct ramlift_session_info *info);

/* End run() now and for ever. Any thread, signal handlers. */
void proxy_source_cancel(struct proxy_source *proxy);

/* NULL is fine. */
void proxy_source_free(struct proxy_source *proxy);

#endif
