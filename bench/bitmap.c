/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What dirty bitmaps cost, without memory behind them: the time to mark, fold and collect some
 * pages spread evenly over guests of several sizes, in turns; then, with every page of the largest
 * one dirty, the resident memory of the engine's tables with its lanes, and the time of those lanes
 * for each page when sending costs nothing. Prints one line of JSON.
 *
 *     bitmap [--pages N] [--lanes N] [--repeat N] GIB...
 */
#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/pair.h"
#include "bench/usable_pins.h"
#include "core/clock.h"
#include "core/dirty_set.h"
#include "core/lanes.h"
#include "core/ram.h"

#define MAX_SIZES  8u
#define MAX_REPEAT 10001u

struct options {
	unsigned pages, lanes, repeat, n_sizes;
	uint64_t gib[MAX_SIZES];
};

/* One guest, and the times of each repetition. */
struct guest {
	struct ramlift_region region;
	struct ram ram;
	struct ramlift_dirty_sink set;
	uint64_t mark_ns[MAX_REPEAT], fold_ns[MAX_REPEAT], collect_ns[MAX_REPEAT];
};

/* Address space only: nobody reads it. */
static void guest_init(struct guest *guest, uint64_t gib)
{
	uint64_t bytes = gib << 30;

	guest->region = (struct ramlift_region){
		.size_bytes = bytes,
		.hva = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			    0),
		.memfd = -1,
		.numa_node = -1,
		.page_size_bytes = RAMLIFT_PAGE_BYTES,
	};
	if (guest->region.hva == MAP_FAILED ||
	    ram_init(&guest->ram, &guest->region, 1, SLICE_MAX_DEFAULT_BYTES) ||
	    dirty_set_init(&guest->set, &guest->ram))
		die(NULL, "no memory for the bitmaps");
}

static void guest_fini(struct guest *guest)
{
	dirty_set_fini(&guest->set);
	ram_fini(&guest->ram);
	munmap(guest->region.hva, guest->region.size_bytes);
}

/* As a lane does that is alone and has nothing to send with. Returns the number of pages. */
static uint64_t collect(struct ramlift_dirty_sink *set)
{
	struct dirty_bitmap *dirty = &set->dirty;
	uint64_t end = dirty->n_summary, n_pages = 0;

	for (uint64_t s = dirty_bitmap_next(dirty, 0, end); s < end;
	     s = dirty_bitmap_next(dirty, s + 1, end)) {
		uint64_t stripes = dirty_bitmap_claim(dirty, s, ~0ull);

		for (unsigned i; bit_next(&stripes, &i);)
			n_pages += (unsigned)__builtin_popcountll(
				dirty_bitmap_take(dirty, s * 64 + i));
	}
	return n_pages;
}

static void repeat_once(struct guest *guest, unsigned n_pages, unsigned repetition)
{
	uint64_t step = guest->region.size_bytes / RAMLIFT_PAGE_BYTES / n_pages;
	uint64_t clock_ns = clock_now_ns(), found;

	for (unsigned i = 0; i < n_pages; i++)
		ramlift_dirty_mark(&guest->set, 0, i * step, 1);
	guest->mark_ns[repetition] = clock_lap_ns(&clock_ns);
	dirty_set_fold(&guest->set);
	guest->fold_ns[repetition] = clock_lap_ns(&clock_ns);
	found = collect(&guest->set);
	guest->collect_ns[repetition] = clock_lap_ns(&clock_ns);
	if (found != n_pages) {
		fprintf(stderr, "bitmap: %" PRIu64 " of %u pages were found\n", found, n_pages);
		exit(1);
	}
	dirty_set_fold(&guest->set); /* a tick without writes, not measured */
	dirty_bitmap_tidy(&guest->set.dirty);
}

/* ---- all of it dirty, and lanes over it ---- */

static int null_post(struct endpoint *endpoint, unsigned lane, const struct transport_write *writes,
		     unsigned n_writes, struct ramlift_error *error)
{
	(void)endpoint;
	(void)lane;
	(void)writes;
	(void)n_writes;
	(void)error;
	return 0;
}

static uint64_t null_in_flight_bytes(struct endpoint *endpoint, unsigned lane)
{
	(void)endpoint;
	(void)lane;
	return 0;
}

static int null_drain(struct endpoint *endpoint, unsigned lane, struct ramlift_error *error)
{
	(void)endpoint;
	(void)lane;
	(void)error;
	return 0;
}

static int null_token(struct endpoint *endpoint, unsigned lane, uint64_t token,
		      struct ramlift_error *error)
{
	(void)token;
	return null_drain(endpoint, lane, error);
}

static void null_abort(struct endpoint *endpoint)
{
	(void)endpoint;
}

static const struct ramlift_transport null_transport = {
	.name = "null",
	.post = null_post,
	.in_flight_bytes = null_in_flight_bytes,
	.drain = null_drain,
	.token = null_token,
	.abort = null_abort,
};

static uint64_t resident_kib(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	uint64_t kib = 0;
	char line[128];

	while (status && fgets(line, sizeof(line), status)) {
		if (sscanf(line, "RssAnon: %" SCNu64, &kib) == 1)
			break;
	}
	if (status)
		fclose(status);
	return kib;
}

