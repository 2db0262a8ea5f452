/* SPDX-License-Identifier: Apache-2.0 */
/* What the audit records say; how they are kept is audit_file.c's. */
#include "kvm/vmm/audit.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "kvm/vmm/audit_file.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/report_json.h"

#define MINUTE_NS (60 * NS_PER_S)

void audit_init(struct audit *audit, const char *state_dir)
{
	*audit = (struct audit){ .checks = json_array() };
	pthread_mutex_init(&audit->lock, NULL);
	snprintf(audit->directory, sizeof(audit->directory), "%s", state_dir);
}

void audit_fini(struct audit *audit)
{
	json_decref(audit->checks);
	pthread_mutex_destroy(&audit->lock);
}

/* Words that may come from a peer. */
static json_t *words(const char *text)
{
	char clean[512];

	snprintf(clean, sizeof(clean), "%s", text);
	return json_string(format_clean(clean));
}

static void set(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

static json_t *words_or_null(const char *text)
{
	return text && text[0] ? words(text) : json_null();
}

void audit_check(struct audit *audit, const char *check, const struct ramlift_error *failed)
{
	json_t *item = json_pack("{s:s, s:b}", "check", check, "passed", !failed);

	if (failed)
		set(item, "why", words(failed->text));
	pthread_mutex_lock(&audit->lock);
	json_array_append_new(audit->checks, item);
	pthread_mutex_unlock(&audit->lock);
}

json_t *audit_who(const struct ucred *who)
{
	struct passwd entry, *found = NULL;
	char room[1024];

	getpwuid_r(who->uid, &entry, room, sizeof(room), &found);
	return json_pack("{s:I, s:o, s:i}", "uid", (json_int_t)who->uid, "user",
			 found ? words(found->pw_name) : json_null(), "pid", (int)who->pid);
}

static json_t *new_record(const char *event)
{
	json_t *record = json_object();
	struct timespec now;
	char time[64];
	struct tm utc;
	size_t length;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	length = strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(time + length, sizeof(time) - length, ".%03ldZ", now.tv_nsec / 1000000);
	set(record, "time", json_string(time));
	set(record, "event", json_string(event));
	return record;
}

/* Takes over the record. The lock is held. */
static void write_record(struct audit *audit, json_t *record)
{
	int ret = audit_file_append(audit->directory, record, AUDIT_MAX_BYTES);

	audit_journal_send(record);
	json_decref(record);
	if (ret && !audit->told)
		fprintf(stderr, "ramlift: cannot write the audit record %s/%s: %s\n",
			audit->directory, AUDIT_FILE, strerror(-ret));
	audit->told = ret != 0;
}

static void add_parties(json_t *record, const struct audit_session *session)
{
	const struct ramlift_session_info *info = &session->info;
	const char *peer = info->peer[0] ? info->peer : session->peer;

	set(record, "guest", words_or_null(info->guest[0] ? info->guest : session->guest));
	set(record, "session", words_or_null(info->session));
	set(record, "generation", json_integer(info->generation));
	set(record, "asked_by", session->asked_by ? audit_who(session->asked_by) : json_null());
	set(record, "from", words_or_null(session->incoming ? peer : info->local));
	set(record, "to", words_or_null(session->incoming ? info->local : peer));
	set(record, "peer_name", words_or_null(info->peer_name));
	set(record, "protection", words_or_null(info->protection));
}

/* The figures of report_stats() that belong in a record. What was sent, and how long the guest
 * stood still, only the source knows. */
static void add_figures(json_t *record, const struct audit_session *session)
{
	static const char *const keys[] = { "transport",  "ram_bytes", "verified",
					    "elapsed_ns", "phases",    "bytes_sent" };
	json_t *figures = report_stats(session->stats);

	if (session->incoming) {
		json_object_del(figures, "bytes_sent");
		json_object_del(figures, "downtime");
	}
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		json_object_set(record, keys[i], json_object_get(figures, keys[i]));
	json_object_set(record, "downtime_ns",
			json_object_get(json_object_get(figures, "downtime"), "total_ns"));
	json_decref(figures);
}

void audit_write_session(struct audit *audit, const struct audit_session *session)
{
	json_t *record = new_record("session");

	set(record, "side", json_string(session->incoming ? "destination" : "source"));
	add_parties(record, session);
	add_figures(record, session);
	set(record, "outcome", json_string(report_outcome(session->ret)));
	set(record, "reason", words_or_null(session->reason));
	pthread_mutex_lock(&audit->lock);
	set(record, "checks", audit->checks);
	audit->checks = json_array();
	write_record(audit, record);
	pthread_mutex_unlock(&audit->lock);
}

void audit_write_resolved(struct audit *audit, const struct ramlift_doubt *doubt,
			  enum ramlift_owner owner, const char *by, const struct ucred *asked_by)
{
	json_t *record = new_record("resolved");

	set(record, "side", json_string("source"));
	set(record, "guest", words(doubt->guest));
	set(record, "session", words(doubt->session));
	set(record, "generation", json_integer(doubt->generation));
	set(record, "to", words(doubt->peer));
	set(record, "resolved",
	    json_string(owner == RAMLIFT_OWNER_SOURCE ? "source" : "destination"));
	set(record, "by", json_string(by));
	set(record, "asked_by", asked_by ? audit_who(asked_by) : json_null());
	pthread_mutex_lock(&audit->lock);
	write_record(audit, record);
	pthread_mutex_unlock(&audit->lock);
}

void audit_write_refused(struct audit *audit, const char *from, const char *reason)
{
	uint64_t now_ns = clock_now_ns();
	json_t *record;

	pthread_mutex_lock(&audit->lock);
	if (now_ns - audit->minute_ns >= MINUTE_NS) {
		audit->minute_ns = now_ns;
		audit->n_refusals = 0;
	}
	if (audit->n_refusals++ >= AUDIT_MAX_REFUSALS) {
		audit->n_unwritten++;
	} else {
		record = new_record("refused");
		set(record, "from", words_or_null(from));
		set(record, "reason", words_or_null(reason));
		set(record, "not_listed_before", json_integer((json_int_t)audit->n_unwritten));
		audit->n_unwritten = 0;
		write_record(audit, record);
	}
	pthread_mutex_unlock(&audit->lock);
}
