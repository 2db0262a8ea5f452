/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A picture of one QEMU by QMP: what it is, its guest's RAM blocks, and which mapping of its
 * process is which block. Refuses what Ramlift cannot carry, and names the option to change.
 */
#ifndef KVM_QEMU_INSPECT_H
#define KVM_QEMU_INSPECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/ramlift.h"
#include "kvm/qemu/memory.h"

struct qmp;

/* A RAM block with a shared backend: its pages go on the lanes. */
struct qemu_block {
	char name[256]; /* in the migration stream: the backend's id, "/objects/ID" or "DEVICE/ID"
			 */
	char id[128];	/* of the backend: -object memory-backend-...,id= */
	char type[64];	/* of the backend: "memory-backend-memfd" */
	uint64_t size_bytes;
	bool shared;		       /* always, after qemu_inspect() */
	struct memory_mapping mapping; /* of this block alone, from its first byte on */
};

struct qemu_guest {
	pid_t pid;
	char version[32];    /* "7.2.22" */
	unsigned numbers[3]; /* 7, 2, 22 */
	char name[128];	     /* -name; empty if it has none */
	char machine[64];    /* "pc-i440fx-7.2" */
	char arch[32];	     /* "x86_64" */
	char cpu[64];	     /* the CPU model's type: "qemu64-x86_64-cpu" */
	unsigned n_cpus;
	bool kvm;	 /* KVM runs it, not an emulator */
	char status[32]; /* query-status: "running", "paused", "inmigrate"... */
	bool running;
	/*
	 * There is a virtio-balloon. It must keep its size while a session lives: what it takes
	 * from the guest is discarded, and pinned memory must not be.
	 */
	bool balloon;
	bool free_page_hints; /* QEMU leaves free pages out: digests would differ */
	unsigned n_blocks;    /* at least 1 */
	struct qemu_block blocks[RAMLIFT_MAX_REGIONS]; /* by name */
};

/*
 * Look at a QEMU; nothing is changed. pid 0: qmp_pid(). The guest is the caller's, freed with
 * qemu_guest_free(). -EOPNOTSUPP: not fit to be moved, and error says which option of QEMU helps;
 * -EACCES: its memory may not be looked at; -ESRCH: pid is no QEMU; what qmp_call() returns.
 */
int qemu_inspect(struct qmp *qmp, pid_t pid, struct qemu_guest **guest,
		 struct ramlift_error *error);

/* NULL is fine. */
void qemu_guest_free(struct qemu_guest *guest);

/* The block of that name, or NULL. */
const struct qemu_block *qemu_guest_block(const struct qemu_guest *guest, const char *name);

#endif
