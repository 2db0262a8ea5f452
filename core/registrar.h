/* SPDX-License-Identifier: Apache-2.0 */
/* Registers slices of guest RAM in parallel threads, in the order in which they were asked for,
 * while the lanes already run. Both sides have one. */
#ifndef CORE_REGISTRAR_H
#define CORE_REGISTRAR_H

#include "core/transport.h"

struct registrar;

struct registrar_config {
	const struct ramlift_transport *transport;
	struct endpoint *endpoint;
	unsigned n_slices;
	unsigned n_threads;
	/* One slice is about to be registered. As ready; may be NULL. */
	int (*before)(void *context, unsigned slice, struct ramlift_error *error);
	/* One slice is registered. On one of the registrar's threads; what it returns but 0 ends
	 * the registration. */
	int (*ready)(void *context, unsigned slice, const struct slice_key *key,
		     struct ramlift_error *error);
	void *context;
};

/* -ENOMEM, -EAGAIN. */
int registrar_start(const struct registrar_config *config, struct registrar **registrar,
		    struct ramlift_error *error);

/* Ask for a slice, for the lanes of these rails, by a thread on that NUMA node (-1: any); not again
 * before it is ready. Any thread; returns at once. */
void registrar_request(struct registrar *registrar, unsigned slice, unsigned rails, int numa_node);

/* 0 as long as nothing has failed. Any thread. */
int registrar_check(struct registrar *registrar, struct ramlift_error *error);

/* Stop after the slices in progress, and free. Deregisters nothing. NULL is fine. */
void registrar_free(struct registrar *registrar);

#endif
