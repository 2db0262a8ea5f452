/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An RDMA device and a connection manager inside the test's process. They take the place of
 * libibverbs' and librdmacm's functions and behave like them: writes move bytes between the two
 * sides' memory, keys and bounds are checked, completions come in order and only where asked for,
 * queues are finite, a queue pair in the error state flushes. One device, at 10.0.0.1.
 */
#ifndef TESTS_UNIT_RDMA_FAKE_H
#define TESTS_UNIT_RDMA_FAKE_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#define FAKE_ADDRESS "10.0.0.1"

/* Forget injections and counters. No object may be alive. */
void fake_reset(void);

/* Objects that were made and not destroyed, unacknowledged events included. */
unsigned fake_live(void);

/* The nth call from now that can fail does so, once; 0: none. */
void fake_fail_call(unsigned nth);
bool fake_has_failed(void);

/* While held, completions stay inside the device. */
void fake_hold_completions(bool hold);

/* Work requests that the fullest send queue holds. */
unsigned fake_fullest_queue(void);

/* The access flags of the registration that covers this address; -1: none does. */
int fake_access_of(const void *address);

/* The device reports an asynchronous event. */
void fake_async_event(enum ibv_event_type type, unsigned port);

/* Limit of the send queues that the device names. */
void fake_limit_queues(int max_qp_wr);

#endif
