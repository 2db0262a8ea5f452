/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to the port of the TCP lanes that have not said who they are. They are waited for all
 * at once, so that one that is silent costs the session's lanes no time.
 */
#ifndef CORE_TCP_STRANGERS_H
#define CORE_TCP_STRANGERS_H

#include <stdint.h>

#define STRANGERS_MAX 128u /* twice as many as there can be lanes; more push out the oldest */

struct strangers {
	unsigned n;
	struct {
		int fd;
		uint64_t until_ns; /* it must have spoken by then */
	} waiting[STRANGERS_MAX];  /* in the order in which they came */
};

/*
 * The next connection of which so many bytes can be read, or which has ended; the caller's from
 * then on. Who has not sent as much within silent_ns is closed. -ETIMEDOUT: there is none by
 * deadline_ns; -ECANCELED: interrupt_fd became readable; -EAGAIN: one could not be taken.
 */
int strangers_next(struct strangers *strangers, int listen_fd, unsigned n_bytes, uint64_t silent_ns,
		   uint64_t deadline_ns, int interrupt_fd);

/* Close those that are left. */
void strangers_fini(struct strangers *strangers);

#endif
