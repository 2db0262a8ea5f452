/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process may still do once it talks to the network. Both calls are for the time before
 * other threads exist: Linux keeps these rights for each thread.
 */
#ifndef KVM_VMM_PRIVILEGES_H
#define KVM_VMM_PRIVILEGES_H

#include <stdbool.h>

struct ramlift_error;

/*
 * Become user (NULL: stay who we are), with his groups and HOME, and give up every capability but
 * CAP_IPC_LOCK, to pin memory beyond the limit, and, with keep_low_ports, CAP_NET_BIND_SERVICE;
 * those only if we have them. Nothing that is executed later gets any (PR_SET_NO_NEW_PRIVS). Device
 * files are opened later, by the rights of the user: as root that goes on, for they are root's.
 * -ENOENT: no such user; -EPERM: only root can become somebody else.
 */
int privileges_drop(const char *user, bool keep_low_ports, struct ramlift_error *error);

/* From now on a core dump of this process, which has keys in its memory, is not written. */
void privileges_forbid_dumps(void);

#endif
