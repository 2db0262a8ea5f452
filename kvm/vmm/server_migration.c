/* SPDX-License-Identifier: Apache-2.0 */
/* A guest moves away: the request becomes a source, a thread runs it, its outcome is told. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/report_json.h"
#include "kvm/vmm/runtime_dir.h"
#include "kvm/vmm/server_private.h"

#define PROGRESS_EVERY_NS (200 * NS_PER_MS)

static void migration_free(struct migration *migration)
{
	if (!migration)
		return;
	ramlift_source_free(migration->source);
	free(migration->description);
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
	if (stats->phase >= RAMLIFT_PHASE_DONE)
		return;
	if (now_ns < migration->next_progress_ns && stats->phase == migration->last_phase)
		return;
	migration->next_progress_ns = now_ns + PROGRESS_EVERY_NS;
	migration->last_phase = stats->phase;
	/* While the guest is paused, figures of 64 lanes would take longer than some of its parts.
	 */
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
	result = make_result(server, ret, &error);
	pthread_mutex_lock(&server->lock);
	if (!ret)
		server->state = SERVER_MOVED;
	else if (ret == -EINPROGRESS)
		server->state = SERVER_IN_DOUBT;
	else
		server->state = server->stop_after ? SERVER_STOPPED : SERVER_RUNNING;
	server->stop_after = false;
	server->n_signals = 0;
	server->migration = NULL;
	server_tell(server, result);
	pthread_mutex_unlock(&server->lock);
	/* Nothing below takes the lock: the next migrate request joins this thread under it. It is
	 * told before this, for freeing may take long. */
	migration_free(migration);
	server_wake(server);
	return NULL;
}

/* A number of the request: absent leaves the default, out of bounds is refused. */
static int take_number(const json_t *request, const char *key, uint64_t minimum, uint64_t maximum,
		       uint64_t *number, struct ramlift_error *error)
{
	const json_t *value = json_object_get(request, key);
	json_int_t integer = json_integer_value(value);

	if (!value)
		return 0;
	if (!json_is_integer(value) || integer < 0 || (uint64_t)integer < minimum ||
	    (uint64_t)integer > maximum)
		return error_set(error, -EINVAL, "%s must be a number from %llu to %llu", key,
				 (unsigned long long)minimum, (unsigned long long)maximum);
	*number = (uint64_t)integer;
	return 0;
}

/* A word of the request, NULL where it is absent. */
static int take_text(const json_t *request, const char *key, const char **text,
		     struct ramlift_error *error)
{
	const json_t *value = json_object_get(request, key);

	if (value && !json_is_string(value))
		return error_set(error, -EINVAL, "%s must be a string", key);
	*text = json_string_value(value);
	return 0;
}

/* false where it is absent. */
static int take_flag(const json_t *request, const char *key, bool *flag,
		     struct ramlift_error *error)
{
	const json_t *value = json_object_get(request, key);

	if (value && !json_is_boolean(value))
		return error_set(error, -EINVAL, "%s must be true or false", key);
	*flag = json_is_true(value);
	return 0;
}

/* Which devices, and what they may pin. */
static int take_rails(const json_t *request, struct migration *migration,
		      struct ramlift_error *error)
{
	struct ramlift_source_config *config = &migration->config;
	const char *rails = NULL, *pin = NULL;
	int ret;

	ret = take_text(request, "rails", &rails, error);
	if (!ret && rails)
		ret = option_rails(rails, &migration->rails, error);
	if (!ret)
		ret = take_text(request, "pin", &pin, error);
	if (!ret && pin)
		ret = option_pin(pin, &config->pin, &config->pin_budget_bytes, error);
	if (!ret)
		ret = take_flag(request, "on_demand_paging", &config->on_demand_paging, error);
	config->rails = migration->rails.list;
	config->n_rails = migration->rails.n;
	return ret;
}

