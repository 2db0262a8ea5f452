/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/ramlift.h"

#define END_NS	 (10 * NS_PER_S) /* for QEMU to end a migration, or to start its guest */
#define POLL_NS	 (5 * NS_PER_MS)
#define NO_LIMIT (INT64_C(1) << 40) /* bytes a second that no host reaches */

/*
 * What a stream that Ramlift carries must and must not have. Capabilities that this QEMU does not
 * know are left out, but for those that are needed.
 */
static const char *const needed[] = { "events", "return-path" };
static const char *const unwanted[] = {
	"xbzrle",
	"compress",
	"postcopy-ram",
	"postcopy-preempt",
	"x-ignore-shared",
	"x-colo",
	"block",
	"dirty-bitmaps",
	"mapped-ram",
	"release-ram",
	"background-snapshot",
	"zero-copy-send",
	"zero-blocks",
	"switchover-ack",
	"pause-before-switchover",
	"validate-uuid",
};

#define AT_DESTINATION (-1) /* in the place of a choice that is the source's alone */

static bool is_one_of(const char *word, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(word, words[i]))
			return true;
	}
	return false;
}

#define IS_ONE_OF(word, words) is_one_of(word, words, sizeof(words) / sizeof((words)[0]))

/*
 * Where a guest arrives, its disks stay inactive until it is told to run: their locks are the
 * source's until COMMIT.
 */
static const char *const of_destination[] = { "late-block-activate" };