/* Both bitmaps full, which is the worst, and all lanes through them. */
static void send_all(uint64_t gib, unsigned n_lanes, uint64_t *rss_kib, double *ns_per_page)
{
	uint64_t before_kib = resident_kib(), begin_ns;
	struct guest *guest = calloc(1, sizeof(*guest));
	uint64_t tokens[RAMLIFT_MAX_LANES] = { 1 };
	struct ramlift_error error = { 0 };
	struct lanes_config config;
	struct cpu_time cpu;
	struct lanes *lanes;
	struct pins *pins;

	if (!guest)
		die(NULL, "no memory");
	guest_init(guest, gib);
	pins = usable_pins(&guest->ram, NULL);
	ramlift_dirty_mark(&guest->set, 0, 0, guest->region.size_bytes / RAMLIFT_PAGE_BYTES);
	dirty_set_fold(&guest->set);
	dirty_set_fold(&guest->set);
	config = (struct lanes_config){
		.ram = &guest->ram,
		.set = &guest->set,
		.pins = pins,
		.transport = &null_transport,
		.n_rails = 1,
		.n_lanes = n_lanes,
		.region_rails = usable_pins_region_rails,
	};
	cpu = cpu_now();
	begin_ns = clock_now_ns();
	if (lanes_start(&config, &lanes, &error))
		die(&error, "lanes");
	lanes_finish(lanes, tokens);
	if (lanes_wait(lanes, begin_ns + 60 * NS_PER_S, &error))
		die(&error, "lanes");
	cpu = cpu_since(cpu);
	*rss_kib = resident_kib() - before_kib;
	*ns_per_page = (double)(cpu.user_ns + cpu.system_ns) /
		       (double)(guest->region.size_bytes / RAMLIFT_PAGE_BYTES);
	lanes_free(lanes);
	pins_free(pins);
	guest_fini(guest);
	free(guest);
}

static void measure(const struct options *options)
{
	struct guest *guests = calloc(options->n_sizes, sizeof(*guests));
	uint64_t largest = 0, rss_kib;
	double ns_per_page;

	if (!guests)
		die(NULL, "no memory");
	for (unsigned i = 0; i < options->n_sizes; i++) {
		guest_init(&guests[i], options->gib[i]);
		if (options->gib[i] > largest)
			largest = options->gib[i];
		repeat_once(&guests[i], options->pages, 0); /* populates the tables */
	}
	for (unsigned r = 0; r < options->repeat; r++)
		for (unsigned i = 0; i < options->n_sizes; i++)
			repeat_once(&guests[i], options->pages, r);
	printf("{\"pages\":%u,\"repeat\":%u,\"sizes\":[", options->pages, options->repeat);
	for (unsigned i = 0; i < options->n_sizes; i++) {
		struct guest *guest = &guests[i];

		printf("%s{\"gib\":%" PRIu64 ",\"mark_ns\":%" PRIu64 ",\"fold_ns\":%" PRIu64
		       ",\"collect_ns\":%" PRIu64 "}",
		       i ? "," : "", options->gib[i], median_u64(guest->mark_ns, options->repeat),
		       median_u64(guest->fold_ns, options->repeat),
		       median_u64(guest->collect_ns, options->repeat));
		guest_fini(guest);
	}
	free(guests);
	send_all(largest, options->lanes, &rss_kib, &ns_per_page);
	printf("],\"all_dirty\":{\"gib\":%" PRIu64 ",\"lanes\":%u,\"rss_kib\":%" PRIu64
	       ",\"cpu_ns_per_page\":%.3f}}\n",
	       largest, options->lanes, rss_kib, ns_per_page);
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'p':
		options->pages = (unsigned)parse_number(state, text, 1, 1u << 18);
		return 0;
	case 'l':
		options->lanes = (unsigned)parse_number(state, text, 1, RAMLIFT_MAX_LANES);
		return 0;
	case 'r':
		options->repeat = (unsigned)parse_number(state, text, 1, MAX_REPEAT);
		return 0;
	case ARGP_KEY_ARG:
		if (options->n_sizes == MAX_SIZES)
			argp_error(state, "at most %u sizes", MAX_SIZES);
		options->gib[options->n_sizes++] = parse_number(state, text, 1, 15u << 10);
		return 0;
	case ARGP_KEY_END:
		if (!options->n_sizes)
			argp_usage(state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option option_table[] = {
	{ "pages", 'p', "NUMBER", 0, "dirty pages, 1000", 0 },
	{ "lanes", 'l', "NUMBER", 0, "over the largest guest, all of it dirty; 8", 0 },
	{ "repeat", 'r', "NUMBER", 0, "repetitions, 1001", 0 },
	{ 0 },
};

int main(int argc, char **argv)
{
	static const struct argp argp = {
		option_table, parse_option,
		"GIB...",     "Measure dirty bitmaps of guests of these sizes.",
		NULL,	      NULL,
		NULL
	};
	struct options options = { .pages = 1000, .lanes = 8, .repeat = 1001 };

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	measure(&options);
	return 0;
}
