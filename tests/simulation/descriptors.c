/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors of the simulated processes: event descriptors, poll(), and the way to disk.c and
 * network.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "calls.h"
#include "host.h"
#include "real.h"

int __wrap_eventfd(unsigned count, int flags);
ssize_t __wrap_read(int fd, void *data, size_t n);
ssize_t __wrap_write(int fd, const void *data, size_t n);
int __wrap_close(int fd);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event);
ssize_t __wrap_getrandom(void *buffer, size_t n, unsigned flags);

ssize_t __real_read(int fd, void *data, size_t n);
ssize_t __real_write(int fd, const void *data, size_t n);
int __real_close(int fd);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __real_eventfd(unsigned count, int flags);
int __real_fcntl(int fd, int command, ...);
ssize_t __real_getrandom(void *buffer, size_t n, unsigned flags);

void (*point_passed)(const char *point, struct process *process);

void pass_point(const char *point)
{
	if (point_passed)
		point_passed(point, world.current->process);
}

struct file *file_new(enum file_type type, int *fd)
{
	struct process *process = world.current->process;

	for (int i = 0; i < PROCESS_MAX_FDS; i++) {
		struct file *file;

		if (process->fds[i])
			continue;
		file = __real_calloc(1, sizeof(*file));
		if (!file)
			abort();
		file->type = type;
		process->fds[i] = file;
		*fd = FIRST_FD + i;
		return file;
	}
	errno = EMFILE;
	return NULL;
}

struct file *file_of(int fd)
{
	if (!world.current || fd < FIRST_FD || fd >= FIRST_FD + PROCESS_MAX_FDS)
		return NULL;
	return world.current->process->fds[fd - FIRST_FD];
}

static struct file *file_or_ebadf(int fd)
{
	struct file *file = file_of(fd);

	if (!file) {
		errno = EBADF;
		violated("descriptor %d is used, which is not open", fd);
	}
	return file;
}

static bool is_real(int fd)
{
	return !world.current || (fd >= 0 && fd < FIRST_FD);
}

static void close_file(struct file *file)
{
	if (file->type == FILE_SOCKET)
		socket_close(file->socket);
	else if (file->type == FILE_DISK)
		disk_close(file);
	__real_free(file);
}

void descriptors_close_all(struct process *process)
{
	for (unsigned i = 0; i < PROCESS_MAX_FDS; i++) {
		struct file *file = process->fds[i];

		process->fds[i] = NULL;
		if (file)
			close_file(file);
	}
}

unsigned descriptors_open(const struct process *process)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PROCESS_MAX_FDS; i++)
		n += process->fds[i] != NULL;
	return n;
}

void something_happened_to(struct process *process)
{
	task_wake(process);
}

static int fail(int number)
{
	errno = number;
	return -1;
}

int __wrap_eventfd(unsigned count, int flags)
{
	struct file *file;
	int fd, failure;

	if (!world.current)
		return __real_eventfd(count, flags);
	failure = call_fails("eventfd", EMFILE);
	if (failure)
		return fail(failure);
	file = file_new(FILE_EVENT, &fd);
	if (!file)
		return -1;
	file->count = count;
	file->nonblocking = flags & EFD_NONBLOCK;
	return fd;
}

static ssize_t event_read(struct file *file, void *data, size_t n)
{
	if (n < sizeof(file->count))
		return fail(EINVAL);
	while (!file->count) {
		if (file->nonblocking)
			return fail(EAGAIN);
		task_wait(world.current->process, NEVER_NS);
	}
	memcpy(data, &file->count, sizeof(file->count));
	file->count = 0;
	return sizeof(file->count);
}

static ssize_t event_write(struct file *file, const void *data, size_t n)
{
	uint64_t count;

	if (n != sizeof(count))
		return fail(EINVAL);
	memcpy(&count, data, sizeof(count));
	file->count += count;
	something_happened_to(world.current->process);
	return (ssize_t)n;
}

ssize_t __wrap_read(int fd, void *data, size_t n)
{
	struct file *file;

	if (is_real(fd))
		return __real_read(fd, data, n);
	task_point();
	file = file_or_ebadf(fd);
	if (file->type == FILE_EVENT)
		return event_read(file, data, n);
	return disk_read(file, data, n);
}

