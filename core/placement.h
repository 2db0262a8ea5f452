/* SPDX-License-Identifier: Apache-2.0 */
/* Threads on NUMA nodes, by libnuma. On a host with one node, or without NUMA, nothing happens. */
#ifndef CORE_PLACEMENT_H
#define CORE_PLACEMENT_H

/*
 * Let the calling thread run on a node's CPUs only; its memory comes from there then, as the
 * kernel does it by default. A node that is not there, or -1, changes nothing: a lane in the wrong
 * place is slow, not wrong.
 */
void placement_bind_thread(int node);

/* The node on whose CPU the calling thread runs now; -1 unknown. */
int placement_here(void);

#endif
