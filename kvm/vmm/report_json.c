/* SPDX-License-Identifier: Apache-2.0 */
/* Figures as JSON. */
#include "kvm/vmm/report_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kvm/vmm/command.h"
#include "kvm/vmm/report_format.h"

/* Without memory object or value is NULL, and the member is missing: no more than that. */
static void set(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

static void add(json_t *object, const char *key, uint64_t value)
{
	set(object, key, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

/* Words that may come from a peer: jansson refuses bytes that are no UTF-8. */
static json_t *words(const char *text)
{
	char clean[512];

	snprintf(clean, sizeof(clean), "%s", text);
	return json_string(format_clean(clean));
}

const char *report_outcome(int ret)
{
	switch (ret) {
	case 0:
		return "done";
	case -ECANCELED:
		return "cancelled";
	case -EINPROGRESS:
		return "in-doubt";
	default:
		return "failed";
	}
}

int report_outcome_status(const char *outcome)
{
	if (!outcome)
		return COMMAND_FAILED;
	if (!strcmp(outcome, "done"))
		return COMMAND_DONE;
	if (!strcmp(outcome, "cancelled"))
		return COMMAND_CANCELLED;
	if (!strcmp(outcome, "in-doubt"))
		return COMMAND_IN_DOUBT;
	return COMMAND_FAILED;
}

static json_t *phases(const struct ramlift_stats *stats)
{
	json_t *object = json_object();
	char key[64];

	/* The end states take no time that anybody could wait for. */
	for (int phase = RAMLIFT_PHASE_PREFLIGHT; phase < RAMLIFT_PHASE_DONE; phase++) {
		snprintf(key, sizeof(key), "%s_ns", ramlift_phase_name((enum ramlift_phase)phase));
		for (char *dash = key; (dash = strchr(dash, '-'));)
			*dash = '_';
		add(object, key, stats->phase_ns[phase]);
	}
	return object;
}

static json_t *downtime(const struct ramlift_downtime *downtime)
{
	json_t *object = json_object();

	add(object, "pause_ns", downtime->pause_ns);
	add(object, "harvest_ns", downtime->harvest_ns);
	add(object, "save_ns", downtime->save_ns);
	add(object, "drain_ns", downtime->drain_ns);
	add(object, "verify_ns", downtime->verify_ns);
	add(object, "fence_ns", downtime->fence_ns);
	add(object, "load_ns", downtime->load_ns);
	add(object, "commit_ns", downtime->commit_ns);
	add(object, "start_ns", downtime->start_ns);
	add(object, "total_ns", downtime->total_ns);
	return object;
}

static json_t *lane(unsigned index, const struct ramlift_lane_stats *lane)
{
	double busy_s = (double)lane->busy_ns / 1e9;
	json_t *object = json_object();

	add(object, "lane", index);
	add(object, "rail", lane->rail);
	set(object, "lost", json_boolean(lane->lost));
	set(object, "numa_node", json_integer(lane->numa_node));
	add(object, "bytes_sent", lane->bytes_sent);
	add(object, "writes", lane->writes);
	add(object, "zero_pages", lane->zero_pages);
	add(object, "sweeps", lane->sweeps);
	add(object, "busy_ns", lane->busy_ns);
	add(object, "rate_bytes_per_s", lane->rate_bytes_per_s);
	add(object, "busy_rate_bytes_per_s",
	    busy_s > 0 ? (uint64_t)((double)lane->bytes_sent / busy_s) : 0);
	return object;
}

static json_t *lanes(const struct ramlift_stats *stats)
{
	unsigned n_lanes = stats->n_lanes < RAMLIFT_MAX_LANES ? stats->n_lanes : RAMLIFT_MAX_LANES;
	json_t *array = json_array();

	for (unsigned i = 0; i < n_lanes; i++)
		json_array_append_new(array, lane(i, &stats->lanes[i]));
	return array;
}

json_t *report_stats(const struct ramlift_stats *stats)
{
	json_t *object = json_object();
	char digest[17];

	set(object, "phase", json_string(ramlift_phase_name(stats->phase)));
	set(object, "transport", stats->transport ? json_string(stats->transport) : json_null());
	add(object, "ram_bytes", stats->ram_bytes);
	add(object, "bytes_sent", stats->bytes_sent);
	add(object, "bytes_remaining", stats->bytes_remaining);
	add(object, "residual_bytes", stats->residual_bytes);
	add(object, "zero_pages", stats->zero_pages);
	add(object, "dirty_rate_bytes_per_s", stats->dirty_rate_bytes_per_s);
	add(object, "send_rate_bytes_per_s", stats->send_rate_bytes_per_s);
	add(object, "passes", stats->passes);
	add(object, "elapsed_ns", stats->elapsed_ns);
	set(object, "throttled", json_boolean(stats->throttled));
	set(object, "verified", json_boolean(stats->verified));
	snprintf(digest, sizeof(digest), "%016llx", (unsigned long long)stats->digest);
	set(object, "digest", stats->verified ? json_string(digest) : json_null());
	set(object, "phases", phases(stats));
	set(object, "downtime", downtime(&stats->downtime));
	set(object, "lanes", lanes(stats));
	return object;
}

json_t *report_guest(const struct machine_report *report)
{
	json_t *object = json_object();

	add(object, "pages_written", report->pages_written);
	add(object, "pages_verified", report->pages_verified);
	add(object, "sweeps", report->sweeps);
	add(object, "failures", report->failures);
	set(object, "first_failure", words(report->first_failure));
	return object;
}

json_t *report_error(int code, const char *message)
{
	const char *name = code < 0 ? strerrorname_np(-code) : NULL;
	json_t *object = json_object();

	set(object, "code", json_integer(code));
	set(object, "name", name ? json_string(name) : json_null());
	set(object, "message", words(message));
	return object;
}
