/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The figures of a session and of a guest as JSON, with the unit in every name. This is what goes
 * over the control socket and what --json prints. All return a new reference, NULL without memory.
 */
#ifndef KVM_VMM_REPORT_JSON_H
#define KVM_VMM_REPORT_JSON_H

#include <jansson.h>

#include "core/ramlift.h"
#include "kvm/vmm/machine.h"

/* "done", "cancelled", "in-doubt" or "failed", by what ramlift_source_run() returned. */
const char *report_outcome(int ret);

/* The exit status of `ramlift migrate` for an outcome. */
int report_outcome_status(const char *outcome);

json_t *report_stats(const struct ramlift_stats *stats);
json_t *report_guest(const struct machine_report *report);

/* {"code": -111, "name": "ECONNREFUSED", "message": "..."} */
json_t *report_error(int code, const char *message);

#endif
