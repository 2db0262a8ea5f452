/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Ramlift tells a QEMU by QMP: how to migrate, to begin, to stop. And what it hears: where the
 * migration is. Only the session's thread.
 */
#ifndef KVM_QEMU_CONTROL_H
#define KVM_QEMU_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "kvm/qemu/qmp.h"

/* The source's settings. */
struct control_settings {
	unsigned n_multifd; /* 0: no multifd */
	uint64_t max_downtime_ns;
	uint64_t bandwidth_bytes_per_s; /* 0: as fast as the lanes */
	bool auto_converge;		/* slow a guest down that outruns the link */
};

/* What is known of the source's migration. */
struct control_progress {
	bool guest_stopped;
	uint64_t stopped_ns; /* when, on the clock of core/clock.h */
	bool completed;	     /* the destination's QEMU has loaded everything: this one lets go */
	uint64_t remaining_bytes;
	uint64_t dirty_bytes_per_s;
	uint64_t iterations;
};

/*
 * Set capabilities and parameters for a migration over Ramlift. *before: what control_restore()
 * needs; the caller's reference. -EOPNOTSUPP: this QEMU lacks one that is needed, or encrypts its
 * stream; -EREMOTEIO: QEMU refused, in its own words.
 */
int control_set_source(struct qmp *qmp, const struct control_settings *settings, json_t **before,
		       struct ramlift_error *error);
int control_set_destination(struct qmp *qmp, unsigned n_multifd, struct ramlift_error *error);

/* Put back what was changed; as far as QEMU still listens. Takes over the reference. */
void control_restore(struct qmp *qmp, json_t *before);

/* Begin to migrate to a port on loopback; returns at once. */
int control_migrate(struct qmp *qmp, uint16_t port, struct ramlift_error *error);

/* Let the destination's QEMU listen at a unix socket, and not run its guest by itself. */
int control_incoming(struct qmp *qmp, const char *path, struct ramlift_error *error);

/* Take the events that have come in. -EREMOTEIO: the migration failed, and why; -ECANCELED:
 * somebody cancelled it; -ECONNRESET: QEMU is gone. */
int control_follow(struct qmp *qmp, struct control_progress *progress, struct ramlift_error *error);

/*
 * Ask for the figures, which come in with a later control_follow(). Does not wait: while QEMU
 * writes its last pages it answers nobody, and it may be waiting for this side to read them.
 * -EAGAIN: the last answer is still to come.
 */
int control_ask(struct qmp *qmp, struct ramlift_error *error);

/* Let QEMU stop its guest once it expects no more downtime than that. Does not wait. -EAGAIN: ask
 * again later. */
int control_set_downtime(struct qmp *qmp, uint64_t downtime_ns, struct ramlift_error *error);

/* The figures now, once QEMU's connections have broken. The errors of control_follow(). */
int control_query(struct qmp *qmp, struct control_progress *progress, struct ramlift_error *error);

/*
 * End the migration, wait until QEMU has, and let the guest run again if it ran before. Whatever
 * state QEMU is in.
 */
int control_take_back(struct qmp *qmp, bool was_running, struct ramlift_error *error);

/*
 * The destination: run the guest once all of it is loaded. -EINPROGRESS: QEMU was told to, and
 * nobody knows whether it does; after any other failure it has not run, and will not.
 */
int control_run(struct qmp *qmp, struct ramlift_error *error);

#endif