/* What a capability is to be; -1: as it is. */
static int wanted_state(const char *name, unsigned n_multifd, int auto_converge)
{
	if (!strcmp(name, "multifd"))
		return n_multifd > 0;
	if (!strcmp(name, "auto-converge"))
		return auto_converge;
	if (IS_ONE_OF(name, of_destination) && auto_converge == AT_DESTINATION)
		return true;
	if (IS_ONE_OF(name, needed))
		return true;
	return IS_ONE_OF(name, unwanted) ? false : -1;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static int set_capabilities(struct qmp *qmp, json_t *list, struct ramlift_error *error)
{
	if (!json_array_size(list)) {
		json_decref(list);
		return 0;
	}
	return qmp_call(qmp, "migrate-set-capabilities", json_pack("{s:o}", "capabilities", list),
			NULL, error);
}

/* Change what differs from what is wanted; *before gets the entries as they were. */
static int change_capabilities(struct qmp *qmp, unsigned n_multifd, int auto_converge,
			       json_t *before, struct ramlift_error *error)
{
	json_t *changes = json_array();
	json_t *list, *entry;
	unsigned n_needed = 0;
	size_t i;
	int ret;

	ret = qmp_call(qmp, "query-migrate-capabilities", NULL, &list, error);
	if (ret) {
		json_decref(changes);
		return ret;
	}
	json_array_foreach(list, i, entry)
	{
		const char *name = text_of(entry, "capability");
		int wanted = wanted_state(name, n_multifd, auto_converge);

		n_needed += IS_ONE_OF(name, needed);
		if (wanted < 0 || wanted == json_is_true(json_object_get(entry, "state")))
			continue;
		json_array_append(before, entry);
		json_array_append_new(changes,
				      json_pack("{s:s, s:b}", "capability", name, "state", wanted));
	}
	json_decref(list);
	if (n_needed < sizeof(needed) / sizeof(needed[0])) {
		json_decref(changes);
		return error_set(error, -EOPNOTSUPP,
				 "this QEMU has no migration return path: use QEMU 7.2 or later");
	}
	return set_capabilities(qmp, changes, error);
}

static json_int_t downtime_ms(uint64_t downtime_ns)
{
	return (json_int_t)((downtime_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static int change_parameters(struct qmp *qmp, const struct control_settings *settings,
			     json_t *before, struct ramlift_error *error)
{
	json_int_t bandwidth = settings->bandwidth_bytes_per_s
				       ? (json_int_t)settings->bandwidth_bytes_per_s
				       : NO_LIMIT;
	json_t *changes = json_pack("{s:I, s:I, s:s}", "downtime-limit",
				    downtime_ms(settings->max_downtime_ns), "max-bandwidth",
				    bandwidth, "multifd-compression", "none");
	json_t *parameters, *value;
	const char *key;
	int ret;

	if (settings->n_multifd)
		json_object_set_new(changes, "multifd-channels", json_integer(settings->n_multifd));
	ret = qmp_call(qmp, "query-migrate-parameters", NULL, &parameters, error);
	if (ret) {
		json_decref(changes);
		return ret;
	}
	if (text_of(parameters, "tls-creds")[0])
		ret = error_set(error, -EOPNOTSUPP,
				"QEMU encrypts its migration, and Ramlift could not read it: unset "
				"the migration parameter tls-creds");
	json_object_foreach(changes, key, value)
	{
		json_object_set(before, key, json_object_get(parameters, key));
	}
	json_decref(parameters);
	if (ret) {
		json_decref(changes);
		return ret;
	}
	return qmp_call(qmp, "migrate-set-parameters", changes, NULL, error);
}

int control_set_source(struct qmp *qmp, const struct control_settings *settings, json_t **result,
		       struct ramlift_error *error)
{
	json_t *before = json_pack("{s:[], s:{}}", "capabilities", "parameters");
	int ret;

	ret = change_capabilities(qmp, settings->n_multifd, settings->auto_converge,
				  json_object_get(before, "capabilities"), error);
	if (!ret)
		ret = change_parameters(qmp, settings, json_object_get(before, "parameters"),
					error);
	if (ret) {
		control_restore(qmp, before);
		return ret;
	}
	*result = before;
	return 0;
}

int control_set_destination(struct qmp *qmp, unsigned n_multifd, struct ramlift_error *error)
{
	json_t *before = json_array();
	json_t *parameters;
	int ret = change_capabilities(qmp, n_multifd, AT_DESTINATION, before, error);

	json_decref(before); /* a QEMU that waits for a migration has no other use */
	if (ret || !n_multifd)
		return ret;
	parameters = json_pack("{s:i, s:s}", "multifd-channels", (int)n_multifd,
			       "multifd-compression", "none");
	return qmp_call(qmp, "migrate-set-parameters", parameters, NULL, error);
}

void control_restore(struct qmp *qmp, json_t *before)
{
	set_capabilities(qmp, json_incref(json_object_get(before, "capabilities")), NULL);
	if (json_object_size(json_object_get(before, "parameters")))
		qmp_call(qmp, "migrate-set-parameters",
			 json_incref(json_object_get(before, "parameters")), NULL, NULL);
	json_decref(before);
}

int control_migrate(struct qmp *qmp, uint16_t port, struct ramlift_error *error)
{
	json_t *uri = json_sprintf("tcp:127.0.0.1:%u", port);

	return qmp_call(qmp, "migrate", json_pack("{s:o}", "uri", uri), NULL, error);
}

int control_incoming(struct qmp *qmp, const char *path, struct ramlift_error *error)
{
	json_t *uri = json_sprintf("unix:%s", path);
	/* While QEMU waits for a migration, `stop` means: do not run the guest afterwards. */
	int ret = qmp_call(qmp, "stop", NULL, NULL, error);

	if (ret) {
		json_decref(uri);
		return ret;
	}
	return qmp_call(qmp, "migrate-incoming", json_pack("{s:o}", "uri", uri), NULL, error);
}

/* When an event happened, on our clock: QEMU stamps it with the time of day. */
static uint64_t event_ns(const json_t *event)
{
	const json_t *stamp = json_object_get(event, "timestamp");
	uint64_t seconds = (uint64_t)json_integer_value(json_object_get(stamp, "seconds"));
	uint64_t us = (uint64_t)json_integer_value(json_object_get(stamp, "microseconds"));
	uint64_t then_ns = seconds * NS_PER_S + us * NS_PER_US;
	uint64_t monotonic_ns = clock_now_ns();
	struct timespec now;
	uint64_t now_ns;

	clock_gettime(CLOCK_REALTIME, &now);
	now_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
	/* A clock that was set meanwhile must not make nonsense of a downtime. */
	if (then_ns > now_ns || now_ns - then_ns > 60 * NS_PER_S)
		return monotonic_ns;
	return monotonic_ns - (now_ns - then_ns);
}

/* Where the migration is, by its word. */
static int take_status(struct qmp *qmp, const char *status, const json_t *information,
		       struct control_progress *progress, struct ramlift_error *error)
{
	json_t *answer = NULL;

	if (!strcmp(status, "completed"))
		progress->completed = true;
	if (!strcmp(status, "cancelled") || !strcmp(status, "cancelling"))
		return error_set(error, -ECANCELED, "QEMU's migration was cancelled");
	if (strcmp(status, "failed"))
		return 0;
	if (!information && !qmp_call(qmp, "query-migrate", NULL, &answer, NULL))
		information = answer;
	error_set(error, -EREMOTEIO, "QEMU's migration failed: %s",
		  text_of(information, "error-desc")[0] ? text_of(information, "error-desc")
							: "its log says why");
	json_decref(answer);
	return -EREMOTEIO;
}

static uint64_t number_of(const json_t *object, const char *key)
{
	json_int_t number = json_integer_value(json_object_get(object, key));

	return number > 0 ? (uint64_t)number : 0;
}

/* Nothing to take from the answer to another command. */
static void take_figures(const json_t *answer, struct control_progress *progress)
{
	const json_t *ram = json_object_get(answer, "ram");

	if (!ram)
		return;
	progress->remaining_bytes = number_of(ram, "remaining");
	progress->dirty_bytes_per_s =
		number_of(ram, "dirty-pages-rate") * number_of(ram, "page-size");
	progress->iterations = number_of(ram, "dirty-sync-count");
}

static int take_event(struct qmp *qmp, const json_t *event, struct control_progress *progress,
		      struct ramlift_error *error)
{
	const char *name = text_of(event, "event");

	if (!strcmp(name, "STOP") && !progress->guest_stopped) {
		progress->guest_stopped = true;
		progress->stopped_ns = event_ns(event);
	} else if (!strcmp(name, "RESUME")) {
		progress->guest_stopped = false;
	} else if (!strcmp(name, QMP_ANSWER)) {
		take_figures(json_object_get(event, "data"), progress);
	} else if (!strcmp(name, "BALLOON_CHANGE")) {
		/* Rule 10: what a balloon takes is discarded, and pinned memory must not be. */
		return error_set(error, -EBUSY,
				 "the guest's balloon changed its size during the migration: set "
				 "it before, and leave it alone until the guest has moved");
	} else if (!strcmp(name, "MIGRATION")) {
		return take_status(qmp, text_of(json_object_get(event, "data"), "status"), NULL,
				   progress, error);
	}
	return 0;
}

int control_follow(struct qmp *qmp, struct control_progress *progress, struct ramlift_error *error)
{
	for (;;) {
		json_t *event;
		int ret = qmp_event(qmp, 0, &event, error);

		if (ret == -ETIMEDOUT)
			return 0;
		if (ret)
			return ret;
		ret = take_event(qmp, event, progress, error);
		json_decref(event);
		if (ret)
			return ret;
	}
}

int control_ask(struct qmp *qmp, struct ramlift_error *error)
{
	return qmp_ask(qmp, "query-migrate", NULL, error);
}

int control_set_downtime(struct qmp *qmp, uint64_t downtime_ns, struct ramlift_error *error)
{
	return qmp_ask(qmp, "migrate-set-parameters",
		       json_pack("{s:I}", "downtime-limit", downtime_ms(downtime_ns)), error);
}

int control_query(struct qmp *qmp, struct control_progress *progress, struct ramlift_error *error)
{
	json_t *answer;
	int ret = qmp_call(qmp, "query-migrate", NULL, &answer, error);

	if (ret)
		return ret;
	take_figures(answer, progress);
	ret = take_status(qmp, text_of(answer, "status"), answer, progress, error);
	json_decref(answer);
	return ret;
}

/* Until the migration has ended one way or the other. */
static void await_end(struct qmp *qmp)
{
	static const char *const ended[] = { "completed", "failed", "cancelled", "none", "" };
	uint64_t deadline_ns = clock_now_ns() + END_NS;
	bool over = false;

	while (!over && clock_now_ns() < deadline_ns) {
		json_t *answer;

		if (qmp_call(qmp, "query-migrate", NULL, &answer, NULL))
			return;
		over = IS_ONE_OF(text_of(answer, "status"), ended);
		json_decref(answer);
		if (!over)
			clock_sleep_until(clock_now_ns() + POLL_NS);
	}
}

/* QEMU's word for what it is doing. */
static int get_status(struct qmp *qmp, char status[32], bool *running, struct ramlift_error *error)
{
	json_t *answer;
	int ret = qmp_call(qmp, "query-status", NULL, &answer, error);

	if (ret)
		return ret;
	snprintf(status, 32, "%s", text_of(answer, "status"));
	*running = json_is_true(json_object_get(answer, "running"));
	json_decref(answer);
	return 0;
}

/* Until QEMU is no longer busy with that. */
static int leave_status(struct qmp *qmp, const char *busy, bool *running,
			struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + END_NS;
	char status[32];

	for (;;) {
		int ret = get_status(qmp, status, running, error);

		if (ret || strcmp(status, busy))
			return ret;
		if (clock_now_ns() >= deadline_ns)
			return error_set(error, -ETIMEDOUT, "QEMU stays in state '%s': see its log",
					 status);
		clock_sleep_until(clock_now_ns() + POLL_NS);
	}
}

/* A `cont` that QEMU has accepted is a guest that runs, or ran until it stopped by itself. */
int control_run(struct qmp *qmp, struct ramlift_error *error)
{
	struct ramlift_error why = { 0 };
	bool running;
	int ret;

	ret = leave_status(qmp, "inmigrate", &running, error);
	if (ret)
		return ret;
	ret = qmp_call(qmp, "cont", NULL, NULL, &why);
	if (!ret || ret == -EREMOTEIO) {
		if (ret && error)
			*error = why;
		return ret;
	}
	return error_set(error, -EINPROGRESS, "QEMU was told to run the guest, and %.200s",
			 why.text);
}

/* QEMU refuses until the end of its migration is complete, which may take a moment. */
static int run_again(struct qmp *qmp, struct ramlift_error *error)
{
	uint64_t deadline_ns = clock_now_ns() + END_NS;
	bool running = false;
	int ret;

	for (;;) {
		ret = leave_status(qmp, "finish-migrate", &running, error);
		if (ret || running)
			return ret;
		ret = qmp_call(qmp, "cont", NULL, NULL, error);
		if (ret != -EREMOTEIO || clock_now_ns() >= deadline_ns)
			return ret;
		clock_sleep_until(clock_now_ns() + POLL_NS);
	}
}

int control_take_back(struct qmp *qmp, bool was_running, struct ramlift_error *error)
{
	int ret = qmp_call(qmp, "migrate_cancel", NULL, NULL, error);

	if (ret && ret != -EREMOTEIO) /* a migration that is over need not be cancelled */
		return ret;
	await_end(qmp);
	ret = was_running ? run_again(qmp, error) : 0;
	if (!ret && error)
		error->code = 0;
	return ret;
}
