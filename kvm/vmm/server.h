/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one guest in its VMM process: it is run or received here, answers requests on its
 * control socket, may migrate away, and ends. Owns the machine. `ramlift run` and `ramlift receive`
 * differ only in how the guest gets here.
 */
#ifndef KVM_VMM_SERVER_H
#define KVM_VMM_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/ramlift.h"
#include "kvm/vmm/machine.h"

struct server;

/*
 * Before any other thread exists: blocks SIGINT, SIGTERM and SIGHUP in the calling thread, for
 * server_wait() takes them.
 */
int server_new(struct server **server, struct ramlift_error *error);

/* Make the guest and let it run. -EEXIST: its name is taken by a live process. */
int server_run_guest(struct server *server, const char *name, const struct machine_config *config,
		     struct ramlift_error *error);

/* What kind of guest is waited for, and how. */
struct server_incoming {
	bool once;	       /* for one session only, whether it brings a guest or not */
	uint64_t memory_bytes; /* only a guest of that size; 0: any */
	struct machine_numa_map numa_map;
};

/*
 * Wait for a guest in a thread of its own, until one runs here. config names listen, transports and
 * rails, and outlives the server; the guest is filled in. The port of listen goes to port.
 */
int server_receive_guest(struct server *server, const struct ramlift_destination_config *config,
			 const struct server_incoming *incoming, uint16_t *port,
			 struct ramlift_error *error);

/*
 * Serve until the guest has moved away or is stopped, by a request or a signal; returns the exit
 * status. verbose: a line about the guest every few seconds.
 */
int server_wait(struct server *server, bool verbose);

/* End what still runs, free the machine, remove the control socket. NULL is fine. */
void server_free(struct server *server);

#endif
