/* SPDX-License-Identifier: Apache-2.0 */
/* Which process of this host holds the other end of a TCP connection. By /proc. */
#ifndef KVM_QEMU_SOCKET_OWNER_H
#define KVM_QEMU_SOCKET_OWNER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

struct ramlift_error;

/*
 * The process with the TCP socket of this local address and this peer; peer NULL: with the socket
 * that listens there, on that address or on all. For a connection that was accepted here, local is
 * what getpeername(2) says and peer what getsockname(2) says. Where several processes hold the
 * socket, one whose name begins with "qemu" is preferred, then the one with the highest number.
 *
 * -ENOENT: no such socket here (a connection from another host); -EACCES: there is one, but of a
 * process that may not be looked at; -EAFNOSUPPORT.
 */
int socket_owner(const struct sockaddr *local, const struct sockaddr *peer, pid_t *pid,
		 struct ramlift_error *error);

/* Does that process hold the socket? Looks at no other process, so it is quick. */
bool socket_is_of(pid_t pid, const struct sockaddr *local, const struct sockaddr *peer);

#endif
