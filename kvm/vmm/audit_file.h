/* SPDX-License-Identifier: Apache-2.0 */
/* Where audit records are kept: a file that processes share and that does not grow for ever, and
 * systemd's journal. Knows nothing of what is in a record. */
#ifndef KVM_VMM_AUDIT_FILE_H
#define KVM_VMM_AUDIT_FILE_H

#include <stddef.h>

#include <jansson.h>

#define AUDIT_FILE "audit.jsonl"

/*
 * Append one line with one write, mode 0600. A file that would grow beyond max_bytes is renamed to
 * audit.jsonl.1 first. 0 or -errno.
 */
int audit_file_append(const char *directory, const json_t *record, size_t max_bytes);

/* Where systemd runs, else nothing. */
void audit_journal_send(const json_t *record);

#endif
