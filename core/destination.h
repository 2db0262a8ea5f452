/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's side of one session. destination.c makes it and answers other threads;
 * destination_run.c leads it, destination_prepare.c through its first phases. */
#ifndef CORE_DESTINATION_H
#define CORE_DESTINATION_H

#include <stdatomic.h>

#include "core/carried.h"
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

	const struct carried_ops *carried; /* when another program's migration is carried */

	/* Set as the session gets on, undone in reverse order at its end. */
	struct message *offer_message; /* offer.machine points into it */
	struct offer offer;
	bool has_guest;
	struct ram ram;
	bool has_ram;
	const struct ramlift_transport *transport;
	struct endpoint *endpoint;
	struct registrar *registrar;
	_Atomic uint8_t *slices; /* by slice, one of the above */
	uint64_t lost_lanes;	 /* as bits */
	uint64_t pinned_bytes;	 /* of slices asked for, and not let go */
};

/* The next connection that is a source; whoever is not does not count. */
int destination_await_source(struct ramlift_destination *destination, struct ramlift_error *error);

/* From its OFFER to lanes that are connected. */
int destination_prepare(struct ramlift_destination *destination, struct ramlift_error *error);

#endif
