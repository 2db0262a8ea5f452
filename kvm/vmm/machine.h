/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference VMM's machine: guest RAM on a memfd, vCPUs with a thread each, and the test guest
 * that stamps and verifies its pages. Knows nothing of sessions, sockets or the command line; it
 * meets the engine by machine_guest_ops and machine_dirty_source().
 */
#ifndef KVM_VMM_MACHINE_H
#define KVM_VMM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/ramlift.h"

#define MACHINE_MAX_VCPUS	16u
#define MACHINE_MAX_NODES	16u  /* that RAM is split over */
#define MACHINE_NUMA_NODE_LIMIT 1024 /* numbers of nodes are below, as in Linux */

enum machine_dirty_mode { MACHINE_DIRTY_RING, MACHINE_DIRTY_LOG };

enum workload_pattern { WORKLOAD_UNIFORM, WORKLOAD_SEQUENTIAL, WORKLOAD_SKEWED };

/* What the test guest does, all vCPUs together. */
struct workload {
	uint64_t hot_bytes; /* the set that it keeps writing; 0: idle after its first stamping of
			       all pages */
	uint64_t pages_per_second; /* 0: as fast as it can */
	enum workload_pattern pattern;
	unsigned fill_percent; /* of RAM that is stamped, 1 to 100; half of the rest is written with
				  zeros, the other half never touched. 0: the default, 75 */
};

struct machine_config {
	uint64_t memory_bytes;	  /* a multiple of page_size_bytes, at least 16 MiB */
	uint64_t page_size_bytes; /* host page size of guest RAM: 4 KiB, 2 MiB, 1 GiB */
	unsigned n_vcpus;
	enum machine_dirty_mode dirty_mode;
	unsigned dirty_ring_entries; /* per vCPU, a power of two, at most 65,536 */
	struct workload workload;
	/* RAM is split over so many NUMA nodes in equal parts, with an order and repeats as given;
	 * -1: wherever it comes from. None: not split. */
	unsigned n_numa_nodes;
	int numa_nodes[MACHINE_MAX_NODES];
};

/* Which node of this host takes the place of which one at the source. */
struct machine_numa_map {
	unsigned n;
	int from[MACHINE_MAX_NODES], to[MACHINE_MAX_NODES];
};

/* -EINVAL and a sentence: it leads to a node that this host does not have. */
int machine_numa_map_check(const struct machine_numa_map *map, struct ramlift_error *error);

struct machine;

/* What the guest says in its report pages, all vCPUs together. Counters go on after a migration. */
struct machine_report {
	uint64_t pages_written;	 /* stamps written since the guest's first start */
	uint64_t pages_verified; /* stamps found right */
	uint64_t sweeps;	 /* times that every vCPU has verified all of its pages */
	uint64_t failures; /* lost or stale pages found, and vCPUs that died; anything but 0 is
			      a defect */
	char first_failure[160]; /* words for the first one, or "" */
	bool running;
};

/* Defaults: 256 MiB on 4 KiB pages, one vCPU, dirty rings of 4,096 entries, 16 MiB written at 1,000
 * pages/s. */
void machine_config_init(struct machine_config *config);

/* How much of its memory the test guest stamps, and so can write to: what hot_bytes can be. */
uint64_t machine_stamped_bytes(const struct machine_config *config);

/* Make a machine, paused, with the test guest loaded and ready to start. Errors: one sentence with
 * what to do. vCPU threads are kicked by the signal SIGRTMIN + 4, whose handler this installs. */
int machine_new(const struct machine_config *config, struct machine **machine,
		struct ramlift_error *error);
int machine_resume(struct machine *machine, struct ramlift_error *error);
int machine_pause(struct machine *machine, struct ramlift_error *error);

/* Any thread. */
void machine_report(struct machine *machine, struct machine_report *report);
const struct machine_config *machine_config(const struct machine *machine);

/* Guest RAM as the engine wants it; valid as long as the machine. */
const struct ramlift_region *machine_regions(const struct machine *machine, unsigned *n_regions);

/* The machine's description for the destination's create(), from malloc(). */
int machine_describe(const struct machine *machine, void **description, size_t *description_bytes,
		     struct ramlift_error *error);

/* The dirty source that the machine was made with. */
const struct ramlift_dirty_source_ops *machine_dirty_source(struct machine *machine, void **source);

/* Stop the vCPUs and free all. NULL is fine. */
void machine_free(struct machine *machine);

/* The place of a guest in a VMM process: what machine_guest_ops takes as `guest`. */
struct machine_place {
	struct machine *machine;	  /* NULL at a destination until create() */
	char name[RAMLIFT_MAX_NAME];	  /* its owner's: machine_guest_ops only reads it */
	struct machine_numa_map numa_map; /* for create() */
};

extern const struct ramlift_guest_ops machine_guest_ops;

#endif
