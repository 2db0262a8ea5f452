/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMA devices, the host's addresses and a connection manager inside the test's process. They take
 * the place of libibverbs' and librdmacm's functions and behave like them: writes move bytes
 * between the two sides' memory, keys and bounds are checked, completions come in order and only
 * where asked for, queues are finite, a queue pair in the error state flushes.
 *
 * fake0 is at 10.0.0.1; fake1 at 10.1.0.1, 10.2.0.1 and fd00::1, and at addresses that nobody
 * should use; fake2 has no address. Both sides of a test are on this host.
 */
#ifndef TESTS_UNIT_RDMA_FAKE_H
#define TESTS_UNIT_RDMA_FAKE_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#define FAKE_MAX_DEVICES    3u
#define FAKE_ADDRESS	    "10.0.0.1"
#define FAKE_ADDRESS_1	    "10.1.0.1"
#define FAKE_ADDRESS_1_VLAN "10.2.0.1"

/* Forget injections and counters; there is fake0 alone. No object may be alive. */
void fake_reset(void);

/* There are this many devices, with all as they come. No object may be alive. */
void fake_plug(unsigned n_devices);

/* Objects that were made and not destroyed, unacknowledged events included. */
unsigned fake_live(void);

/* The nth call from now that can fail does so, once; 0: none. */
void fake_fail_call(unsigned nth);
bool fake_has_failed(void);

/* While held, completions stay inside the device. */
void fake_hold_completions(bool hold);

/* A completion shows only once it was looked for so often, or somebody wants to be told of it. */
void fake_late_completions(unsigned looks);

/* How often any completion queue was looked at and asked to tell, since fake_reset(). */
unsigned fake_looks(void);
unsigned fake_notifications(void);

/* Work requests that the fullest send queue holds. */
unsigned fake_fullest_queue(void);

/* The access flags of a device's registration that covers this address; -1: none does. */
int fake_access_on(unsigned device, const void *address);

/* The device reports an asynchronous event. */
void fake_async_event(unsigned device, enum ibv_event_type type, unsigned port);
/* The same, of a queue pair, which is left in the error state. */
void fake_queue_event(unsigned device, enum ibv_event_type type, struct ibv_qp *qp);

/* Limit of the send queues that the devices name. */
void fake_limit_queues(int max_qp_wr);

/* Devices that are plugged from now on find themselves below this folder. */
void fake_sysfs(const char *path);

void fake_port_down(unsigned device);
void fake_page_on_demand(unsigned device);

/* The NUMA node that the thread preferred that made the device's last
 * completion queue; -1: none. */
int fake_queue_node(unsigned device);

#endif
