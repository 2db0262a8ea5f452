/* SPDX-License-Identifier: Apache-2.0 */
/* Figures: into JSON, out of it into the table and the progress line. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kvm/vmm/command.h"
#include "kvm/vmm/control_socket.h"
#include "kvm/vmm/doubt.h"
#include "kvm/vmm/progress.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/report_json.h"
#include "kvm/vmm/report_read.h"
#include "kvm/vmm/report_table.h"

static struct ramlift_stats make_stats(unsigned n_lanes, unsigned n_rails)
{
	struct ramlift_stats stats = {
		.phase = RAMLIFT_PHASE_STREAM,
		.transport = "tcp",
		.ram_bytes = 256ull << 20,
		.bytes_sent = 300ull << 20,
		.bytes_remaining = 64ull << 20,
		.send_rate_bytes_per_s = 1ull << 30,
		.dirty_rate_bytes_per_s = 8ull << 20,
		.passes = 3,
		.elapsed_ns = 1234567890,
		.downtime = { 1000000, 2000000, 3000000, 4000000, 5000000, 6000000, 7000000,
			      8000000, 9000000, 45000000 },
		.verified = true,
		.digest = 0x1234abcd,
		.n_lanes = n_lanes,
	};

	stats.phase_ns[RAMLIFT_PHASE_STOP_AND_COPY] = 17000000;
	for (unsigned i = 0; i < n_lanes && i < RAMLIFT_MAX_LANES; i++) {
		stats.lanes[i].bytes_sent = 75ull << 20;
		stats.lanes[i].writes = UINT64_MAX / 2;
		stats.lanes[i].busy_ns = 500000000;
		stats.lanes[i].rail = i % n_rails;
		stats.lanes[i].numa_node = (int)i % 2 - 1;
	}
	return stats;
}

static json_t *make_result(unsigned n_lanes, unsigned n_rails)
{
	struct machine_report report = { .pages_written = 5, .pages_verified = 70000 };
	struct ramlift_stats stats = make_stats(n_lanes, n_rails);
	json_t *result = report_stats(&stats);

	json_object_set_new(result, "outcome", json_string("done"));
	json_object_set_new(result, "guest_check", report_guest(&report));
	return result;
}

/* What a table prints, to be freed. */
static char *table_text(void (*table)(FILE *out, const json_t *json), const json_t *json)
{
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	assert_non_null(out);
	table(out, json);
	fclose(out);
	return text;
}

static void json_has_every_figure_with_its_unit(void **state)
{
	json_t *result = make_result(2, 2), *downtime, *lane;

	(void)state;
	assert_int_equal(read_number(result, "bytes_sent"), 300 << 20);
	assert_string_equal(read_text(result, "phase"), "stream");
	assert_string_equal(read_text(result, "digest"), "000000001234abcd");
	assert_int_equal(read_number(json_object_get(result, "phases"), "stop_and_copy_ns"),
			 17000000);
	downtime = json_object_get(result, "downtime");
	assert_int_equal(json_object_size(downtime), 10);
	assert_int_equal(read_number(downtime, "start_ns"), 9000000);
	assert_int_equal(json_array_size(json_object_get(result, "lanes")), 2);
	lane = json_array_get(json_object_get(result, "lanes"), 1);
	assert_int_equal(read_number(lane, "busy_rate_bytes_per_s"), 150 << 20);
	assert_int_equal(read_number(lane, "rail"), 1);
	assert_int_equal(read_number(lane, "numa_node"), 0);
	lane = json_array_get(json_object_get(result, "lanes"), 0);
	assert_int_equal(json_integer_value(json_object_get(lane, "numa_node")), -1);
	json_decref(result);
}

static void most_lanes_fit_into_a_line(void **state)
{
	json_t *status = json_object();
	json_t *result = make_result(RAMLIFT_MAX_LANES + 5, 8);
	char *line;

	(void)state;
	assert_int_equal(json_array_size(json_object_get(result, "lanes")), RAMLIFT_MAX_LANES);
	/* The largest answer: status during a second migration. */
	json_object_set(status, "migration", result);
	json_object_set_new(status, "last_migration", result);
	line = json_dumps(status, JSON_COMPACT);
	assert_true(strlen(line) < CONTROL_MAX_LINE_BYTES - 4096);
	free(line);
	json_decref(status);
}

