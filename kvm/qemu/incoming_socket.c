/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/incoming_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

int incoming_socket_init(struct incoming_socket *incoming, pid_t pid, struct ramlift_error *error)
{
	char process[32];
	struct stat owner;
	int ret;

	memset(incoming, 0, sizeof(*incoming));
	snprintf(process, sizeof(process), "/proc/%d", (int)pid);
	if (stat(process, &owner))
		return error_set(error, -ESRCH, "QEMU has ended: process %d is gone", (int)pid);
	snprintf(incoming->folder, sizeof(incoming->folder), "/tmp/ramlift-qemu-XXXXXX");
	if (!mkdtemp(incoming->folder)) {
		ret = -errno;
		incoming->folder[0] = '\0';
		return error_set(error, ret, "cannot make a folder in /tmp: %s", strerror(-ret));
	}
	if (owner.st_uid != geteuid() && chown(incoming->folder, owner.st_uid, owner.st_gid)) {
		ret = -errno;
		incoming_socket_fini(incoming);
		return error_set(
			error, ret,
			"QEMU is another user's process: run this as root or as that user");
	}
	incoming->address.sun_family = AF_UNIX;
	snprintf(incoming->address.sun_path, sizeof(incoming->address.sun_path), "%s/incoming",
		 incoming->folder);
	return 0;
}

void incoming_socket_fini(struct incoming_socket *incoming)
{
	if (!incoming->folder[0])
		return;
	unlink(incoming->address.sun_path);
	rmdir(incoming->folder);
	incoming->folder[0] = '\0';
}
