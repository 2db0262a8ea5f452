/* SPDX-License-Identifier: Apache-2.0 */
/* A guest moves away: the request becomes a source, a thread runs it, its outcome is told. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/report_json.h"
#include "kvm/vmm/server_private.h"

#define PROGRESS_EVERY_NS (200 * NS_PER_MS)

static void migration_free(struct migration *migration)
{
	if (!migration)
		return;
	ramlift_source_free(migration->source);
	if (migration->interrupt_fd >= 0)
		close(migration->interrupt_fd);
	free(migration->description);
	free(migration->fence_command);
	free(migration->to);
	free(migration);
}

void server_join_migration(struct server *server)
{
	if (server->migration_joinable)
		pthread_join(server->migration_thread, NULL);
	server->migration_joinable = false;
}

int server_cancel_migration(struct server *server)
{
	if (server->migration->source)
		return ramlift_source_cancel(server->migration->source);
	server->migration->cancelled = true;
	return 0;
}

json_t *server_session(struct server *server)
{
	struct ramlift_stats stats = { .phase = RAMLIFT_PHASE_IDLE };
	json_t *session;

	if (server->state == SERVER_MIGRATING && server->migration->source)
		ramlift_source_stats(server->migration->source, &stats);
	else if (server->state == SERVER_INCOMING && server->destination)
		ramlift_destination_stats(server->destination, &stats);
	else if (server->state != SERVER_MIGRATING)
		return NULL;
	session = report_stats(&stats);
	if (server->state == SERVER_MIGRATING)
		json_object_set_new(session, "to", json_string(server->migration->to));
	return session;
}

/* On the migration thread, every tick. */
static void tell_progress(void *context, const struct ramlift_stats *stats)
{
	struct server *server = context;
	struct migration *migration = server->migration;
	uint64_t now_ns = clock_now_ns();
	json_t *event;

	/* How it ended is told by the result. */
	if (stats->phase == RAMLIFT_PHASE_IN_DOUBT)
		server_doubt_asked(server);
	if (stats->phase >= RAMLIFT_PHASE_DONE)
		return;
	if (now_ns < migration->next_progress_ns && stats->phase == migration->last_phase)
		return;
	migration->next_progress_ns = now_ns + PROGRESS_EVERY_NS;
	migration->last_phase = stats->phase;
	/* While the guest is paused, figures of 64 lanes would take
	 * longer than some of its parts. */
	event = stats->phase < RAMLIFT_PHASE_STOP_AND_COPY
			? report_stats(stats)
			: json_pack("{s:s}", "phase", ramlift_phase_name(stats->phase));
	json_object_set_new(event, "request", json_string("migrate"));
	json_object_set_new(event, "event", json_string("progress"));
	if (event)
		control_server_send_lossy(server->control, migration->client, event);
	json_decref(event);
}

static json_t *make_result(struct server *server, int ret, const struct ramlift_error *error)
{
	struct migration *migration = server->migration;
	struct ramlift_stats stats = { .phase = RAMLIFT_PHASE_FAILED };
	struct machine_report report;
	json_t *result;

	if (migration->source)
		ramlift_source_stats(migration->source, &stats);
	machine_report(server->machine, &report);
	result = report_stats(&stats);
	json_object_set_new(result, "event", json_string("result"));
	json_object_set_new(result, "direction", json_string("outgoing"));
	json_object_set_new(result, "outcome", json_string(report_outcome(ret)));
	json_object_set_new(result, "guest", json_string(server->place.name));
	json_object_set_new(result, "to", json_string(migration->to));
	json_object_set_new(result, "verify_requested", json_boolean(migration->config.verify));
	json_object_set_new(result, "guest_check", report_guest(&report));
	if (ret)
		json_object_set_new(result, "error", report_error(ret, error->text));
	return result;
}

/* Here and not where the request is handled, for it may wait for a name to be resolved. */
static int make_source(struct server *server, struct ramlift_error *error)
{
	struct migration *migration = server->migration;
	struct ramlift_source *source;
	int ret;

	ret = ramlift_source_new(&migration->config, &source, error);
	if (ret)
		return ret;
	pthread_mutex_lock(&server->lock);
	migration->source = source;
	if (migration->cancelled)
		ramlift_source_cancel(source);
	pthread_mutex_unlock(&server->lock);
	return 0;
}