static void words_of_a_peer_are_cleaned(void **state)
{
	json_t *error = report_error(-ECONNREFUSED, "bad \x1b[31m\xff words\n");

	(void)state;
	assert_string_equal(read_text(error, "message"), "bad ?[31m? words?");
	assert_string_equal(read_text(error, "name"), "ECONNREFUSED");
	json_decref(error);
}

static void outcomes_have_exit_statuses(void **state)
{
	(void)state;
	assert_int_equal(report_outcome_status(report_outcome(0)), COMMAND_DONE);
	assert_int_equal(report_outcome_status(report_outcome(-EPROTO)), COMMAND_FAILED);
	assert_int_equal(report_outcome_status(report_outcome(-ECANCELED)), COMMAND_CANCELLED);
	assert_int_equal(report_outcome_status(report_outcome(-EINPROGRESS)), COMMAND_IN_DOUBT);
	assert_int_equal(report_outcome_status("nonsense"), COMMAND_FAILED);
	assert_int_equal(report_outcome_status(NULL), COMMAND_FAILED);
}

static void table_has_the_downtime_in_order(void **state)
{
	static const char *const parts[] = {
		"downtime", "pause", " 1000 us", "harvest",	"save",	  "drain",
		"verify",   "fence", "load",	 "commit",	"start",  " 9000 us",
		"lane",	    "rail",  "node",	 "150.0 MiB/s", "lost\n",
	};
	json_t *result = make_result(2, 2), *first;
	char *text, *at;

	(void)state;
	first = json_array_get(json_object_get(result, "lanes"), 0);
	json_object_set_new(first, "lost", json_true());
	text = table_text(report_table_migration, result);
	at = text;
	assert_non_null(strstr(text, "300.0 MiB in 3 passes"));
	assert_non_null(strstr(text, "stop-and-copy"));
	assert_non_null(strstr(text, "digests of all memory are equal"));
	assert_non_null(strstr(text, "70000 verified in 0 sweeps, 0 failures, as of the pause"));
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		at = strstr(at, parts[i]);
		assert_non_null(at);
	}
	free(text);
	json_decref(result);
}

static void rails_show_where_there_are_several(void **state)
{
	json_t *result = make_result(3, 2);
	char *text = table_text(report_table_migration, result);

	(void)state;
	assert_non_null(strstr(text, "rate   rail   node\n"));
	assert_non_null(strstr(text, "MiB/s      0      -\n"));
	assert_non_null(strstr(text, "MiB/s      1      0\n"));
	free(text);
	json_decref(result);
	result = make_result(3, 1);
	text = table_text(report_table_migration, result);
	assert_null(strstr(text, "rail"));
	free(text);
	json_decref(result);
}

static void numa_nodes_of_a_guest_show(void **state)
{
	json_t *status = json_pack("{s:s, s:[i,i,i]}", "guest", "db1", "numa_nodes", 1, 0, -1);
	char *text = table_text(report_table_guest, status);

	(void)state;
	assert_non_null(strstr(text, "in equal parts 1, 0, any\n"));
	free(text);
	json_decref(status);
}

/* Who decides must see what he decides about. */
static void a_doubt_shows_with_what_resolves_it(void **state)
{
	const struct ramlift_doubt doubt = {
		.guest = "db1",
		.session = "00112233445566778899aabbccddeeff",
		.generation = 3,
		.peer = "10.0.0.2:7440",
		.time_s = 86400,
	};
	char hint[DOUBT_HINT_BYTES];
	json_t *status;
	char *text;

	(void)state;
	doubt_hint(hint, &doubt, true);
	assert_non_null(strstr(hint, "ramlift resolve db1 --source --yes"));
	assert_non_null(strstr(hint, "ramlift resolve db1 --destination"));
	assert_null(strstr(hint, "--ask"));
	doubt_hint(hint, &doubt, false);
	assert_non_null(strstr(hint, "ramlift resolve db1 --ask"));
	assert_true(strlen(hint) < sizeof(hint) - 1);
	status = json_pack("{s:s, s:s, s:o, s:s}", "guest", "db1", "state", "in-doubt", "doubt",
			   doubt_json(&doubt), "hint", hint);
	text = table_text(report_table_guest, status);
	assert_non_null(strstr(text, "10.0.0.2:7440 since 1970-01-02 00:00:00 UTC"));
	assert_non_null(strstr(text, "00112233445566778899aabbccddeeff, generation 3"));
	assert_non_null(strstr(text, "ramlift resolve db1 --source --yes"));
	/* There is no process. */
	assert_null(strstr(text, "process  "));
	free(text);
	json_decref(status);
}

