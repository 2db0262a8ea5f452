/* SPDX-License-Identifier: Apache-2.0 */
/* The fence command; see the header. */
#include "kvm/vmm/fence_command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"

#define N_OWN 4

/* Our environment and what is known of the guest. */
struct environment {
	char own[N_OWN][400];
	char **list; /* from malloc(); points to own and to our environment */
};

static bool is_own(const char *variable)
{
	static const char *const names[N_OWN] = { "RAMLIFT_GUEST=", "RAMLIFT_SESSION=",
						  "RAMLIFT_GENERATION=", "RAMLIFT_DESTINATION=" };

	for (unsigned i = 0; i < N_OWN; i++) {
		if (!strncmp(variable, names[i], strlen(names[i])))
			return true;
	}
	return false;
}

static bool make_environment(struct environment *environment, const struct ramlift_doubt *doubt)
{
	size_t n = 0, n_ours = 0;

	while (environ[n_ours])
		n_ours++;
	environment->list = calloc(N_OWN + n_ours + 1, sizeof(environment->list[0]));
	if (!environment->list)
		return false;
	snprintf(environment->own[0], sizeof(environment->own[0]), "RAMLIFT_GUEST=%s",
		 doubt->guest);
	snprintf(environment->own[1], sizeof(environment->own[1]), "RAMLIFT_SESSION=%s",
		 doubt->session);
	snprintf(environment->own[2], sizeof(environment->own[2]), "RAMLIFT_GENERATION=%u",
		 doubt->generation);
	snprintf(environment->own[3], sizeof(environment->own[3]), "RAMLIFT_DESTINATION=%s",
		 doubt->peer);
	for (; n < N_OWN; n++)
		environment->list[n] = environment->own[n];
	for (size_t i = 0; i < n_ours; i++) {
		if (!is_own(environ[i]))
			environment->list[n++] = environ[i];
	}
	return true;
}

/* A process group of its own, with signals as a shell expects them. */
static int start(const char *command, char *const *environment, pid_t *pid)
{
	char *const argv[] = { (char[]){ "sh" }, (char[]){ "-c" }, (char *)command, NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int ret;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
	posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	ret = -posix_spawn(pid, "/bin/sh", &files, &attributes, argv, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	return ret;
}

/* Until it has ended; false: it has to be ended. */
static bool wait_for_end(pid_t pid, uint64_t deadline_ns, int interrupt_fd)
{
	struct pollfd fds[] = {
		{ .fd = pidfd_open(pid, 0), .events = POLLIN },
		{ .fd = interrupt_fd, .events = POLLIN },
	};
	bool ended = false;

	if (fds[0].fd < 0)
		return false;
	while (!ended && !fds[1].revents && clock_now_ns() < deadline_ns) {
		poll(fds, 2, clock_left_ms(deadline_ns));
		ended = fds[0].revents != 0;
	}
	close(fds[0].fd);
	return ended;
}

static enum ramlift_owner owner_of(int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == FENCE_DONE)
		return RAMLIFT_OWNER_SOURCE;
	if (WIFEXITED(status) && WEXITSTATUS(status) == FENCE_DESTINATION)
		return RAMLIFT_OWNER_DESTINATION;
	if (WIFEXITED(status))
		fprintf(stderr, "ramlift: the fence command does not know: exit status %d\n",
			WEXITSTATUS(status));
	else
		fprintf(stderr, "ramlift: the fence command was ended by signal %d\n",
			WTERMSIG(status));
	return RAMLIFT_OWNER_UNKNOWN;
}

enum ramlift_owner fence_command_run(const char *command, const struct ramlift_doubt *doubt,
				     uint64_t timeout_ns, int interrupt_fd)
{
	struct environment environment;
	int ret = -ENOMEM, status = 0;
	bool ended;
	pid_t pid;

	if (make_environment(&environment, doubt))
		ret = start(command, environment.list, &pid);
	free(environment.list);
	if (ret) {
		fprintf(stderr, "ramlift: cannot run the fence command: %s\n", strerror(-ret));
		return RAMLIFT_OWNER_UNKNOWN;
	}
	ended = wait_for_end(pid, clock_now_ns() + timeout_ns, interrupt_fd);
	if (!ended)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (ended)
		return owner_of(status);
	fprintf(stderr, "ramlift: the fence command was ended before it had an answer\n");
	return RAMLIFT_OWNER_UNKNOWN;
}
