/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of the system and the C library that may fail. Each wrapper asks first; the failing-calls
 * test counts them and lets one fail, the simulation lets some fail by chance.
 */
#ifndef TESTS_SIMULATION_CALLS_H
#define TESTS_SIMULATION_CALLS_H

#include <stdbool.h>

/* 0, or the errno with which the call is to fail now. Decided by call_hook; NULL: none fails. */
int call_fails(const char *name, int plausible_errno);

extern int (*call_hook)(const char *name, int plausible_errno);

#endif
