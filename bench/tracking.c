/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to harvest KVM's dirty rings or its dirty log: the reference VMM's machine runs the
 * test guest at a dirty rate, a dirty source tracks it, and a sink counts the pages; no lanes, no
 * session. The cost is CPU time of whoever harvests: this thread, once a tick, and the source's
 * own. Prints one line of JSON. Exit status 77 with a reason: no /dev/kvm, or no dirty rings.
 *
 *     tracking [--mode ring|log] [--rate PAGES/S] [--hot-mib N] [--mib N] [--seconds N] [--ring N]
 */
#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/pair.h"
#include "core/clock.h"
#include "core/dirty_set.h"
#include "kvm/vmm/machine.h"

#define TICK_NS	    (20 * NS_PER_MS)
#define MAX_THREADS 64u

struct options {
	struct machine_config machine;
	unsigned seconds;
};

struct thread_list {
	unsigned n;
	long id[MAX_THREADS];
};

struct tracked {
	uint64_t ns, pages, harvests, written, source_cpu_ns, harvest_cpu_ns, longest_ns;
};

static void list_threads(struct thread_list *list)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;

	list->n = 0;
	while (tasks && (entry = readdir(tasks)) && list->n < MAX_THREADS) {
		if (entry->d_name[0] != '.')
			list->id[list->n++] = strtol(entry->d_name, NULL, 10);
	}
	if (tasks)
		closedir(tasks);
}

static bool is_in(const struct thread_list *list, long id)
{
	for (unsigned i = 0; i < list->n; i++)
		if (list->id[i] == id)
			return true;
	return false;
}

/* Time on a CPU so far of the threads that are not in `before`: the dirty source's own. */
static uint64_t new_threads_cpu_ns(const struct thread_list *before)
{
	struct thread_list now;
	uint64_t sum_ns = 0;

	list_threads(&now);
	for (unsigned i = 0; i < now.n; i++) {
		char path[64];
		uint64_t ns;
		FILE *file;

		if (is_in(before, now.id[i]))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%ld/schedstat", now.id[i]);
		file = fopen(path, "re");
		if (file && fscanf(file, "%" SCNu64, &ns) == 1)
			sum_ns += ns;
		if (file)
			fclose(file);
	}
	return sum_ns;
}

static uint64_t own_cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t pages_written(struct machine *machine)
{
	struct machine_report report;

	machine_report(machine, &report);
	return report.pages_written;
}

static void tick(const struct ramlift_dirty_source_ops *ops, void *source,
		 struct ramlift_dirty_sink *set, struct tracked *tracked)
{
	uint64_t cpu_ns = own_cpu_ns(), begin_ns = clock_now_ns(), ns;
	struct ramlift_error error = { 0 };

	if (ops->harvest(source, &error))
		die(&error, "harvest");
	tracked->harvest_cpu_ns += own_cpu_ns() - cpu_ns;
	ns = clock_now_ns() - begin_ns;
	if (ns > tracked->longest_ns)
		tracked->longest_ns = ns;
	tracked->pages += dirty_set_fold(set);
	tracked->harvests++;
}

static void track(const struct options *options, struct machine *machine,
		  struct ramlift_dirty_sink *set, struct tracked *tracked)
{
	uint64_t begin_ns, due_ns, written;
	const struct ramlift_dirty_source_ops *ops;
	struct ramlift_error error = { 0 };
	struct tracked warm_up = { 0 };
	struct thread_list before;
	void *source;

	ops = machine_dirty_source(machine, &source);
	list_threads(&before);
	if (ops->start(source, set, &error))
		die(&error, "start");
	tick(ops, source, set, &warm_up);
	begin_ns = due_ns = clock_now_ns();
	written = pages_written(machine);
	tracked->source_cpu_ns = new_threads_cpu_ns(&before);
	while (due_ns < begin_ns + options->seconds * NS_PER_S) {
		due_ns += TICK_NS;
		clock_sleep_until(due_ns);
		tick(ops, source, set, tracked);
	}
	tracked->ns = clock_now_ns() - begin_ns;
	tracked->source_cpu_ns = new_threads_cpu_ns(&before) - tracked->source_cpu_ns;
	tracked->written = pages_written(machine) - written;
	if (machine_pause(machine, &error))
		die(&error, "pause");
	ops->stop(source);
}

/* Without tracking: how fast the guest writes by itself. */
static double untracked_rate(struct machine *machine)
{
	uint64_t begin_ns = clock_now_ns(), written = pages_written(machine);

	clock_sleep_until(begin_ns + NS_PER_S);
	written = pages_written(machine) - written;
	return (double)written * (double)NS_PER_S / (double)(clock_now_ns() - begin_ns);
}

