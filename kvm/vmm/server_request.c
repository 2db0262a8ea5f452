/* SPDX-License-Identifier: Apache-2.0 */
/* Requests on the control socket: status, migrate, cancel, stop, resolve. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/vmm/report_json.h"
#include "kvm/vmm/report_read.h"
#include "kvm/vmm/server_private.h"

static const char *state_name(const struct server *server, bool runs)
{
	switch (server->state) {
	case SERVER_WAITING:
	case SERVER_INCOMING:
		return "incoming";
	case SERVER_RUNNING:
		return runs ? "running" : "paused";
	case SERVER_MIGRATING:
		return "migrating";
	case SERVER_IN_DOUBT:
		return "in-doubt";
	case SERVER_MOVED:
		return "moved";
	case SERVER_STOPPED:
		return "stopping";
	}
	return "unknown";
}

static json_t *new_reply(const struct server *server, const char *request, const char *event)
{
	return json_pack("{s:s, s:s, s:s}", "request", request, "event", event, "guest",
			 server->place.name);
}

static void send_reply(struct server *server, uint64_t client, json_t *reply)
{
	if (reply)
		control_server_send(server->control, client, reply);
	json_decref(reply);
}

static void refuse(struct server *server, uint64_t client, const char *request,
		   const struct ramlift_error *error)
{
	json_t *reply = new_reply(server, request, "refused");

	json_object_set_new(reply, "error", report_error(error->code, error->text));
	send_reply(server, client, reply);
}

static void add_machine(json_t *reply, const struct machine_config *config)
{
	json_t *nodes = json_array();

	json_object_set_new(reply, "memory_bytes", json_integer((json_int_t)config->memory_bytes));
	json_object_set_new(reply, "page_size_bytes",
			    json_integer((json_int_t)config->page_size_bytes));
	json_object_set_new(reply, "vcpus", json_integer(config->n_vcpus));
	json_object_set_new(reply, "dirty_mode",
			    json_string(config->dirty_mode == MACHINE_DIRTY_LOG ? "log" : "ring"));
	for (unsigned i = 0; i < config->n_numa_nodes; i++)
		json_array_append_new(nodes, json_integer(config->numa_nodes[i]));
	json_object_set_new(reply, "numa_nodes", nodes);
}

static int handle_status(struct server *server, uint64_t client, const json_t *request,
			 struct ramlift_error *error)
{
	json_t *reply = new_reply(server, "status", "result"), *session;
	struct machine_report report = { .running = false };

	(void)request;
	(void)error;
	json_object_set_new(reply, "pid", json_integer(getpid()));
	if (server->machine)
		add_machine(reply, machine_config(server->machine));
	if (server_has_report(server)) {
		machine_report(server->machine, &report);
		json_object_set_new(reply, "guest_check", report_guest(&report));
	}
	json_object_set_new(reply, "state", json_string(state_name(server, report.running)));
	session = server_session(server);
	if (session)
		json_object_set_new(reply, "migration", session);
	if (server->last_migration)
		json_object_set(reply, "last_migration", server->last_migration);
	server_doubt_report(server, reply);
	send_reply(server, client, reply);
	return 0;
}

static int handle_migrate(struct server *server, uint64_t client, const json_t *request,
			  struct ramlift_error *error)
{
	switch (server->state) {
	case SERVER_RUNNING:
		return server_migrate(server, client, request, error);
	case SERVER_MIGRATING:
		return error_set(error, -EBUSY,
				 "guest %s is already being migrated to %s; cancel that first: "
				 "'ramlift cancel %s'",
				 server->place.name, server->migration->to, server->place.name);
	case SERVER_IN_DOUBT:
		return error_set(
			error, -EBUSY,
			"guest %s is in doubt after its last migration; see 'ramlift status "
			"%s'",
			server->place.name, server->place.name);
	default:
		return error_set(error, -EBUSY, "guest %s does not run here; see 'ramlift status'",
				 server->place.name);
	}
}

static int handle_cancel(struct server *server, uint64_t client, const json_t *request,
			 struct ramlift_error *error)
{
	int ret = -ENOENT;

	(void)request;
	if (server->state == SERVER_MIGRATING)
		ret = server_cancel_migration(server);
	else if (server->state == SERVER_INCOMING && server->destination)
		ret = server_cancel_incoming(server);
	if (ret == -EALREADY)
		return error_set(error, ret,
				 "too late to cancel: guest %s is being handed over to the "
				 "destination",
				 server->place.name);
	if (ret)
		return error_set(error, ret, "guest %s is not being migrated", server->place.name);
	server_watch(server, client, "cancel");
	return 0;
}

static int handle_stop(struct server *server, uint64_t client, const json_t *request,
		       struct ramlift_error *error)
{
	(void)request;
	if (server->state == SERVER_MIGRATING || server->state == SERVER_INCOMING)
		return error_set(
			error, -EBUSY,
			"guest %s is being migrated; cancel that first: 'ramlift cancel %s'",
			server->place.name, server->place.name);
	if (server->state == SERVER_IN_DOUBT)
		return error_set(error, -EBUSY,
				 "guest %s is in doubt; to give it up here: 'ramlift resolve %s "
				 "--destination'",
				 server->place.name, server->place.name);
	/* WAITING: `run` still makes the guest. */
	if (server->state == SERVER_RUNNING || server->state == SERVER_WAITING)
		server->state = SERVER_STOPPED;
	/* Until the guest has gone the connection stays open. */
	control_server_hold(server->control, client);
	send_reply(server, client, new_reply(server, "stop", "result"));
	server_wake(server);
	return 0;
}