ssize_t __wrap_write(int fd, const void *data, size_t n)
{
	struct file *file;

	if (is_real(fd))
		return __real_write(fd, data, n);
	task_point();
	file = file_or_ebadf(fd);
	if (file->type == FILE_EVENT)
		return event_write(file, data, n);
	return disk_write(file, data, n);
}

int __wrap_close(int fd)
{
	struct file *file;

	if (is_real(fd))
		return __real_close(fd);
	file = file_or_ebadf(fd);
	world.current->process->fds[fd - FIRST_FD] = NULL;
	close_file(file);
	task_point();
	return 0;
}

static short events_of(const struct pollfd *pollfd);

/* Readable as long as one of those is that it watches. */
static short events_of_epoll(const struct file *file)
{
	for (unsigned i = 0; i < file->n_watched; i++) {
		struct pollfd watched = { .fd = file->watched[i] };

		if (file_of(watched.fd) && events_of(&watched) & (POLLIN | POLLERR | POLLHUP))
			return POLLIN;
	}
	return 0;
}

static short events_of(const struct pollfd *pollfd)
{
	struct file *file;

	if (pollfd->fd < 0)
		return 0;
	file = file_or_ebadf(pollfd->fd);
	if (file->type == FILE_EPOLL)
		return events_of_epoll(file);
	if (file->type == FILE_EVENT)
		return (short)((file->count ? POLLIN : 0) | POLLOUT);
	if (file->type == FILE_SOCKET)
		return socket_events(file->socket);
	return POLLIN | POLLOUT;
}

static int look(struct pollfd *fds, nfds_t n)
{
	int n_ready = 0;

	for (nfds_t i = 0; i < n; i++) {
		short always = POLLERR | POLLHUP;

		fds[i].revents = (short)(events_of(&fds[i]) & (fds[i].events | always));
		n_ready += fds[i].revents != 0;
	}
	return n_ready;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	uint64_t deadline_ns;
	int failure;

	if (!world.current)
		return __real_poll(fds, n, timeout_ms);
	failure = call_fails("poll", ENOMEM);
	if (failure)
		return fail(failure);
	task_point();
	deadline_ns = timeout_ms < 0 ? NEVER_NS : world.now_ns + (uint64_t)timeout_ms * 1000000;
	if (timeout_ms != 0 && one_in(200))
		return fail(EINTR);
	for (;;) {
		int n_ready = look(fds, n);

		if (n_ready || world.now_ns >= deadline_ns)
			return n_ready;
		task_wait(world.current->process, deadline_ns);
	}
}

int __wrap_epoll_create1(int flags)
{
	int fd, failure = call_fails("epoll_create1", EMFILE);

	(void)flags;
	if (failure)
		return fail(failure);
	return file_new(FILE_EPOLL, &fd) ? fd : -1;
}

int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
	struct file *file = file_or_ebadf(epoll_fd);
	unsigned i = 0;

	while (i < file->n_watched && file->watched[i] != fd)
		i++;
	if (operation == EPOLL_CTL_DEL) {
		if (i == file->n_watched)
			return fail(ENOENT);
		file->watched[i] = file->watched[--file->n_watched];
		return 0;
	}
	if (operation != EPOLL_CTL_ADD || event->events != EPOLLIN || i == EPOLL_MAX_FDS)
		violated("this use of epoll_ctl() is not simulated");
	i = (unsigned)call_fails("epoll_ctl", ENOMEM);
	if (i)
		return fail((int)i);
	file_or_ebadf(fd);
	file->watched[file->n_watched++] = fd;
	return 0;
}

int __wrap_fcntl(int fd, int command, ...)
{
	struct file *file;

	if (is_real(fd))
		return fail(ENOSYS);
	file = file_or_ebadf(fd);
	if (command == F_GETFL)
		return O_RDWR | (file->nonblocking ? O_NONBLOCK : 0);
	if (command == F_SETFL || command == F_SETFD)
		return 0;
	violated("fcntl(%d) is not simulated", command);
	return -1;
}

ssize_t __wrap_getrandom(void *buffer, size_t n, unsigned flags)
{
	uint8_t *bytes = buffer;
	int failure;

	if (!world.current)
		return __real_getrandom(buffer, n, flags);
	failure = call_fails("getrandom", ENOSYS);
	if (failure)
		return fail(failure);
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)random_number();
	return (ssize_t)n;
}
