/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bind a guest's socket file. Between seeing that a file is stale and replacing it another process
 * could do the same, so the runtime directory is locked for that moment.
 */
#include "kvm/vmm/control_bind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/vmm/control_socket.h"
#include "kvm/vmm/runtime_dir.h"

int control_address(const char *name, struct sockaddr_un *address, struct ramlift_error *error)
{
	char directory[4096];
	int length, ret;

	ret = runtime_dir(directory, sizeof(directory), error);
	if (ret)
		return ret;
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%s.sock", directory,
			  name);
	if (length < 0 || (size_t)length >= sizeof(address->sun_path))
		return error_set(error, -ENAMETOOLONG,
				 "the path %.200s/%s.sock is too long for a socket; set "
				 "RAMLIFT_RUNTIME_DIR to a shorter directory",
				 directory, name);
	return 0;
}

/* The lock goes with the descriptor. */
static int lock_directory(const struct sockaddr_un *address)
{
	char directory[sizeof(address->sun_path)];
	int fd;

	memcpy(directory, address->sun_path, sizeof(directory));
	*strrchr(directory, '/') = '\0';
	fd = open(directory[0] ? directory : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX)) {
		if (errno == EINTR)
			continue;
		close(fd);
		return -errno;
	}
	return fd;
}

/* The process that serves the address, 0: nobody does, so the file is stale. */
static pid_t serving_process(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct ucred peer = { .pid = 0 };
	socklen_t bytes = sizeof(peer);
	bool stale;

	if (fd < 0)
		return -1;
	stale = connect(fd, (const struct sockaddr *)address, sizeof(*address)) &&
		(errno == ECONNREFUSED || errno == ENOENT);
	if (!stale && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes))
		peer.pid = -1;
	if (!stale && !peer.pid)
		peer.pid = -1;
	close(fd);
	return peer.pid;
}

static int bind_locked(struct control_binding *binding, const char *name,
		       struct ramlift_error *error)
{
	const struct sockaddr *address = (const struct sockaddr *)&binding->address;
	pid_t process;

	if (!bind(binding->fd, address, sizeof(binding->address)))
		return 0;
	if (errno != EADDRINUSE)
		return error_set(error, -errno, "cannot make the control socket %s: %s",
				 binding->address.sun_path, strerror(errno));
	process = serving_process(&binding->address);
	if (process > 0)
		return error_set(error, -EEXIST, "guest %s already runs in process %d", name,
				 (int)process);
	if (process < 0)
		return error_set(error, -EEXIST, "guest %s already runs in another process", name);
	if (unlink(binding->address.sun_path) && errno != ENOENT)
		return error_set(error, -errno, "cannot remove the stale control socket %s: %s",
				 binding->address.sun_path, strerror(errno));
	if (bind(binding->fd, address, sizeof(binding->address)))
		return error_set(error, -errno, "cannot make the control socket %s: %s",
				 binding->address.sun_path, strerror(errno));
	return 0;
}

static int listen_locked(struct control_binding *binding, struct ramlift_error *error)
{
	struct stat status;

	/* Until it listens, others take the file for stale; they wait for the lock. */
	if (listen(binding->fd, 32) || stat(binding->address.sun_path, &status))
		return error_set(error, -errno, "cannot listen on the control socket %s: %s",
				 binding->address.sun_path, strerror(errno));
	binding->device = status.st_dev;
	binding->inode = status.st_ino;
	return 0;
}

int control_bind(struct control_binding *binding, const char *name, struct ramlift_error *error)
{
	int lock_fd, ret;

	ret = control_address(name, &binding->address, error);
	if (ret)
		return ret;
	binding->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (binding->fd < 0)
		return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
	lock_fd = lock_directory(&binding->address);
	if (lock_fd < 0) {
		ret = error_set(error, lock_fd, "cannot lock the directory of %s: %s",
				binding->address.sun_path, strerror(-lock_fd));
		goto close_socket;
	}
	/* Before bind(): the file takes the socket's mode, whatever the umask leaves of it. */
	if (fchmod(binding->fd, 0600)) {
		ret = error_set(error, -errno, "cannot make the control socket private: %s",
				strerror(errno));
		goto unlock;
	}
	ret = bind_locked(binding, name, error);
	if (ret)
		goto unlock;
	ret = listen_locked(binding, error);
	close(lock_fd);
	if (ret)
		close(binding->fd);
	return ret;

unlock:
	close(lock_fd);
close_socket:
	close(binding->fd);
	return ret;
}

void control_unbind(struct control_binding *binding)
{
	int lock_fd = lock_directory(&binding->address);
	struct stat status;

	if (!stat(binding->address.sun_path, &status) && status.st_dev == binding->device &&
	    status.st_ino == binding->inode)
		unlink(binding->address.sun_path);
	close(binding->fd);
	if (lock_fd >= 0)
		close(lock_fd);
}
