/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport of the simulation: lanes between two guests' memory, on which writes take time.
 * What the engine may not do is noticed at once: to post to a slice that is not registered on both
 * sides, or with the key of an earlier registration; to register twice; to deregister what is not
 * registered, or still being written; to write after the fence.
 */
#ifndef TESTS_SIMULATION_DATA_PATH_H
#define TESTS_SIMULATION_DATA_PATH_H

#include <stdbool.h>

#include "core/transport.h"
#include "scheduler.h"

void data_path_begin(void);
void data_path_end(void);

const struct ramlift_transport *data_path(void);

/* Kill a lane of the latest session, if there is one, at the source's end. */
void data_path_break_lane(void);

/* Endpoints that a process has open, and slices that it has registered. */
unsigned data_path_endpoints(const struct process *process);
unsigned data_path_registered(const struct process *process);

/* May a lane of this process's session still write its memory? */
bool data_path_fenced(const struct process *process);

/* The process is gone, and its devices with it. */
void data_path_forget(const struct process *process);

#endif