static void measure(const struct options *options)
{
	const struct machine_config *config = &options->machine;
	struct ramlift_error error = { 0 };
	struct tracked tracked = { 0 };
	struct ramlift_dirty_sink set;
	struct machine *machine;
	unsigned n_regions;
	double untracked, seconds, cpu_ns;
	struct ram ram;

	if (access("/dev/kvm", R_OK | W_OK)) {
		fprintf(stderr, "tracking: skipped: no /dev/kvm: %s\n", strerror(errno));
		exit(PAIR_EXIT_SKIP);
	}
	if (machine_new(config, &machine, &error)) {
		if (error.code != -EOPNOTSUPP)
			die(&error, "cannot make the machine");
		fprintf(stderr, "tracking: skipped: %s\n", error.text);
		exit(PAIR_EXIT_SKIP);
	}
	const struct ramlift_region *regions = machine_regions(machine, &n_regions);

	if (ram_init(&ram, regions, n_regions, SLICE_MAX_DEFAULT_BYTES) ||
	    dirty_set_init(&set, &ram))
		die(NULL, "no memory");
	if (machine_resume(machine, &error))
		die(&error, "cannot run the machine");
	while (pages_written(machine) <
	       machine_stamped_bytes(config) / RAMLIFT_PAGE_BYTES) /* at first */
		clock_sleep_until(clock_now_ns() + 10 * NS_PER_MS);
	untracked = untracked_rate(machine);
	track(options, machine, &set, &tracked);
	seconds = (double)tracked.ns / 1e9;
	cpu_ns = (double)(tracked.harvest_cpu_ns + tracked.source_cpu_ns);
	printf("{\"mode\":\"%s\",\"rate\":%" PRIu64 ",\"mib\":%" PRIu64 ",\"hot_mib\":%" PRIu64
	       ",\"harvested_per_s\":%.0f,\"written_per_s\":%.0f,\"written_untracked_per_s\":%.0f,"
	       "\"cpu_ns_per_entry\":%.1f,\"cpu_us_per_s\":%.1f,\"longest_harvest_us\":%.1f}\n",
	       config->dirty_mode == MACHINE_DIRTY_RING ? "ring" : "log",
	       config->workload.pages_per_second, config->memory_bytes >> 20,
	       config->workload.hot_bytes >> 20, (double)tracked.pages / seconds,
	       (double)tracked.written / seconds, untracked,
	       tracked.pages ? cpu_ns / (double)tracked.pages : 0.0, cpu_ns / 1e3 / seconds,
	       (double)tracked.longest_ns / 1e3);
	machine_free(machine);
	dirty_set_fini(&set);
	ram_fini(&ram);
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;
	struct machine_config *machine = &options->machine;

	switch (key) {
	case 'M':
		if (strcmp(text, "ring") && strcmp(text, "log"))
			argp_error(state, "mode '%s' is neither ring nor log", text);
		machine->dirty_mode = strcmp(text, "ring") ? MACHINE_DIRTY_LOG : MACHINE_DIRTY_RING;
		return 0;
	case 'r':
		machine->workload.pages_per_second = parse_number(state, text, 0, 1u << 30);
		return 0;
	case 'h':
		machine->workload.hot_bytes = parse_number(state, text, 1, 1u << 20) << 20;
		return 0;
	case 'm':
		machine->memory_bytes = parse_number(state, text, 16, 1u << 20) << 20;
		return 0;
	case 'f':
		machine->workload.fill_percent = (unsigned)parse_number(state, text, 1, 100);
		return 0;
	case 's':
		options->seconds = (unsigned)parse_number(state, text, 1, 3600);
		return 0;
	case 'e':
		machine->dirty_ring_entries = (unsigned)parse_number(state, text, 1, 65536);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option option_table[] = {
	{ "mode", 'M', "NAME", 0, "ring (the default) or log", 0 },
	{ "rate", 'r', "NUMBER", 0, "pages that the guest dirties a second; 0: all it can", 0 },
	{ "hot-mib", 'h', "NUMBER", 0, "the set that it writes, 256 MiB", 0 },
	{ "mib", 'm', "NUMBER", 0, "its memory, 1024 MiB", 0 },
	{ "fill", 'f', "PERCENT", 0, "of its memory that is in use, 75", 0 },
	{ "seconds", 's', "NUMBER", 0, "measured, 2", 0 },
	{ "ring", 'e', "NUMBER", 0, "entries of a dirty ring, 65536", 0 },
	{ 0 },
};

int main(int argc, char **argv)
{
	static const struct argp argp = { option_table, parse_option,
					  NULL,		"Measure the harvest of KVM's dirty pages.",
					  NULL,		NULL,
					  NULL };
	struct options options = { .seconds = 2 };

	machine_config_init(&options.machine);
	options.machine.memory_bytes = 1ull << 30;
	options.machine.workload.hot_bytes = 256ull << 20;
	options.machine.workload.pages_per_second = 10000;
	options.machine.dirty_ring_entries = 65536;
	argp_parse(&argp, argc, argv, 0, NULL, &options);
	measure(&options);
	return 0;
}
