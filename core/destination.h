/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's side of one session. destination.c makes it and answers other threads;
 * destination_run.c leads it, destination_prepare.c through its first phases. */
#ifndef CORE_DESTINATION_H
#define CORE_DESTINATION_H

#include <stdatomic.h>

#include "core/admission.h"
#include "core/carried.h"
#include "core/journal.h"
#include "core/ram.h"
#include "core/registrar.h"
#include "core/session.h"

/* What has become of a slice here. */
enum { SLICE_NOT_REGISTERED, SLICE_ASKED, SLICE_REGISTERED };

struct ramlift_destination {
	struct session session;
	struct ramlift_destination_config config;
	struct address local;
	int listen_fd;
	struct security *security;
	struct admission *admission;

	const struct carried_ops *carried; /* when another program's migration is carried */

	/* Set as the session gets on, undone in reverse order at its end. */
	struct message *offer_message; /* offer.machine points into it */
	struct offer offer;
	bool has_guest;
	struct ram ram;
	bool has_ram;
	const struct ramlift_transport *transport;
	struct endpoint *endpoint;
	int interrupt_fd; /* the endpoint's: an epoll instance */
	struct registrar *registrar;
	_Atomic uint8_t *slices; /* by slice, one of the above */
	uint64_t lost_lanes;	 /* as bits */
	uint64_t pinned_bytes;	 /* of slices asked for, and not let go */

	/* What the journal knows of the session. */
	char peer[sizeof(((struct address *)0)->text)];
	int lock_fd;		   /* of the guest, while the session lives; -1 */
	bool received;		   /* RECEIVE is there */
	uint64_t journal_ns;	   /* what that took */
	bool prepared;		   /* PREPARED was sent: COMMIT may be on its way */
	bool owes_discarded;	   /* the guest has gone, which could not be written yet */
	pthread_mutex_t owes_lock; /* of the above and, then, of the lock */
};

/*
 * Take the guest's lock; refuse a session that was here before; RECEIVE. -EBUSY: another session of
 * the guest lives here; -EEXIST: a replay.
 */
int destination_receive_begins(struct ramlift_destination *destination,
			       struct ramlift_error *error);

/* STARTED: from its return on the guest may run. */
int destination_will_start(struct ramlift_destination *destination, struct ramlift_error *error);

/*
 * The guest has gone, and never ran: DISCARDED. Where that cannot be written the lock stays, so
 * that everybody who asks has to ask again; destination_settle() tries once more, on any thread.
 */
int destination_discarded(struct ramlift_destination *destination, struct ramlift_error *error);
int destination_settle(struct ramlift_destination *destination, struct ramlift_error *error);

/* The session's last word is in the journal. */
void destination_let_go(struct ramlift_destination *destination);

/*
 * What became of a session, from the journal: as it is said, so it stays. A session that was not
 * started, and that nobody has the lock for, is given up first.
 */
int destination_answer(const char *state_dir, const struct ask *ask, enum answer_word *word,
		       struct ramlift_error *error);

/* From its OFFER to lanes that are connected. */
int destination_prepare(struct ramlift_destination *destination, struct ramlift_error *error);

#endif
