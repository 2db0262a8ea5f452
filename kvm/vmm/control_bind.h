/* SPDX-License-Identifier: Apache-2.0 */
/* The socket file of a guest: who has it bound owns the guest's name on this host. */
#ifndef KVM_VMM_CONTROL_BIND_H
#define KVM_VMM_CONTROL_BIND_H

#include <sys/types.h>
#include <sys/un.h>

struct ramlift_error;

struct control_binding {
	int fd;
	struct sockaddr_un address;
	dev_t device; /* of the socket file, so that only our own is removed */
	ino_t inode;
};

/* Bind and listen; -EEXIST with the number of the process that serves the name already. */
int control_bind(struct control_binding *binding, const char *name, struct ramlift_error *error);
void control_unbind(struct control_binding *binding);

#endif