/* The longest names do not push the commands out. */
static void hints_are_never_cut(void **state)
{
	struct ramlift_doubt doubt = { .generation = 1 };
	struct ramlift_error error;
	char hint[DOUBT_HINT_BYTES];

	(void)state;
	memset(doubt.guest, 'g', sizeof(doubt.guest) - 1);
	memset(doubt.peer, 'p', 300);
	doubt_hint(hint, &doubt, false);
	assert_non_null(strstr(hint, "(in QEMU: 'cont')"));
	doubt_hint(hint, &doubt, true);
	assert_non_null(strstr(hint, "destroys its data"));
	assert_int_equal(doubt_refuse(&doubt, &error), -EBUSY);
}

static void a_resolution_is_part_of_the_last_migration(void **state)
{
	json_t *status =
		json_pack("{s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s}}", "guest", "db1", "state",
			  "running", "last_migration", "outcome", "in-doubt", "direction",
			  "outgoing", "to", "b:7440", "resolved", "source", "resolved_by", "fence");
	char *text = table_text(report_table_guest, status);

	(void)state;
	assert_non_null(strstr(text, "by the word of the fence: it is the source's"));
	free(text);
	json_decref(status);
}

static void odd_json_is_no_problem(void **state)
{
	static const char *const odd[] = {
		"{}",
		"{\"outcome\":7,\"lanes\":{},\"downtime\":[],\"phases\":3,\"guest_check\":\"x\"}",
		"{\"outcome\":\"done\",\"lanes\":[1,null,{}],\"downtime\":{\"pause_ns\":\"x\"},"
		"\"phases\":{\"x_ns\":-5,\"_ns\":1,\"a\":2}}",
		"{\"outcome\":\"done\",\"bytes_sent\":-9223372036854775807,\"ram_bytes\":1,"
		"\"bytes_remaining\":9223372036854775807}",
	};
	char line[256];

	(void)state;
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		json_t *json = json_loads(odd[i], 0, NULL), *all = json_pack("[O]", json);

		assert_non_null(json);
		free(table_text(report_table_migration, json));
		free(table_text(report_table_guest, json));
		free(table_text(report_table_guests, all));
		progress_format(line, sizeof(line), json);
		json_decref(all);
		json_decref(json);
	}
}

static void progress_is_one_line(void **state)
{
	struct ramlift_stats stats = make_stats(4, 1);
	json_t *event;
	char line[256];

	(void)state;
	stats.throttled = true;
	event = report_stats(&stats);
	progress_format(line, sizeof(line), event);
	assert_string_equal(line, "stream         75%  64.0 MiB left  1.00 GiB/s  dirty 8.00 MiB/s "
				  "(slowed)  4 lanes");
	json_decref(event);
}

static void figures_are_readable(void **state)
{
	char text[FORMAT_BYTES];

	(void)state;
	assert_string_equal(format_size(text, 0), "0 B");
	assert_string_equal(format_size(text, 1023), "1023 B");
	assert_string_equal(format_size(text, 1024), "1.00 KiB");
	assert_string_equal(format_size(text, (1ull << 30) - 1), "1.00 GiB");
	assert_string_equal(format_size(text, UINT64_MAX), "16.0 EiB");
	assert_string_equal(format_rate(text, 1288490189), "1.20 GiB/s");
	assert_string_equal(format_time(text, 999), "1 us");
	assert_string_equal(format_time(text, 12345678), "12.35 ms");
	assert_string_equal(format_time(text, 4560000000), "4.56 s");
	assert_string_equal(format_us(text, 4560000600), "4560001 us");
	assert_string_equal(format_us(text, 499), "0 us");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_has_every_figure_with_its_unit),
		cmocka_unit_test(most_lanes_fit_into_a_line),
		cmocka_unit_test(words_of_a_peer_are_cleaned),
		cmocka_unit_test(outcomes_have_exit_statuses),
		cmocka_unit_test(table_has_the_downtime_in_order),
		cmocka_unit_test(rails_show_where_there_are_several),
		cmocka_unit_test(numa_nodes_of_a_guest_show),
		cmocka_unit_test(a_doubt_shows_with_what_resolves_it),
		cmocka_unit_test(hints_are_never_cut),
		cmocka_unit_test(a_resolution_is_part_of_the_last_migration),
		cmocka_unit_test(odd_json_is_no_problem),
		cmocka_unit_test(progress_is_one_line),
		cmocka_unit_test(figures_are_readable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
