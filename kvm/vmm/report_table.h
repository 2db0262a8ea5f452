/* SPDX-License-Identifier: Apache-2.0 */
/* What `ramlift migrate` and `ramlift status` print, made from the JSON of report_json.h. Fields
 * that are missing or of another type read as 0 or are left out. */
#ifndef KVM_VMM_REPORT_TABLE_H
#define KVM_VMM_REPORT_TABLE_H

#include <stdio.h>

#include <jansson.h>

/* The end of a migration: the "result" of a migrate request. */
void report_table_migration(FILE *out, const json_t *result);

/* One guest in detail: the answer to a status request. */
void report_table_guest(FILE *out, const json_t *status);

/* All guests, a line each: an array of such answers. */
void report_table_guests(FILE *out, const json_t *statuses);

#endif
