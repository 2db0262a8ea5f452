/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named points of a session at which tests let a process die, stand still, or lose a lane. They
 * exist in builds with -DRAMLIFT_FAULT_POINTS only, where the environment says what happens:
 *
 *   RAMLIFT_FAULT=POINT:ACTION[:N]  kill (SIGKILL), stop (SIGSTOP), or what the point itself offers
 *
 * It happens once in the life of a process: when the point is passed for the Nth time (1).
 */
#ifndef CORE_FAULT_POINT_H
#define CORE_FAULT_POINT_H

#include <stdbool.h>

#ifdef RAMLIFT_FAULT_POINTS
/* Passing the point. True: it is to fail in its own way, which the environment names `action`. */
bool fault_point_reached(const char *point, const char *action);
#define FAULT_POINT(point)	   ((void)fault_point_reached((point), ""))
#define FAULT_ASKED(point, action) fault_point_reached((point), (action))
#else
#define FAULT_POINT(point)	   ((void)0)
#define FAULT_ASKED(point, action) false
#endif

#endif
