/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a guest's process: start, wait, signals, end. */
#include "kvm/vmm/server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/doubt.h"
#include "kvm/vmm/runtime_dir.h"
#include "kvm/vmm/server_private.h"

#define REPORT_EVERY_NS (5 * NS_PER_S)

void server_wake(struct server *server)
{
	uint64_t one = 1;

	while (write(server->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void tell_stranger(void *context, const struct ucred *who)
{
	struct server *server = context;
	char from[64];

	snprintf(from, sizeof(from), "user %u, process %d of this host", (unsigned)who->uid,
		 (int)who->pid);
	audit_write_refused(&server->audit, from,
			    "the control socket is for this process's user and root");
}

int server_open_control(struct server *server, struct ramlift_error *error)
{
	const struct control_config config = {
		.name = server->place.name,
		.request = server_request,
		.turned_away = tell_stranger,
		.context = server,
	};
	int ret;

	/* Requests that come at once wait for the lock, and find control set. */
	pthread_mutex_lock(&server->lock);
	ret = control_server_open(&config, &server->control, error);
	pthread_mutex_unlock(&server->lock);
	return ret;
}

void server_close_control(struct server *server)
{
	control_server_close(server->control);
	server->control = NULL;
}

int server_new(struct server **result, struct ramlift_error *error)
{
	struct server *server = calloc(1, sizeof(*server));
	sigset_t signals;
	int ret;

	if (!server)
		return error_set(error, -ENOMEM, "no memory for a guest's process");
	ret = state_dir(server->state_dir, sizeof(server->state_dir), error);
	if (ret)
		goto free_server;
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	server->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (server->signal_fd < 0) {
		ret = error_set(error, -errno, "cannot watch for signals: %s", strerror(errno));
		goto free_server;
	}
	server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->wake_fd < 0) {
		ret = error_set(error, -errno, "cannot make an eventfd: %s", strerror(errno));
		goto close_signals;
	}
	pthread_mutex_init(&server->lock, NULL);
	audit_init(&server->audit, server->state_dir);
	*result = server;
	return 0;

close_signals:
	close(server->signal_fd);
free_server:
	free(server);
	return ret;
}

static int check_doubt(const struct server *server, struct ramlift_error *error)
{
	struct ramlift_doubt doubt;
	int ret = ramlift_doubt_read(server->state_dir, server->place.name, &doubt, error);

	if (!ret)
		return doubt_refuse(&doubt, error);
	return ret == -ENOENT ? 0 : ret;
}

int server_run_guest(struct server *server, const char *name, const struct machine_config *config,
		     struct ramlift_error *error)
{
	int ret;

	snprintf(server->place.name, sizeof(server->place.name), "%s", name);
	/* The name first: it is cheaper to lose than gigabytes of memory. */
	ret = server_open_control(server, error);
	if (!ret) /* now that no other process can have it: it may run elsewhere */
		ret = check_doubt(server, error);
	if (ret)
		return ret;
	ret = machine_new(config, &server->place.machine, error);
	if (ret)
		return ret;
	pthread_mutex_lock(&server->lock);
	server->machine = server->place.machine;
	/* A wish to end is not taken back. */
	if (server->state != SERVER_STOPPED) {
		ret = machine_resume(server->machine, error);
		server->state = SERVER_RUNNING;
	}
	pthread_mutex_unlock(&server->lock);
	return ret;
}

/* A guest's self-check has failed: say so once, at once. */
static void check_guest(struct server *server, bool verbose)
{
	struct machine_report report = { .failures = 0 };
	bool present;

	pthread_mutex_lock(&server->lock);
	present = server_has_report(server);
	if (present)
		machine_report(server->machine, &report);
	pthread_mutex_unlock(&server->lock);
	if (report.failures && !server->failure_told) {
		fprintf(stderr, "ramlift: guest %s has found its memory wrong: %s\n",
			server->place.name, report.first_failure);
		server->failure_told = true;
	}
	if (verbose && present)
		printf("guest %s: %llu pages written, %llu verified in %llu sweeps, %llu failures"
		       "%s\n",
		       server->place.name, (unsigned long long)report.pages_written,
		       (unsigned long long)report.pages_verified, (unsigned long long)report.sweeps,
		       (unsigned long long)report.failures, report.running ? "" : ", paused");
}

static bool is_committed(struct server *server)
{
	struct ramlift_stats stats = { .phase = RAMLIFT_PHASE_IDLE };

	if (server->state == SERVER_MIGRATING && server->migration->source)
		ramlift_source_stats(server->migration->source, &stats);
	return stats.phase == RAMLIFT_PHASE_COMMITTED;
}

/* The first signal during a session asks it to end, the second the process with it. */
static void signal_session(struct server *server)
{
	bool outgoing = server->state == SERVER_MIGRATING;
	int ret = -EALREADY;

	if (server->n_signals > 2) {
		fprintf(stderr, "ramlift: stopped in the middle of a migration\n");
		_exit(is_committed(server) ? COMMAND_IN_DOUBT : COMMAND_FAILED);
	}
	if (server->n_signals == 2) {
		server->stop_after = true;
		fprintf(stderr, "ramlift: stopping once the migration has ended\n");
		return;
	}
	if (outgoing)
		ret = server_cancel_migration(server);
	else if (!outgoing && server->destination)
		ret = server_cancel_incoming(server);
	fprintf(stderr, "ramlift: %s; interrupt again to stop\n",
		ret ? "too late to cancel, the guest is being handed over"
		    : "cancelling the migration");
}

static void signal_in_doubt(struct server *server)
{
	if (server->n_signals > 1 && server->migration) {
		server_doubt_leave(server);
		return;
	}
	fprintf(stderr,
		"ramlift: guest %s is in doubt, it may or may not run at %s; first see there, then "
		"'ramlift resolve %s'; interrupt again to give it up here\n",
		server->place.name, server->moved_to, server->place.name);
}

static void take_signal(struct server *server)
{
	struct signalfd_siginfo info;

	if (read(server->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	pthread_mutex_lock(&server->lock);
	server->n_signals++;
	switch (server->state) {
	case SERVER_INCOMING:
	case SERVER_MIGRATING:
		signal_session(server);
		break;
	case SERVER_IN_DOUBT:
		signal_in_doubt(server);
		break;
	case SERVER_WAITING:
	case SERVER_RUNNING:
		server->state = SERVER_STOPPED;
		break;
	case SERVER_MOVED:
	case SERVER_STOPPED:
		break;
	}
	pthread_mutex_unlock(&server->lock);
}

static bool is_over(struct server *server)
{
	bool over;

	pthread_mutex_lock(&server->lock);
	over = server->state == SERVER_MOVED || server->state == SERVER_STOPPED;
	pthread_mutex_unlock(&server->lock);
	return over;
}

static int say_end(struct server *server)
{
	bool moved = server->state == SERVER_MOVED;

	check_guest(server, false);
	if (server->incoming_failed)
		return COMMAND_FAILED;
	if (moved)
		printf("guest %s runs at %s now\n", server->place.name, server->moved_to);
	else if (server->place.name[0] && !server->given_up)
		printf("guest %s is stopped\n", server->place.name);
	if (server->given_up) {
		fprintf(stderr,
			"ramlift: guest %s is given up here while it may or may not run at %s; the "
			"journal keeps that, see 'ramlift status %s'\n",
			server->place.name, server->moved_to, server->place.name);
		return COMMAND_IN_DOUBT;
	}
	return server->failure_told ? COMMAND_FAILED : COMMAND_DONE;
}

int server_wait(struct server *server, bool verbose)
{
	struct pollfd fds[] = {
		{ .fd = server->wake_fd, .events = POLLIN },
		{ .fd = server->signal_fd, .events = POLLIN },
	};
	uint64_t report_ns = clock_now_ns() + REPORT_EVERY_NS;
	uint64_t count;

	while (!is_over(server)) {
		bool report = verbose && clock_now_ns() >= report_ns;

		if (report)
			report_ns = clock_now_ns() + REPORT_EVERY_NS;
		check_guest(server, report);
		poll(fds, 2, 500);
		if (fds[0].revents && read(server->wake_fd, &count, sizeof(count)) < 0)
			continue;
		if (fds[1].revents)
			take_signal(server);
	}
	return say_end(server);
}

static void end_sessions(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	server->stop_after = true;
	if (server->state == SERVER_MIGRATING)
		server_cancel_migration(server);
	if (server->state == SERVER_IN_DOUBT && server->migration)
		server_doubt_leave(server);
	if (server->destination)
		ramlift_destination_cancel(server->destination);
	pthread_mutex_unlock(&server->lock);
	server_join_migration(server);
	if (server->incoming_joinable)
		pthread_join(server->incoming_thread, NULL);
}

void server_free(struct server *server)
{
	if (!server)
		return;
	end_sessions(server);
	ramlift_destination_free(server->destination);
	pthread_mutex_lock(&server->lock);
	server->destination = NULL;
	server->machine = NULL;
	pthread_mutex_unlock(&server->lock);
	/* The name last: who asked for the end sees it by the end of the connection. */
	machine_free(server->place.machine);
	server_close_control(server);
	json_decref(server->last_migration);
	audit_fini(&server->audit);
	pthread_mutex_destroy(&server->lock);
	close(server->wake_fd);
	close(server->signal_fd);
	free(server);
}
