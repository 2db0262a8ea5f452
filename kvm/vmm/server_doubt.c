/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration without an answer. Its thread finds out whose the guest is, by the destination's
 * word, the fence command's or an operator's; requests are served meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/doubt.h"
#include "kvm/vmm/fence_command.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/report_json.h"
#include "kvm/vmm/server_private.h"

#define AGAIN_NS NS_PER_S /* after a journal that could not be written */

static const char *owner_name(enum ramlift_owner owner)
{
	return owner == RAMLIFT_OWNER_SOURCE ? "source" : "destination";
}

void server_doubt_begin(struct server *server)
{
	struct migration *migration = server->migration;
	struct ramlift_session_info info;
	struct ramlift_error error;

	if (!ramlift_doubt_read(server->state_dir, server->place.name, &migration->doubt, &error))
		return;
	/* It has been written, but cannot be read now. */
	ramlift_source_info(migration->source, &info);
	migration->doubt =
		(struct ramlift_doubt){ .generation = info.generation, .time_s = time(NULL) };
	strcpy(migration->doubt.guest, server->place.name);
	strcpy(migration->doubt.session, info.session);
	snprintf(migration->doubt.peer, sizeof(migration->doubt.peer), "%s", migration->to);
}

void server_doubt_asked(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	/* Before that, the session has only just got there. */
	if (server->state == SERVER_IN_DOUBT)
		server->migration->asked_s = time(NULL);
	pthread_mutex_unlock(&server->lock);
}

/* On the migration thread, again and again. */
enum ramlift_owner server_fence(void *context, const struct ramlift_doubt *doubt)
{
	struct server *server = context;
	struct migration *migration = server->migration;
	enum ramlift_owner owner;

	owner = fence_command_run(migration->fence_command, doubt, FENCE_COMMAND_NS,
				  migration->interrupt_fd);
	pthread_mutex_lock(&server->lock);
	migration->fence_said = owner;
	pthread_mutex_unlock(&server->lock);
	return owner;
}

/* Whose word it was. asked_by: the operator, if it was his. */
static const char *resolved_by(struct server *server, enum ramlift_owner owner,
			       struct ucred *asked_by)
{
	const struct migration *migration = server->migration;
	const char *by = "destination";

	pthread_mutex_lock(&server->lock);
	if (migration->operator_said == owner)
		by = "operator";
	else if (migration->fence_said == owner)
		by = "fence";
	*asked_by = migration->operator;
	pthread_mutex_unlock(&server->lock);
	return by;
}

/* Tell all who wait for it. The lock is held. */
static void tell_watchers(struct server *server, json_t *message)
{
	json_object_set_new(message, "request", json_string("resolve"));
	json_object_set_new(message, "guest", json_string(server->place.name));
	for (unsigned i = 0; i < server->n_watchers; i++)
		control_server_send(server->control, server->watchers[i].client, message);
	server->n_watchers = 0;
	json_decref(message);
}

static void tell_trouble(struct server *server, int ret, const struct ramlift_error *error)
{
	fprintf(stderr, "ramlift: guest %s stays in doubt: %s\n", server->place.name, error->text);
	pthread_mutex_lock(&server->lock);
	tell_watchers(server, json_pack("{s:s, s:o}", "event", "refused", "error",
					report_error(ret, error->text)));
	pthread_mutex_unlock(&server->lock);
}

static bool is_final(int ret)
{
	return !ret || ret == -EREMOTEIO || ret == -ECANCELED;
}

static void conclude(struct server *server, enum ramlift_owner owner)
{
	bool source = owner == RAMLIFT_OWNER_SOURCE;
	struct ucred asked_by;
	const char *by = resolved_by(server, owner, &asked_by);

	audit_write_resolved(&server->audit, &server->migration->doubt, owner, by,
			     strcmp(by, "operator") ? NULL : &asked_by);
	fprintf(stderr, "ramlift: guest %s is no longer in doubt, by the word of the %s: %s\n",
		server->place.name, by,
		source ? "it never ran there, and runs on here" : "it is the destination's");
	pthread_mutex_lock(&server->lock);
	if (source)
		server->state = server->stop_after ? SERVER_STOPPED : SERVER_RUNNING;
	else
		server->state = SERVER_MOVED;
	json_object_set_new(server->last_migration, "resolved", json_string(owner_name(owner)));
	json_object_set_new(server->last_migration, "resolved_by", json_string(by));
	tell_watchers(server, json_pack("{s:s, s:s, s:s}", "event", "result", "owner",
					owner_name(owner), "by", by));
	server->stop_after = false;
	server->n_signals = 0;
	server->migration = NULL;
	pthread_mutex_unlock(&server->lock);
}