static int handle_resolve(struct server *server, uint64_t client, const json_t *request,
			  struct ramlift_error *error)
{
	const char *word = read_text(request, "owner");
	enum ramlift_owner owner;

	if (!strcmp(word, "source"))
		owner = RAMLIFT_OWNER_SOURCE;
	else if (!strcmp(word, "destination"))
		owner = RAMLIFT_OWNER_DESTINATION;
	else
		return error_set(error, -EINVAL, "the owner must be source or destination");
	if (server->state == SERVER_IN_DOUBT)
		return server_doubt_resolve(server, client, owner, error);
	if (server->state == SERVER_RUNNING)
		return server_doubt_clear(server, client, owner, error);
	return error_set(error, -EINVAL, "guest %s is not in doubt, there is nothing to resolve",
			 server->place.name);
}

static const struct {
	const char *name;
	int (*handle)(struct server *server, uint64_t client, const json_t *request,
		      struct ramlift_error *error);
} handlers[] = {
	{ "status", handle_status }, { "migrate", handle_migrate }, { "cancel", handle_cancel },
	{ "stop", handle_stop },     { "resolve", handle_resolve },
};

void server_request(void *context, uint64_t client, const json_t *request)
{
	const char *name = read_text(request, "request");
	struct server *server = context;
	struct ramlift_error error = { .code = 0 };
	int ret = -ENOSYS;

	pthread_mutex_lock(&server->lock);
	for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
		if (strcmp(name, handlers[i].name))
			continue;
		name = handlers[i].name;
		ret = handlers[i].handle(server, client, request, &error);
		break;
	}
	if (ret == -ENOSYS && !error.code) {
		error_set(&error, ret, "this process does not know that request");
		name = "unknown";
	}
	if (ret)
		refuse(server, client, name, &error);
	pthread_mutex_unlock(&server->lock);
}

void server_watch(struct server *server, uint64_t client, const char *request)
{
	for (unsigned i = 0; i < server->n_watchers; i++) {
		if (server->watchers[i].client == client)
			return;
	}
	/* The oldest may have gone long ago: clients come and go while a session runs. */
	if (server->n_watchers == CONTROL_MAX_CLIENTS) {
		memmove(server->watchers, server->watchers + 1,
			(CONTROL_MAX_CLIENTS - 1) * sizeof(server->watchers[0]));
		server->n_watchers--;
	}
	server->watchers[server->n_watchers++] = (struct watcher){ client, request };
	control_server_hold(server->control, client);
}

void server_tell(struct server *server, json_t *result)
{
	for (unsigned i = 0; i < server->n_watchers; i++) {
		json_object_set_new(result, "request", json_string(server->watchers[i].request));
		control_server_send(server->control, server->watchers[i].client, result);
	}
	server->n_watchers = 0;
	json_object_del(result, "request");
	json_object_del(result, "event");
	json_decref(server->last_migration);
	server->last_migration = result;
}
