/* SPDX-License-Identifier: Apache-2.0 */
/* How a migration goes, on standard error: one line that is rewritten on a terminal, one line a
 * second elsewhere. */
#ifndef KVM_VMM_PROGRESS_H
#define KVM_VMM_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

struct progress {
	bool enabled;
	bool terminal;
	bool drawn; /* an unfinished line is on the terminal */
	uint64_t next_ns;
};

/* quiet: nothing at all; terminal_only: nothing where standard error is none. */
void progress_start(struct progress *progress, bool quiet, bool terminal_only);

/* Show a progress event, if it is time. */
void progress_show(struct progress *progress, const json_t *event);

/* Take the line away, before anything else is printed. */
void progress_clear(struct progress *progress);

/* The line itself. */
void progress_format(char *line, size_t line_bytes, const json_t *event);

#endif
