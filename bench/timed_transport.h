/* SPDX-License-Identifier: Apache-2.0 */
/* A transport that notes when its first batch was posted, and otherwise is the one behind it. */
#ifndef BENCH_TIMED_TRANSPORT_H
#define BENCH_TIMED_TRANSPORT_H

#include <stdint.h>

struct ramlift_transport;

/* One at a time in a process. */
const struct ramlift_transport *timed_transport(const struct ramlift_transport *behind);

/* On CLOCK_MONOTONIC; 0: none was posted. */
uint64_t timed_transport_first_post_ns(void);

#endif
