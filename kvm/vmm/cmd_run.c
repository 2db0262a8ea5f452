/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift run`: make a guest and keep it until it has moved away or is stopped. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/server.h"

#define MIN_MEMORY_BYTES (16ull << 20)
#define HOT_NOT_GIVEN	 UINT64_MAX

struct arguments {
	const char *name;
	struct machine_config config;
	bool verbose;
};

static const struct argp_option options[] = {
	{ "name", 'n', "NAME", 0, "the guest's name, by which the other commands know it", 0 },
	{ "memory", 'm', "SIZE", 0, "its memory, at least 16M; like 256M, 1.5G, 32G", 0 },
	{ "vcpus", 'c', "N", 0, "its virtual CPUs, 1 to 16; default 1", 0 },
	{ "workload", 'w', "LIST", 0,
	  "what the test guest writes: hot=SIZE, rate=PAGES a second (0: as fast as it can), "
	  "pattern=uniform, sequential or skewed, fill=PERCENT of memory that is stamped; like "
	  "hot=32M,rate=2000,pattern=skewed",
	  0 },
	{ "hugepages", 'H', "SIZE", 0, "put its memory on huge pages of 2M or 1G", 0 },
	{ "numa-nodes", 'N', "LIST", 0,
	  "split its memory evenly over these NUMA nodes, like 0,1; default wherever it comes from",
	  0 },
	{ "dirty", 'd', "KIND", 0, "how KVM tells dirty pages: ring (default) or log", 0 },
	{ "dirty-ring-size", 'r', "N", 0, "entries of each vCPU's ring, a power of two up to 65536",
	  0 },
	{ "verbose", 'v', NULL, 0, "a line about the guest every few seconds", 0 },
	{ 0 },
};

static void take_ring(const struct argp_state *state, const char *text, struct arguments *arguments)
{
	struct ramlift_error error;
	uint64_t entries;

	command_check(state, option_number("--dirty-ring-size", text, 64, 65536, &entries, &error),
		      &error);
	if (entries & (entries - 1))
		command_usage(state, "--dirty-ring-size '%s' is not a power of two", text);
	arguments->config.dirty_ring_entries = (unsigned)entries;
}

/* The guest writes only to what it stamps. */
static void check_hot(const struct argp_state *state, struct machine_config *config)
{
	uint64_t stamped_bytes = machine_stamped_bytes(config);
	char hot[FORMAT_BYTES], stamped[FORMAT_BYTES];
	struct machine_config usual;

	if (config->workload.hot_bytes == HOT_NOT_GIVEN) {
		machine_config_init(&usual);
		config->workload.hot_bytes = usual.workload.hot_bytes < stamped_bytes
						     ? usual.workload.hot_bytes
						     : stamped_bytes;
	} else if (config->workload.hot_bytes > config->memory_bytes) {
		command_usage(state, "--workload hot=%s is more than the guest's memory",
			      format_size(hot, config->workload.hot_bytes));
	} else if (config->workload.hot_bytes > stamped_bytes) {
		command_usage(state,
			      "--workload hot=%s is more than the %s that the guest stamps: take "
			      "less, or a larger fill=PERCENT",
			      format_size(hot, config->workload.hot_bytes),
			      format_size(stamped, stamped_bytes));
	}
}

static void check(const struct argp_state *state, struct arguments *arguments)
{
	struct machine_config *config = &arguments->config;
	char size[FORMAT_BYTES];

	if (!arguments->name)
		command_usage(state, "a guest needs a name: --name db1");
	if (!config->memory_bytes)
		command_usage(state, "a guest needs memory: --memory 256M");
	if (config->memory_bytes < MIN_MEMORY_BYTES)
		command_usage(state, "--memory must be at least 16M");
	if (config->memory_bytes % config->page_size_bytes)
		command_usage(state, "--memory must be a multiple of the page size, %s",
			      format_size(size, config->page_size_bytes));
	check_hot(state, config);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	static const char *const sizes[] = { "2M", "1G" }, *const modes[] = { "ring", "log" };
	struct arguments *arguments = state->input;
	struct machine_config *config = &arguments->config;
	struct ramlift_error error;
	uint64_t number = 0;
	unsigned index = 0;

	switch (key) {
	case 'n':
		command_check(state, option_guest_name(text, &error), &error);
		arguments->name = text;
		break;
	case 'm':
		command_check(state, option_size("--memory", text, &config->memory_bytes, &error),
			      &error);
		break;
	case 'c':
		command_check(state,
			      option_number("--vcpus", text, 1, MACHINE_MAX_VCPUS, &number, &error),
			      &error);
		config->n_vcpus = (unsigned)number;
		break;
	case 'w':
		command_check(state, option_workload(text, &config->workload, &error), &error);
		break;
	case 'H':
		command_check(state, option_word("--hugepages", text, sizes, 2, &index, &error),
			      &error);
		config->page_size_bytes = index ? 1ull << 30 : 2ull << 20;
		break;
	case 'N':
		command_check(state, option_numa_nodes(text, config, &error), &error);
		break;
	case 'd':
		command_check(state, option_word("--dirty", text, modes, 2, &index, &error),
			      &error);
		config->dirty_mode = index ? MACHINE_DIRTY_LOG : MACHINE_DIRTY_RING;
		break;
	case 'r':
		take_ring(state, text, arguments);
		break;
	case 'v':
		arguments->verbose = true;
		break;
	case ARGP_KEY_END:
		check(state, arguments);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "Run a guest in the foreground, until it has moved to another host or is stopped.\v"
	       "Sizes are in powers of 1024. The first interrupt during a migration cancels it, "
	       "the next stops the guest.",
};

int cmd_run(int argc, char **argv)
{
	struct arguments arguments = { .name = NULL };
	struct ramlift_error error = { .code = 0 };
	struct server *server = NULL;
	char memory[FORMAT_BYTES];
	int ret;

	machine_config_init(&arguments.config);
	arguments.config.memory_bytes = 0;
	arguments.config.workload.hot_bytes = HOT_NOT_GIVEN;
	command_parse(&argp, argc, argv, &arguments);
	setvbuf(stdout, NULL, _IOLBF, 0);
	ret = server_new(&server, &error);
	if (!ret)
		ret = server_run_guest(server, arguments.name, &arguments.config, &error);
	if (ret) {
		ret = command_failed("run", &error);
		goto free_server;
	}
	printf("guest %s runs: %s, %u vCPU%s, process %d\n", arguments.name,
	       format_size(memory, arguments.config.memory_bytes), arguments.config.n_vcpus,
	       arguments.config.n_vcpus == 1 ? "" : "s", (int)getpid());
	ret = server_wait(server, arguments.verbose);

free_server:
	server_free(server);
	return ret;
}
