/* SPDX-License-Identifier: Apache-2.0 */
/* Filling in a struct ramlift_error: one sentence for the user, written where the failure is
 * understood. */
#ifndef CORE_ERROR_H
#define CORE_ERROR_H

struct ramlift_error;

/*
 * Set code (a negative errno) and sentence and return code, so that callers can `return
 * error_set(...)`. error may be NULL. The sentence says what failed and what to do; it has no
 * newline.
 */
int error_set(struct ramlift_error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
