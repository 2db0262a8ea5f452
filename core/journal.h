/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a source has promised, on disk: COMMIT is written and synced before it is sent (rule 7), so
 * that whoever looks after a crash can know that the guest may run elsewhere. One small text file a
 * guest, one line an event. Nothing reads it back yet.
 */
#ifndef CORE_JOURNAL_H
#define CORE_JOURNAL_H

#include <stdint.h>

#include "core/transport.h"

struct journal_entry {
	const char *event; /* "BEGIN", "COMMIT", "STARTED", "REFUSED" */
	const uint8_t *session_id;
	uint32_t generation;
	const char *peer;
};

/* Append to <state_dir>/<guest>.journal and sync file and folder. -errno with a sentence. */
int journal_append(const char *state_dir, const char *guest, const struct journal_entry *entry,
		   struct ramlift_error *error);

#endif
