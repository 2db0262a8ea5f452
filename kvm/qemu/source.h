/* SPDX-License-Identifier: Apache-2.0 */
/* A QEMU guest moves away: one session, led by Ramlift's engine, in which QEMU decides what is
 * sent.
 */
#ifndef KVM_QEMU_SOURCE_H
#define KVM_QEMU_SOURCE_H

#include <sys/types.h>

#include "core/ramlift.h"

struct qemu_source;

struct qemu_source_config {
	const char *qmp_path; /* the QMP socket of the guest's QEMU */
	pid_t pid;	      /* of that QEMU; 0: who made the socket */
	const char *name;     /* of the guest; NULL: as QEMU calls it */
	unsigned n_multifd;   /* QEMU's multifd connections to this process; 0: none */
	bool auto_converge;   /* QEMU slows a guest down that outruns the link */
	bool quit;	      /* end the QEMU here once the guest runs there */

	/* Where to, transports, lanes, limits, state_dir, progress; what concerns the guest itself
	 * is filled in here. */
	struct ramlift_source_config session;
};

/*
 * Look at the QEMU, map its memory, prepare a session. Nothing is changed yet. Strings are copied
 * or, in session, must outlive the source. What qemu_inspect() returns; -EBUSY: it is migrating;
 * -EINVAL; -ENOMEM.
 */
int qemu_source_new(const struct qemu_source_config *config, struct qemu_source **source,
		    struct ramlift_error *error);

/* As ramlift_source_run(): blocks, once. After a failure QEMU's settings are as before. */
int qemu_source_run(struct qemu_source *source, struct ramlift_error *error);

/* As ramlift_source_settle() and ramlift_source_leave(). A guest that is this side's again has been
 * taken back, and QEMU's settings with it. */
int qemu_source_settle(struct qemu_source *source, struct ramlift_error *error);
void qemu_source_leave(struct qemu_source *source);

void qemu_source_info(struct qemu_source *source, struct ramlift_session_info *info);

/* As ramlift_source_cancel() and ramlift_source_stats(). */
int qemu_source_cancel(struct qemu_source *source);
void qemu_source_stats(struct qemu_source *source, struct ramlift_stats *stats);

const char *qemu_source_name(const struct qemu_source *source);

/* The guest ran when the source was made; so it will there. */
bool qemu_source_ran(const struct qemu_source *source);

/* NULL is fine. */
void qemu_source_free(struct qemu_source *source);

#endif
