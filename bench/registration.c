/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long an RDMA device takes to register memory: once, in slices, by some threads in parallel,
 * of pages that were touched before (warm) or not (cold, so that registration populates them).
 * Prints one line of JSON. Exit status 77 with a reason: no device, or no pages of that size.
 *
 *     registration [--device NAME] [--mib N] [--slice-mib N] [--threads N] [--page 4k|thp|2m]
 * [--cold]
 */
#include <argp.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/pair.h"
#include "core/clock.h"

#define MAX_THREADS 64u

struct options {
	const char *device, *page;
	uint64_t bytes, slice_bytes;
	unsigned threads;
	bool cold;
};

/* What all threads share. */
struct work {
	const struct options *options;
	struct ibv_pd *pd;
	char *memory;
	struct ibv_mr **regions;
	uint64_t n_slices;
};

struct worker {
	struct work *work;
	unsigned index;
	int error;
	pthread_t thread;
};

static _Noreturn void skip(const char *why)
{
	fprintf(stderr, "registration: skipped: %s\n", why);
	exit(PAIR_EXIT_SKIP);
}

static struct ibv_pd *open_device(const char *name)
{
	int n = 0;
	struct ibv_device **list = ibv_get_device_list(&n);
	struct ibv_context *context = NULL;
	struct ibv_pd *pd;

	for (int i = 0; i < n && !context; i++) {
		if (!name || !strcmp(name, ibv_get_device_name(list[i])))
			context = ibv_open_device(list[i]);
	}
	if (!context)
		skip("no such RDMA device");
	pd = ibv_alloc_pd(context);
	if (!pd)
		die(NULL, "cannot make a protection domain");
	return pd;
}

static char *map_memory(const struct options *options)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	char *memory;

	if (!strcmp(options->page, "2m"))
		flags |= MAP_HUGETLB | MFD_HUGE_2MB;
	memory = mmap(NULL, options->bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (memory == MAP_FAILED && flags & MAP_HUGETLB)
		skip("too few huge pages of 2 MiB are reserved (vm.nr_hugepages)");
	if (memory == MAP_FAILED)
		die(NULL, "cannot map memory");
	if (!strcmp(options->page, "thp") && madvise(memory, options->bytes, MADV_HUGEPAGE))
		skip("this kernel has no transparent huge pages");
	if (!options->cold && madvise(memory, options->bytes, MADV_POPULATE_WRITE))
		die(NULL, "cannot populate memory");
	return memory;
}

static void *register_slices(void *argument)
{
	struct worker *worker = argument;
	const struct work *work = worker->work;
	const struct options *options = work->options;

	for (uint64_t i = worker->index; i < work->n_slices; i += options->threads) {
		uint64_t start = i * options->slice_bytes;
		uint64_t left = options->bytes - start;

		work->regions[i] =
			ibv_reg_mr(work->pd, work->memory + start,
				   left < options->slice_bytes ? left : options->slice_bytes,
				   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
		if (!work->regions[i]) {
			worker->error = errno;
			return NULL;
		}
	}
	return NULL;
}

static uint64_t register_all(struct work *work)
{
	struct worker workers[MAX_THREADS] = { 0 };
	uint64_t begin_ns = clock_now_ns(), ns;

	for (unsigned i = 0; i < work->options->threads; i++) {
		workers[i].work = work;
		workers[i].index = i;
		if (pthread_create(&workers[i].thread, NULL, register_slices, &workers[i]))
			die(NULL, "cannot start a thread");
	}
	for (unsigned i = 0; i < work->options->threads; i++)
		pthread_join(workers[i].thread, NULL);
	ns = clock_now_ns() - begin_ns;
	for (unsigned i = 0; i < work->options->threads; i++) {
		errno = workers[i].error;
		if (errno)
			die(NULL, "cannot register memory");
	}
	return ns;
}

static void measure(const struct options *options)
{
	struct work work = {
		.options = options,
		.pd = open_device(options->device),
		.n_slices = (options->bytes + options->slice_bytes - 1) / options->slice_bytes,
	};
	uint64_t register_ns, begin_ns, deregister_ns;
	struct cpu_time cpu;
	double gb = (double)options->bytes / 1e9;

	work.memory = map_memory(options);
	work.regions = calloc(work.n_slices, sizeof(*work.regions));
	if (!work.regions)
		die(NULL, "no memory");
	cpu = cpu_now();
	register_ns = register_all(&work);
	cpu = cpu_since(cpu);
	begin_ns = clock_now_ns();
	for (uint64_t i = 0; i < work.n_slices; i++)
		if (ibv_dereg_mr(work.regions[i]))
			die(NULL, "cannot deregister memory");
	deregister_ns = clock_now_ns() - begin_ns;
	printf("{\"page\":\"%s\",\"cold\":%s,\"mib\":%llu,\"slice_mib\":%llu,\"threads\":%u,"
	       "\"register_ms_per_gb\":%.3f,\"deregister_ms_per_gb\":%.3f,\"cpu_ms_per_gb\":%.3f}"
	       "\n",
	       options->page, options->cold ? "true" : "false",
	       (unsigned long long)options->bytes >> 20,
	       (unsigned long long)options->slice_bytes >> 20, options->threads,
	       (double)register_ns / 1e6 / gb, (double)deregister_ns / 1e6 / gb,
	       (double)(cpu.user_ns + cpu.system_ns) / 1e6 / gb);
	free(work.regions);
	munmap(work.memory, options->bytes);
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'd':
		options->device = text;
		return 0;
	case 'm':
		options->bytes = parse_number(state, text, 1, 1u << 20) << 20;
		return 0;
	case 's':
		options->slice_bytes = parse_number(state, text, 1, 4096) << 20;
		return 0;
	case 't':
		options->threads = (unsigned)parse_number(state, text, 1, MAX_THREADS);
		return 0;
	case 'p':
		if (strcmp(text, "4k") && strcmp(text, "thp") && strcmp(text, "2m"))
			argp_error(state, "page '%s' is none of 4k, thp, 2m", text);
		options->page = text;
		return 0;
	case 'c':
		options->cold = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option option_table[] = {
	{ "device", 'd', "NAME", 0, "RDMA device; the first", 0 },
	{ "mib", 'm', "NUMBER", 0, "memory, 1024 MiB", 0 },
	{ "slice-mib", 's', "NUMBER", 0, "registered at once, 256 MiB", 0 },
	{ "threads", 't', "NUMBER", 0, "in parallel, 1", 0 },
	{ "page", 'p', "KIND", 0, "4k (the default), thp, 2m (reserved huge pages)", 0 },
	{ "cold", 'c', NULL, 0, "memory that was never touched", 0 },
	{ 0 },
};

int main(int argc, char **argv)
{
	static const struct argp argp = { option_table, parse_option,
					  NULL,		"Measure the registration of memory.",
					  NULL,		NULL,
					  NULL };
	struct options options = {
		.page = "4k",
		.bytes = 1ull << 30,
		.slice_bytes = 256ull << 20,
		.threads = 1,
	};

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	measure(&options);
	return 0;
}
