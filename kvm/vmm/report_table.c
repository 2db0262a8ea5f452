/* SPDX-License-Identifier: Apache-2.0 */
/* The tables on standard output. */
#include "kvm/vmm/report_table.h"

#include <string.h>

#include "kvm/vmm/report_format.h"
#include "kvm/vmm/report_read.h"

#define LABEL "  %-16s "

/* The members of an object whose names end in _ns, in their order, without the total. Those of the
 * downtime are all there, to be compared, in one unit. */
static void times(FILE *out, const json_t *object, bool downtime)
{
	char time[FORMAT_BYTES], label[32];
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value)
	{
		size_t length = strlen(key);

		if (!strcmp(key, "total_ns") || length < 4 || strcmp(key + length - 3, "_ns"))
			continue;
		if (!downtime && !json_integer_value(value))
			continue;
		snprintf(label, sizeof(label), "  %.*s", (int)(length - 3), key);
		for (char *line = label; (line = strchr(line, '_'));)
			*line = '-';
		if (downtime)
			format_us(time, (uint64_t)json_integer_value(value));
		else
			format_time(time, (uint64_t)json_integer_value(value));
		fprintf(out, LABEL "%12s\n", label, time);
	}
}

/* Rails are of interest where there are several. */
static bool has_rails(const json_t *lanes)
{
	json_t *lane;
	size_t i;

	json_array_foreach((json_t *)lanes, i, lane)
	{
		if (read_number(lane, "rail"))
			return true;
	}
	return false;
}

/* The rail and the NUMA node of a lane, as columns. */
static void rail_columns(FILE *out, const json_t *lane)
{
	json_int_t node = json_integer_value(json_object_get(lane, "numa_node"));

	fprintf(out, " %6llu", (unsigned long long)read_number(lane, "rail"));
	if (node < 0)
		fprintf(out, " %6s", "-");
	else
		fprintf(out, " %6lld", (long long)node);
}

static void lanes(FILE *out, const json_t *result)
{
	const json_t *array = json_object_get(result, "lanes");
	char sent[FORMAT_BYTES], rate[FORMAT_BYTES];
	bool rails = has_rails(array);
	json_t *lane;
	size_t i;

	if (!json_array_size(array))
		return;
	fprintf(out, "\n" LABEL "%12s %12s %14s%s\n", "lane", "sent", "writes", "rate",
		rails ? "   rail   node" : "");
	json_array_foreach((json_t *)array, i, lane)
	{
		fprintf(out, "  %-16zu %12s %12llu %14s", i,
			format_size(sent, read_number(lane, "bytes_sent")),
			(unsigned long long)read_number(lane, "writes"),
			format_rate(rate, read_number(lane, "busy_rate_bytes_per_s")));
		if (rails)
			rail_columns(out, lane);
		fprintf(out, read_flag(lane, "lost") ? "  lost\n" : "\n");
	}
}

static void verify(FILE *out, const json_t *result)
{
	if (read_flag(result, "verified"))
		fprintf(out, LABEL "digests of all memory are equal (%s)\n", "verify",
			read_text(result, "digest"));
	else
		fprintf(out, LABEL "%s\n", "verify",
			read_flag(result, "verify_requested") ? "not reached"
							      : "not asked for (--verify)");
}

static void guest_check(FILE *out, const json_t *guest, const char *when)
{
	if (!guest)
		return;
	fprintf(out, LABEL "%llu pages written, %llu verified in %llu sweeps, %llu failures%s\n",
		"guest's check", (unsigned long long)read_number(guest, "pages_written"),
		(unsigned long long)read_number(guest, "pages_verified"),
		(unsigned long long)read_number(guest, "sweeps"),
		(unsigned long long)read_number(guest, "failures"), when);
	if (read_text(guest, "first_failure")[0])
		fprintf(out, LABEL "%s\n", "first failure", read_text(guest, "first_failure"));
}

static void traffic(FILE *out, const json_t *result)
{
	char text[FORMAT_BYTES], other[FORMAT_BYTES];
	uint64_t zero_pages = read_number(result, "zero_pages");

	if (read_text(result, "transport")[0])
		fprintf(out, LABEL "%s, %zu lanes\n", "transport", read_text(result, "transport"),
			json_array_size(json_object_get(result, "lanes")));
	fprintf(out, LABEL "%s\n", "guest memory",
		format_size(text, read_number(result, "ram_bytes")));
	fprintf(out, LABEL "%s in %llu passes", "sent",
		format_size(text, read_number(result, "bytes_sent")),
		(unsigned long long)read_number(result, "passes"));
	if (zero_pages)
		fprintf(out, ", %llu pages of zeros left out", (unsigned long long)zero_pages);
	fprintf(out, "\n" LABEL "%s\n", "elapsed",
		format_time(text, read_number(result, "elapsed_ns")));
	if (read_number(result, "residual_bytes"))
		fprintf(out, LABEL "%s, of a guest that wrote %s\n", "left at pause",
			format_size(text, read_number(result, "residual_bytes")),
			format_rate(other, read_number(result, "dirty_rate_bytes_per_s")));
}

