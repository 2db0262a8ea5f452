/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of qemu_inspect(). */
#ifndef KVM_QEMU_INSPECT_PRIVATE_H
#define KVM_QEMU_INSPECT_PRIVATE_H

#include "kvm/qemu/inspect.h"

/* A block while its mapping is being looked for. */
struct inspect_block {
	char region[160];    /* QEMU's memory region: "ID" or "/objects/ID" */
	char file[PATH_MAX]; /* the backend's mem-path, which may be a folder; else empty */
	uint64_t hva;	     /* 0: QEMU did not say */
};

struct inspection {
	struct qmp *qmp;
	struct qemu_guest *guest;
	struct inspect_block blocks[RAMLIFT_MAX_REGIONS];
};

/* Which backends are RAM blocks of the guest: fills in guest->blocks but for their mappings. */
int inspect_backends(struct inspection *inspection, struct ramlift_error *error);

/* Where in the process they are. */
int inspect_mappings(struct inspection *inspection, struct ramlift_error *error);

/* What the devices stand in the way of. */
int inspect_devices(struct inspection *inspection, struct ramlift_error *error);

#endif
