/* SPDX-License-Identifier: Apache-2.0 */
/* Telling the end of a migration: the same words, figures and exit status for every command that
 * moves a guest. */
#ifndef KVM_VMM_OUTCOME_H
#define KVM_VMM_OUTCOME_H

#include <stdbool.h>

#include <jansson.h>

/*
 * Print the result on standard output, as a table or as one JSON object, and its error, if it has
 * one, on standard error as "ramlift COMMAND: sentence". Returns the exit status.
 */
int outcome_tell(const json_t *result, const char *command, bool json);

#endif