void report_table_migration(FILE *out, const json_t *result)
{
	const json_t *downtime = json_object_get(result, "downtime");
	char text[FORMAT_BYTES];

	/* An attempt that sent nothing has nothing to show. */
	if (!read_number(result, "bytes_sent") && strcmp(read_text(result, "outcome"), "done"))
		return;
	traffic(out, result);
	fprintf(out, "\n" LABEL "%12s\n", "phase", "time");
	times(out, json_object_get(result, "phases"), false);
	if (read_number(downtime, "pause_ns")) {
		fprintf(out, "\n" LABEL "%12s\n", "downtime",
			format_time(text, read_number(downtime, "total_ns")));
		times(out, downtime, true);
	}
	lanes(out, result);
	fprintf(out, "\n");
	verify(out, result);
	guest_check(out, json_object_get(result, "guest_check"),
		    !strcmp(read_text(result, "outcome"), "done") ? ", as of the pause" : "");
}

static void last_migration(FILE *out, const json_t *last)
{
	const char *sentence = read_text(json_object_get(last, "error"), "message");
	char text[FORMAT_BYTES];

	if (!last)
		return;
	fprintf(out, LABEL "%s", "last migration", read_text(last, "outcome"));
	if (!strcmp(read_text(last, "direction"), "incoming"))
		fprintf(out, ", from another host");
	else
		fprintf(out, ", to %s", read_text(last, "to"));
	if (read_text(last, "resolved")[0])
		fprintf(out, ", resolved by the word of the %s: it is the %s's",
			read_text(last, "resolved_by"), read_text(last, "resolved"));
	else if (sentence[0])
		fprintf(out, ": %s", sentence);
	else if (read_number(json_object_get(last, "downtime"), "total_ns"))
		fprintf(out, ", downtime %s",
			format_time(text,
				    read_number(json_object_get(last, "downtime"), "total_ns")));
	fprintf(out, "\n");
}

static void current_migration(FILE *out, const json_t *now)
{
	char sent[FORMAT_BYTES], left[FORMAT_BYTES], rate[FORMAT_BYTES], dirty[FORMAT_BYTES];

	if (!now)
		return;
	fprintf(out, LABEL "%s, %s sent, %s left, %s, dirty %s\n", "migration",
		read_text(now, "phase"), format_size(sent, read_number(now, "bytes_sent")),
		format_size(left, read_number(now, "bytes_remaining")),
		format_rate(rate, read_number(now, "send_rate_bytes_per_s")),
		format_rate(dirty, read_number(now, "dirty_rate_bytes_per_s")));
}

static void numa_nodes(FILE *out, const json_t *nodes)
{
	json_t *node;
	size_t i;

	if (!json_array_size(nodes))
		return;
	fprintf(out, LABEL "in equal parts", "NUMA nodes");
	json_array_foreach((json_t *)nodes, i, node)
	{
		if (json_integer_value(node) < 0)
			fprintf(out, "%s any", i ? "," : "");
		else
			fprintf(out, "%s %lld", i ? "," : "", (long long)json_integer_value(node));
	}
	fprintf(out, "\n");
}

static void doubt(FILE *out, const json_t *doubt)
{
	const char *asked = read_text(doubt, "last_asked");

	if (!doubt)
		return;
	fprintf(out, LABEL "%s since %s\n", "in doubt", read_text(doubt, "to"),
		read_text(doubt, "since"));
	fprintf(out, LABEL "%s, generation %llu\n", "session", read_text(doubt, "session"),
		(unsigned long long)read_number(doubt, "generation"));
	if (asked[0])
		fprintf(out, LABEL "%s\n", "last asked", asked);
	if (read_text(doubt, "fence_command")[0])
		fprintf(out, LABEL "%s\n", "fence command", read_text(doubt, "fence_command"));
}

void report_table_guest(FILE *out, const json_t *status)
{
	char memory[FORMAT_BYTES], page[FORMAT_BYTES];

	fprintf(out, "guest %s: %s\n", read_text(status, "guest"), read_text(status, "state"));
	if (read_number(status, "pid"))
		fprintf(out, LABEL "%llu\n", "process",
			(unsigned long long)read_number(status, "pid"));
	if (read_number(status, "memory_bytes"))
		fprintf(out, LABEL "%s in pages of %s, %llu vCPU%s, dirty %s\n", "machine",
			format_size(memory, read_number(status, "memory_bytes")),
			format_size(page, read_number(status, "page_size_bytes")),
			(unsigned long long)read_number(status, "vcpus"),
			read_number(status, "vcpus") == 1 ? "" : "s",
			read_text(status, "dirty_mode"));
	numa_nodes(out, json_object_get(status, "numa_nodes"));
	guest_check(out, json_object_get(status, "guest_check"), "");
	current_migration(out, json_object_get(status, "migration"));
	last_migration(out, json_object_get(status, "last_migration"));
	doubt(out, json_object_get(status, "doubt"));
	if (read_text(status, "hint")[0])
		fprintf(out, "%s\n", read_text(status, "hint"));
}

void report_table_guests(FILE *out, const json_t *statuses)
{
	char memory[FORMAT_BYTES];
	json_t *status;
	size_t i;

	fprintf(out, "%-24s %8s  %-10s %10s %6s  %s\n", "GUEST", "PROCESS", "STATE", "MEMORY",
		"VCPUS", "PHASE");
	json_array_foreach((json_t *)statuses, i, status)
	{
		const json_t *migration = json_object_get(status, "migration");

		fprintf(out, "%-24s %8llu  %-10s %10s %6llu  %s\n", read_text(status, "guest"),
			(unsigned long long)read_number(status, "pid"), read_text(status, "state"),
			format_size(memory, read_number(status, "memory_bytes")),
			(unsigned long long)read_number(status, "vcpus"),
			migration ? read_text(migration, "phase") : "-");
	}
}