static int take_choices(const json_t *request, struct migration *migration,
			struct ramlift_error *error)
{
	struct ramlift_source_config *config = &migration->config;
	enum option_transport choice = TRANSPORT_AUTO;
	const char *divergence = NULL, *transport = NULL;
	int ret;

	ret = take_text(request, "transport", &transport, error);
	if (!ret && transport)
		ret = option_transport(transport, &choice, error);
	if (!ret)
		ret = take_text(request, "on_divergence", &divergence, error);
	if (!ret && divergence)
		ret = option_divergence(divergence, &config->on_divergence, error);
	if (!ret)
		ret = take_flag(request, "verify", &config->verify, error);
	if (ret)
		return ret;
	config->transports = migration->transports;
	config->n_transports = option_transport_list(choice, migration->transports);
	return 0;
}

static int take_address(const json_t *request, struct migration *migration,
			struct ramlift_error *error)
{
	const char *to = NULL;
	int ret;

	ret = take_text(request, "to", &to, error);
	if (!ret)
		ret = option_address("--to", to ? to : "", false, error);
	if (ret)
		return ret;
	migration->to = strdup(to);
	if (!migration->to)
		return error_set(error, -ENOMEM, "no memory for a migration");
	migration->config.to = migration->to;
	return 0;
}

static int take_numbers(const json_t *request, struct ramlift_source_config *config,
			struct ramlift_error *error)
{
	uint64_t lanes = config->lanes_per_rail;
	int ret;

	ret = take_number(request, "lanes_per_rail", 1, RAMLIFT_MAX_LANES, &lanes, error);
	if (!ret)
		ret = take_number(request, "max_downtime_ns", 1, 3600 * NS_PER_S,
				  &config->max_downtime_ns, error);
	if (!ret)
		ret = take_number(request, "timeout_ns", 1, 366ull * 86400 * NS_PER_S,
				  &config->max_total_ns, error);
	if (!ret)
		ret = take_number(request, "bandwidth_bytes_per_s", 1, OPTION_MAX_RATE_BYTES,
				  &config->bandwidth_bytes_per_s, error);
	config->lanes_per_rail = (unsigned)lanes;
	return ret;
}

static int fill_in_guest(struct server *server, struct migration *migration,
			 struct ramlift_error *error)
{
	struct ramlift_source_config *config = &migration->config;
	int ret;

	ret = machine_describe(server->machine, &migration->description, &config->machine_bytes,
			       error);
	if (ret)
		return ret;
	ret = state_dir(migration->state_dir, sizeof(migration->state_dir), error);
	if (ret)
		return ret;
	config->guest_name = server->place.name;
	config->guest_ops = &machine_guest_ops;
	config->guest = &server->place;
	config->dirty_source_ops = machine_dirty_source(server->machine, &config->dirty_source);
	config->regions = machine_regions(server->machine, &config->n_regions);
	config->machine = migration->description;
	config->state_dir = migration->state_dir;
	config->progress = tell_progress;
	config->progress_context = server;
	return 0;
}

static int prepare(struct server *server, const json_t *request, struct migration *migration,
		   struct ramlift_error *error)
{
	int ret;

	ramlift_source_config_init(&migration->config);
	ret = take_address(request, migration, error);
	if (!ret)
		ret = take_choices(request, migration, error);
	if (!ret)
		ret = take_rails(request, migration, error);
	if (!ret)
		ret = take_numbers(request, &migration->config, error);
	if (!ret)
		ret = fill_in_guest(server, migration, error);
	return ret;
}

int server_migrate(struct server *server, uint64_t client, const json_t *request,
		   struct ramlift_error *error)
{
	struct migration *migration = calloc(1, sizeof(*migration));
	int ret;

	if (!migration)
		return error_set(error, -ENOMEM, "no memory for a migration");
	migration->client = client;
	ret = prepare(server, request, migration, error);
	if (ret)
		goto free_migration;
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