static void give_up(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	server->state = SERVER_STOPPED;
	server->given_up = true;
	server->migration = NULL;
	pthread_mutex_unlock(&server->lock);
}

void server_doubt_settle(struct server *server)
{
	struct ramlift_error error;
	int ret;

	for (;;) {
		error = (struct ramlift_error){ .text = "it cannot be settled" };
		ret = ramlift_source_settle(server->migration->source, &error);
		if (is_final(ret))
			break;
		tell_trouble(server, ret, &error);
		clock_sleep_until(clock_now_ns() + AGAIN_NS);
	}
	if (ret == -ECANCELED)
		give_up(server);
	else
		conclude(server, ret ? RAMLIFT_OWNER_SOURCE : RAMLIFT_OWNER_DESTINATION);
}

static void interrupt_fence(const struct migration *migration)
{
	uint64_t one = 1;
	ssize_t n = write(migration->interrupt_fd, &one, sizeof(one));

	(void)n; /* fails only when it is readable anyway */
}

void server_doubt_leave(struct server *server)
{
	ramlift_source_leave(server->migration->source);
	interrupt_fence(server->migration);
}

int server_doubt_resolve(struct server *server, uint64_t client, enum ramlift_owner owner,
			 struct ramlift_error *error)
{
	struct migration *migration = server->migration;
	int ret;

	ret = migration ? ramlift_source_resolve(migration->source, owner) : -EALREADY;
	if (ret)
		return error_set(error, ret,
				 "guest %s is no longer in doubt; see 'ramlift status %s'",
				 server->place.name, server->place.name);
	migration->operator_said = owner;
	control_server_who(server->control, client, &migration->operator);
	interrupt_fence(migration);
	server_watch(server, client, "resolve");
	return 0;
}

int server_doubt_clear(struct server *server, uint64_t client, enum ramlift_owner owner,
		       struct ramlift_error *error)
{
	const char *guest = server->place.name;
	struct ramlift_doubt doubt;
	struct ucred asked_by;
	json_t *reply;
	int ret;

	ret = ramlift_doubt_read(server->state_dir, guest, &doubt, error);
	if (ret == -ENOENT)
		return error_set(error, -EINVAL,
				 "guest %s is not in doubt, there is nothing to resolve", guest);
	if (!ret && owner != RAMLIFT_OWNER_SOURCE)
		ret = error_set(error, -EBUSY,
				"guest %s runs here, and only its journal says that it is in "
				"doubt: 'ramlift resolve %s --source --yes' settles that",
				guest, guest);
	if (!ret)
		ret = ramlift_doubt_resolve(server->state_dir, &doubt, owner, error);
	if (ret)
		return ret;
	control_server_who(server->control, client, &asked_by);
	audit_write_resolved(&server->audit, &doubt, owner, "operator", &asked_by);
	reply = json_pack("{s:s, s:s, s:s, s:s, s:s}", "request", "resolve", "event", "result",
			  "guest", guest, "owner", owner_name(owner), "by", "operator");
	control_server_send(server->control, client, reply);
	json_decref(reply);
	return 0;
}

void server_doubt_report(const struct server *server, json_t *reply)
{
	const struct migration *migration = server->migration;
	char hint[DOUBT_HINT_BYTES], asked[DOUBT_TIME_BYTES];
	json_t *doubt;

	if (server->state != SERVER_IN_DOUBT || !migration)
		return;
	doubt = doubt_json(&migration->doubt);
	json_object_set_new(doubt, "last_asked",
			    migration->asked_s ? json_string(doubt_time(asked, migration->asked_s))
					       : json_null());
	json_object_set_new(doubt, "fence_command",
			    migration->fence_command ? json_string(migration->fence_command)
						     : json_null());
	json_object_set_new(reply, "doubt", doubt);
	doubt_hint(hint, &migration->doubt, true);
	json_object_set_new(reply, "hint", json_string(hint));
}