static void tell_check(void *context, const char *check, const struct ramlift_error *failed)
{
	audit_check(&((struct server *)context)->audit, check, failed);
}

static void write_audit(struct server *server, int ret, const struct ramlift_error *error)
{
	struct migration *migration = server->migration;
	struct ramlift_stats stats = { .phase = RAMLIFT_PHASE_FAILED };
	struct audit_session session = {
		.guest = server->place.name,
		.peer = migration->to,
		.asked_by = &migration->asked_by,
		.stats = &stats,
		.ret = ret,
		.reason = ret ? error->text : "",
	};

	if (migration->source) {
		ramlift_source_stats(migration->source, &stats);
		ramlift_source_info(migration->source, &session.info);
	}
	audit_write_session(&server->audit, &session);
}

static enum server_state state_after(const struct server *server, int ret)
{
	if (!ret)
		return SERVER_MOVED;
	if (ret == -EINPROGRESS)
		return SERVER_IN_DOUBT;
	return server->stop_after ? SERVER_STOPPED : SERVER_RUNNING;
}

static void *migration_main(void *argument)
{
	struct server *server = argument;
	struct migration *migration = server->migration;
	struct ramlift_error error = { .text = "the migration failed" };
	json_t *result;
	int ret;

	ret = make_source(server, &error);
	if (!ret)
		ret = ramlift_source_run(migration->source, &error);
	if (ret) /* for this process's own log: who asked may be gone */
		fprintf(stderr, "ramlift: guest %s did not move to %s: %s\n", server->place.name,
			migration->to, format_clean(error.text));
	write_audit(server, ret, &error);
	result = make_result(server, ret, &error);
	if (ret == -EINPROGRESS)
		server_doubt_begin(server);
	pthread_mutex_lock(&server->lock);
	server->state = state_after(server, ret);
	server->n_signals = 0;
	if (ret != -EINPROGRESS) {
		server->stop_after = false;
		server->migration = NULL;
	}
	server_tell(server, result);
	pthread_mutex_unlock(&server->lock);
	if (ret == -EINPROGRESS)
		server_doubt_settle(server);
	/* Nothing below takes the lock: the next migrate request joins this thread under it. It is
	 * told before this, for freeing may take long. */
	migration_free(migration);
	server_wake(server);
	return NULL;
}

int server_migrate(struct server *server, uint64_t client, const json_t *request,
		   struct ramlift_error *error)
{
	struct migration *migration = calloc(1, sizeof(*migration));
	int ret;

	if (!migration)
		return error_set(error, -ENOMEM, "no memory for a migration");
	migration->interrupt_fd = -1;
	migration->client = client;
	control_server_who(server->control, client, &migration->asked_by);
	ret = migration_prepare(server, request, migration, error);
	if (ret)
		goto free_migration;
	migration->config.progress = tell_progress;
	migration->config.checked = tell_check;
	migration->config.fence = migration->fence_command ? server_fence : NULL;
	migration->config.progress_context = server;
	migration->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (migration->interrupt_fd < 0) {
		ret = error_set(error, -errno, "cannot make an eventfd: %s", strerror(errno));
		goto free_migration;
	}
	/* An earlier one has only its freeing left. */
	server_join_migration(server);
	server->migration = migration;
	server->n_signals = 0;
	snprintf(server->moved_to, sizeof(server->moved_to), "%s", migration->to);
	ret = -pthread_create(&server->migration_thread, NULL, migration_main, server);
	if (ret) {
		server->migration = NULL;
		error_set(error, ret, "cannot start a thread for the migration: %s",
			  strerror(-ret));
		goto free_migration;
	}
	server->migration_joinable = true;
	server->state = SERVER_MIGRATING;
	server_watch(server, client, "migrate");
	return 0;

free_migration:
	migration_free(migration);
	return ret;
}
