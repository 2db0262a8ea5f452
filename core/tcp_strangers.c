/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tcp_strangers.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"

/* What poll() calls readable: so many bytes, or the end. */
static void set_least_bytes(int fd, unsigned n_bytes)
{
	int n = (int)n_bytes;

	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &n, sizeof(n)); /* or it is heard with patience */
}

static int take_out(struct strangers *strangers, unsigned index)
{
	int fd = strangers->waiting[index].fd;

	strangers->n--;
	memmove(&strangers->waiting[index], &strangers->waiting[index + 1],
		(strangers->n - index) * sizeof(strangers->waiting[0]));
	return fd;
}

static int let_in(struct strangers *strangers, int listen_fd, unsigned n_bytes, uint64_t silent_ns)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) /* it went away again, or the port was closed */
		return -EAGAIN;
	if (strangers->n == STRANGERS_MAX)
		close(take_out(strangers, 0));
	set_least_bytes(fd, n_bytes);
	strangers->waiting[strangers->n].fd = fd;
	strangers->waiting[strangers->n].until_ns = clock_now_ns() + silent_ns;
	strangers->n++;
	return 0;
}

static void close_silent(struct strangers *strangers)
{
	while (strangers->n && clock_now_ns() >= strangers->waiting[0].until_ns)
		close(take_out(strangers, 0));
}

int strangers_next(struct strangers *strangers, int listen_fd, unsigned n_bytes, uint64_t silent_ns,
		   uint64_t deadline_ns, int interrupt_fd)
{
	for (;;) {
		struct pollfd fds[STRANGERS_MAX + 2] = {
			{ .fd = interrupt_fd, .events = POLLIN },
			{ .fd = listen_fd, .events = POLLIN },
		};
		uint64_t until_ns = deadline_ns;

		close_silent(strangers);
		for (unsigned i = 0; i < strangers->n; i++)
			fds[i + 2] =
				(struct pollfd){ .fd = strangers->waiting[i].fd, .events = POLLIN };
		if (strangers->n && strangers->waiting[0].until_ns < until_ns)
			until_ns = strangers->waiting[0].until_ns;
		if (poll(fds, strangers->n + 2, clock_left_ms(until_ns)) < 0 && errno != EINTR)
			return -errno;
		if (fds[0].revents)
			return -ECANCELED;
		for (unsigned i = 0; i < strangers->n; i++) {
			if (!fds[i + 2].revents)
				continue;
			set_least_bytes(fds[i + 2].fd, 1);
			return take_out(strangers, i);
		}
		if (fds[1].revents && let_in(strangers, listen_fd, n_bytes, silent_ns))
			return -EAGAIN;
		if (clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
	}
}

void strangers_fini(struct strangers *strangers)
{
	while (strangers->n)
		close(take_out(strangers, strangers->n - 1));
}
