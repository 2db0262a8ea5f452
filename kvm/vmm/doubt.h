/* SPDX-License-Identifier: Apache-2.0 */
/* A guest in doubt, as the commands show it: from its process, or from its journal where that has
 * died. */
#ifndef KVM_VMM_DOUBT_H
#define KVM_VMM_DOUBT_H

#include <stdbool.h>

#include <jansson.h>

#include "core/ramlift.h"

/* What the journal of this user's state directory says. 0: it is in doubt; -ENOENT: it is not; else
 * the journal cannot be read. */
int doubt_find(const char *guest, struct ramlift_doubt *doubt, struct ramlift_error *error);

/* {"to": ..., "session": ..., "generation": 1, "since": "2026-01-31
 * 12:00:00 UTC", "since_s": ...} */
json_t *doubt_json(const struct ramlift_doubt *doubt);

/* "2026-01-31 12:00:00 UTC" */
#define DOUBT_TIME_BYTES 32
const char *doubt_time(char text[DOUBT_TIME_BYTES], int64_t time_s);

/* The commands that resolve it, and what each implies. alive: its
 * process holds the paused guest. */
#define DOUBT_HINT_BYTES 2048
void doubt_hint(char text[DOUBT_HINT_BYTES], const struct ramlift_doubt *doubt, bool alive);

/* For commands that want the guest, or its name: sets error and returns -EBUSY. */
int doubt_refuse(const struct ramlift_doubt *doubt, struct ramlift_error *error);

#endif
