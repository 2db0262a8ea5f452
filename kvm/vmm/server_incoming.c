/* SPDX-License-Identifier: Apache-2.0 */
/* A guest comes: a thread receives it, and from its name on the control socket answers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/report_json.h"
#include "kvm/vmm/server_private.h"

static void set_machine(struct server *server, struct machine *machine)
{
	pthread_mutex_lock(&server->lock);
	server->machine = machine;
	pthread_mutex_unlock(&server->lock);
}

static int check_size(const struct server *server, const struct ramlift_guest_offer *offer,
		      struct ramlift_error *error)
{
	char offered[FORMAT_BYTES], wanted[FORMAT_BYTES];
	uint64_t bytes = 0;

	for (unsigned i = 0; i < offer->n_regions; i++)
		bytes += offer->regions[i].size_bytes;
	if (!server->incoming.memory_bytes || bytes == server->incoming.memory_bytes)
		return 0;
	return error_set(error, -EINVAL,
			 "guest %s has %s of memory, and only guests with %s are taken here: "
			 "start 'ramlift receive' with another --memory, or without",
			 offer->name, format_size(offered, bytes),
			 format_size(wanted, server->incoming.memory_bytes));
}

/* The name comes from the peer and becomes part of a file's name: checked before all else. */
static int create(void *guest, const struct ramlift_guest_offer *offer,
		  struct ramlift_region *regions, struct ramlift_error *error)
{
	struct server *server = guest;
	int ret;

	ret = option_guest_name(offer->name, error);
	if (!ret)
		ret = check_size(server, offer, error);
	if (ret)
		return ret;
	pthread_mutex_lock(&server->lock);
	snprintf(server->place.name, sizeof(server->place.name), "%s", offer->name);
	server->n_signals = 0;
	if (server->state == SERVER_WAITING)
		server->state = SERVER_INCOMING;
	pthread_mutex_unlock(&server->lock);
	ret = server_open_control(server, error);
	if (ret)
		return ret;
	ret = machine_guest_ops.create(&server->place, offer, regions, error);
	if (ret) {
		server_close_control(server);
		return ret;
	}
	set_machine(server, server->place.machine);
	return 0;
}

static void discard(void *guest)
{
	struct server *server = guest;

	/* First out of the sight of requests. The socket stays, to tell the outcome. */
	set_machine(server, NULL);
	machine_guest_ops.discard(&server->place);
}

static int resume_guest(void *guest, struct ramlift_error *error)
{
	return machine_guest_ops.resume(&((struct server *)guest)->place, error);
}

static int load_state(void *guest, const void *state, size_t state_bytes,
		      struct ramlift_error *error)
{
	return machine_guest_ops.load_state(&((struct server *)guest)->place, state, state_bytes,
					    error);
}

/* Pausing and saving are for a source. */
static const struct ramlift_guest_ops incoming_ops = {
	.create = create,
	.discard = discard,
	.resume = resume_guest,
	.load_state = load_state,
};

static void tell_check(void *context, const char *check, const struct ramlift_error *failed)
{
	audit_check(&((struct server *)context)->audit, check, failed);
}

static void tell_stranger(void *context, const char *peer, const struct ramlift_error *why)
{
	struct server *server = context;
	char reason[sizeof(why->text)];

	snprintf(reason, sizeof(reason), "%s", why->text);
	fprintf(stderr, "ramlift receive: refused a connection from %s: %s\n", peer,
		format_clean(reason));
	audit_write_refused(&server->audit, peer, why->text);
}

/* A session that did not get as far as a name has been told of as a stranger. */
static void write_audit(struct server *server, int ret, const struct ramlift_error *error)
{
	struct ramlift_stats stats;
	struct audit_session session = {
		.incoming = true,
		.stats = &stats,
		.ret = ret,
		.reason = ret ? error->text : "",
	};

	ramlift_destination_stats(server->destination, &stats);
	ramlift_destination_info(server->destination, &session.info);
	if (session.info.session[0])
		audit_write_session(&server->audit, &session);
}

static void tell_outcome(struct server *server, int ret, const struct ramlift_error *error)
{
	struct ramlift_stats stats;
	json_t *result;

	if (!server->control)
		return;
	ramlift_destination_stats(server->destination, &stats);
	result = report_stats(&stats);
	json_object_set_new(result, "event", json_string("result"));
	json_object_set_new(result, "direction", json_string("incoming"));
	json_object_set_new(result, "outcome", json_string(report_outcome(ret)));
	json_object_set_new(result, "guest", json_string(server->place.name));
	if (ret)
		json_object_set_new(result, "error", report_error(ret, error->text));
	pthread_mutex_lock(&server->lock);
	server_tell(server, result);
	pthread_mutex_unlock(&server->lock);
}

