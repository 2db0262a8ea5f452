/* SPDX-License-Identifier: Apache-2.0 */
/* A QEMU that waits with -incoming defer gets a guest from another host. */
#ifndef KVM_QEMU_DESTINATION_H
#define KVM_QEMU_DESTINATION_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/ramlift.h"

struct qemu_destination;

struct qemu_destination_config {
	const char *qmp_path; /* the QMP socket of the QEMU that waits */
	pid_t pid;	      /* of that QEMU; 0: who made the socket */

	/* Where to listen, transports, progress; the guest is filled in here. */
	struct ramlift_destination_config session;
};

/*
 * Look at the QEMU, map its memory, listen. What qemu_inspect() returns; -EBUSY: it does not wait
 * for a guest.
 */
int qemu_destination_new(const struct qemu_destination_config *config,
			 struct qemu_destination **destination, struct ramlift_error *error);

uint16_t qemu_destination_port(const struct qemu_destination *destination);

/*
 * Take one guest. As ramlift_destination_run(): blocks. 0: the guest is here, and runs if it ran
 * before.
 */
int qemu_destination_run(struct qemu_destination *destination, struct ramlift_error *error);

/* After a failure: the QEMU has been given a part of a guest, and was ended. Else it waits on, and
 * run() may be called again. */
bool qemu_destination_spent(const struct qemu_destination *destination);

/* Of the present or last session. */
void qemu_destination_info(struct qemu_destination *destination, struct ramlift_session_info *info);
void qemu_destination_stats(struct qemu_destination *destination, struct ramlift_stats *stats);

int qemu_destination_cancel(struct qemu_destination *destination);

/* The name that the source gave the guest; empty before there was one. */
const char *qemu_destination_guest(const struct qemu_destination *destination);

/* NULL is fine. */
void qemu_destination_free(struct qemu_destination *destination);

#endif
