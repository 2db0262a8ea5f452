/* SPDX-License-Identifier: Apache-2.0 */
/* What the machines and the network between two processes take at least, for a downtime's floor:
 * medians of some tries. */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <stdint.h>

/* A byte there and back over a pair's connection; the other side answers at the same time. */
uint64_t floor_round_trip_ns(int fd);
void floor_answer_round_trips(int fd);

/* A line at the end of a file in the state folder, synced, as the journal of commits does it inside
 * the downtime. */
uint64_t floor_sync_ns(const char *state_dir);

#endif