int server_cancel_incoming(struct server *server)
{
	int ret = ramlift_destination_cancel(server->destination);

	server->cancelled |= !ret;
	return ret;
}

/* A destination that was cancelled stays so: the next session needs a new one, on the same port. */
static int renew(struct server *server, struct ramlift_error *error)
{
	struct ramlift_destination *fresh = NULL, *old;
	int ret;

	pthread_mutex_lock(&server->lock);
	old = server->destination;
	server->destination = NULL;
	pthread_mutex_unlock(&server->lock);
	ramlift_destination_free(old);
	ret = ramlift_destination_new(&server->incoming_config, &fresh, error);
	pthread_mutex_lock(&server->lock);
	server->destination = fresh;
	server->cancelled = false;
	/* Who wanted the end meanwhile found nothing to cancel. */
	if (fresh && (server->stop_after || server->state == SERVER_STOPPED))
		ramlift_destination_cancel(fresh);
	pthread_mutex_unlock(&server->lock);
	return ret;
}

/* After a session without a guest. True: listen again. */
static bool goes_on(struct server *server, struct ramlift_error *error)
{
	bool stopping, cancelled;

	server_close_control(server);
	pthread_mutex_lock(&server->lock);
	stopping = server->stop_after || server->state == SERVER_STOPPED;
	cancelled = server->cancelled;
	server->incoming_failed = server->incoming.once && !stopping;
	server->state = stopping || server->incoming.once ? SERVER_STOPPED : SERVER_WAITING;
	server->place.name[0] = '\0';
	json_decref(server->last_migration);
	server->last_migration = NULL;
	pthread_mutex_unlock(&server->lock);
	if (stopping)
		return false;
	fprintf(stderr, "ramlift receive: no guest came: %s\n", format_clean(error->text));
	if (server->incoming.once)
		return false;
	/* An error that is there at once, again and again, must not fill a disk with lines. */
	clock_sleep_until(clock_now_ns() + 200 * NS_PER_MS);
	/* A source that has cancelled may come again at once: then the port stays open. */
	if (cancelled && renew(server, error)) {
		fprintf(stderr, "ramlift receive: %s\n", error->text);
		pthread_mutex_lock(&server->lock);
		server->incoming_failed = true;
		server->state = SERVER_STOPPED;
		pthread_mutex_unlock(&server->lock);
		return false;
	}
	fprintf(stderr, "ramlift receive: listening again\n");
	return true;
}

static void *incoming_main(void *argument)
{
	struct server *server = argument;
	struct ramlift_error error;
	int ret;

	do {
		error = (struct ramlift_error){ .text = "the session failed" };
		ret = ramlift_destination_run(server->destination, &error);
		error.code = ret;
		write_audit(server, ret, &error);
		tell_outcome(server, ret, &error);
	} while (ret && goes_on(server, &error));
	pthread_mutex_lock(&server->lock);
	if (!ret) {
		/* A wish to end is not taken back. */
		if (server->state != SERVER_STOPPED)
			server->state = server->stop_after ? SERVER_STOPPED : SERVER_RUNNING;
		server->stop_after = false;
	}
	server->n_signals = 0;
	server->receiving = ret != 0;
	pthread_mutex_unlock(&server->lock);
	if (!ret)
		printf("guest %s has come and runs here\n", server->place.name);
	server_wake(server);
	return NULL;
}

/* The address with the port that was taken, so that a renewed destination is found there. */
static void fix_address(struct server *server, const char *listen, uint16_t port)
{
	snprintf(server->listen, sizeof(server->listen), "%.*s:%u",
		 (int)(strrchr(listen, ':') - listen), listen, port);
	server->incoming_config.listen = server->listen;
}

int server_receive_guest(struct server *server, const struct ramlift_destination_config *config,
			 const struct server_incoming *incoming, uint16_t *port,
			 struct ramlift_error *error)
{
	int ret;

	server->incoming_config = *config;
	server->incoming_config.guest_ops = &incoming_ops;
	server->incoming_config.guest = server;
	server->incoming_config.state_dir = server->state_dir;
	server->incoming_config.checked = tell_check;
	server->incoming_config.turned_away = tell_stranger;
	server->incoming_config.progress_context = server;
	server->incoming = *incoming;
	server->place.numa_map = incoming->numa_map;
	ret = ramlift_destination_new(&server->incoming_config, &server->destination, error);
	if (ret)
		return ret;
	*port = ramlift_destination_port(server->destination);
	fix_address(server, config->listen, *port);
	server->receiving = true;
	ret = -pthread_create(&server->incoming_thread, NULL, incoming_main, server);
	if (ret) {
		ramlift_destination_free(server->destination);
		server->destination = NULL;
		return error_set(error, ret, "cannot start a thread to receive a guest: %s",
				 strerror(-ret));
	}
	server->incoming_joinable = true;
	return 0;
}
