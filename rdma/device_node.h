/* SPDX-License-Identifier: Apache-2.0 */
/* Where an RDMA device is among the host's NUMA nodes, and allocating there. */
#ifndef RDMA_DEVICE_NODE_H
#define RDMA_DEVICE_NODE_H

struct ibv_device;

/* More than any kernel has: MAX_NUMNODES is 1024 at most. */
#define MEMORY_POLICY_MAX_NODES 1024u
#define MEMORY_POLICY_WORD_BITS (8u * sizeof(unsigned long))
#define MEMORY_POLICY_WORDS	(MEMORY_POLICY_MAX_NODES / MEMORY_POLICY_WORD_BITS)

/* A thread's memory policy, to go back to. */
struct memory_policy {
	int mode; /* -1: nothing was changed */
	unsigned long nodes[MEMORY_POLICY_WORDS];
};

/*
 * The node that a device is on, or, where it has no place of its own, as soft-RoCE, the one that
 * its network interface is on. -1: unknown, or between nodes. 0 on a host with one node. The first
 * call on a host with several takes some 20 ms and more. Any thread.
 */
int device_node(const struct ibv_device *device);

/* This thread's new memory comes from that node, where there is room; -1: as before. Failures are
 * not worth a word: slower memory is still memory. */
void memory_policy_prefer(int node, struct memory_policy *before);
void memory_policy_restore(const struct memory_policy *before);

#endif
