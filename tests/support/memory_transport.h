/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transport inside one process, for tests. Lane n holds back its last 16 * n writes until it is
 * drained, so that lanes run apart as they may on a real link: whoever sends one page on two lanes
 * sees the older content land last.
 */
#ifndef TESTS_MEMORY_TRANSPORT_H
#define TESTS_MEMORY_TRANSPORT_H

#include <stdbool.h>

#include "core/transport.h"

struct memory_faults {
	unsigned long fail_post; /* the Nth post fails with -EIO; 0: none does */
	unsigned long fail_register;
	unsigned long fail_connect;
	unsigned long fail_accept;
	bool lose_tokens;
	unsigned register_us; /* each registration takes so long */
};

/* Faults of the endpoints made from now on; NULL: none. */
void memory_transport_set_faults(const struct memory_faults *faults);

/* Writes that arrived after the fence, in all endpoints so far: anything but 0 is a defect. */
unsigned long memory_transport_late_writes(void);

/* Endpoints that are not closed. */
int memory_transport_open_endpoints(void);

const struct ramlift_transport *memory_transport(void);

#endif
