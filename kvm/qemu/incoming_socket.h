/* SPDX-License-Identifier: Apache-2.0 */
/* A name for the unix socket at which a waiting QEMU is to listen: in a folder of its own that this
 * process and QEMU's user may enter, and nobody else. */
#ifndef KVM_QEMU_INCOMING_SOCKET_H
#define KVM_QEMU_INCOMING_SOCKET_H

#include <sys/types.h>
#include <sys/un.h>

struct ramlift_error;

struct incoming_socket {
	struct sockaddr_un address;
	char folder[64]; /* empty: there is none */
};

/* Make the folder for process pid to make its socket in. -EACCES: pid is another user's, and this
 * process is not root. */
int incoming_socket_init(struct incoming_socket *socket, pid_t pid, struct ramlift_error *error);

/* Remove both. Idempotent. */
void incoming_socket_fini(struct incoming_socket *socket);

#endif
