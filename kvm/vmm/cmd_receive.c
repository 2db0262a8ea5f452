/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift receive`: wait for a guest from another host, then be its process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/options_security.h"
#include "kvm/vmm/privileges.h"
#include "kvm/vmm/server.h"

struct arguments {
	const char *listen;
	enum option_transport transport;
	struct option_rails rails;
	struct option_security security;
	const char *user;
	bool on_demand_paging;
	struct server_incoming incoming;
	bool verbose;
};

enum option_key { KEY_ODP = 0x100, KEY_USER };

static const struct argp_option options[] = {
	{ "listen", 'l', "ADDRESS", 0, "where to listen: host:port, 0.0.0.0:7440, [::]:7440", 0 },
	{ "transport", 't', "KIND", 0, "accept rdma, tcp, or auto: both (default)", 0 },
	{ "rails", 'R', "DEV[,DEV...]", 0,
	  "RDMA devices to receive with, as many as the source names; default the one that has the "
	  "address at which it comes in",
	  0 },
	{ "odp", KEY_ODP, NULL, 0,
	  "pin no memory, let the RDMA device fault it in (on-demand paging); slower", 0 },
	{ "numa-map", 'N', "FROM:TO[,...]", 0,
	  "put memory that is on node FROM at the source on node TO here, like 0:1,1:0; nodes that "
	  "are not named stay, where this host has them",
	  0 },
	{ "memory", 'm', "SIZE", 0, "take only a guest with this much memory; default any", 0 },
	{ "user", KEY_USER, "NAME", 0,
	  "become this user, who may use /dev/kvm and the RDMA devices; needs root", 0 },
	{ "once", '1', NULL, 0, "give up after one session that brings no guest", 0 },
	{ "verbose", 'v', NULL, 0, "a line about the guest every few seconds", 0 },
	{ 0 },
};

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *arguments = state->input;
	struct ramlift_error error;

	switch (key) {
	case 'l':
		command_check(state, option_address("--listen", text, true, &error), &error);
		arguments->listen = text;
		break;
	case 't':
		command_check(state, option_transport(text, &arguments->transport, &error), &error);
		break;
	case 'm':
		command_check(
			state,
			option_size("--memory", text, &arguments->incoming.memory_bytes, &error),
			&error);
		break;
	case 'R':
		command_check(state, option_rails(text, &arguments->rails, &error), &error);
		break;
	case KEY_ODP:
		arguments->on_demand_paging = true;
		break;
	case 'N':
		command_check(state, option_numa_map(text, &arguments->incoming.numa_map, &error),
			      &error);
		break;
	case KEY_USER:
		arguments->user = text;
		break;
	case '1':
		arguments->incoming.once = true;
		break;
	case 'v':
		arguments->verbose = true;
		break;
	case ARGP_KEY_END:
		if (!arguments->listen)
			command_usage(state, "say where to listen: --listen 0.0.0.0:7440");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "Wait for a guest from another host, then run it in the foreground, until it has "
	       "moved on or is stopped.\v"
	       "Beyond this host, peers prove who they are: --tls-dir or --psk-file. The process "
	       "gives up all privileges but that to lock memory.",
};

static bool is_low_port(const char *listen)
{
	int port = atoi(strrchr(listen, ':') + 1);

	return port > 0 && port < 1024;
}

/* First of all, for it concerns the calling thread and those that it makes. */
static int prepare(const struct arguments *arguments, struct server **server,
		   struct ramlift_error *error)
{
	int ret = machine_numa_map_check(&arguments->incoming.numa_map, error);

	if (!ret)
		ret = privileges_drop(arguments->user, is_low_port(arguments->listen), error);
	if (!ret)
		ret = server_new(server, error);
	return ret;
}

int cmd_receive(int argc, char **argv)
{
	static struct arguments arguments = { .transport = TRANSPORT_AUTO };
	const struct ramlift_transport *transports[2];
	struct ramlift_destination_config config;
	struct ramlift_error error = { .code = 0 };
	struct server *server = NULL;
	uint16_t port = 0;
	int ret;

	command_parse_secure(&argp, argc, argv, &arguments, &arguments.security);
	setvbuf(stdout, NULL, _IOLBF, 0);
	ramlift_destination_config_init(&config);
	config.listen = arguments.listen;
	config.transports = transports;
	config.n_transports = option_transport_list(arguments.transport, transports);
	config.rails = arguments.rails.list;
	config.n_rails = arguments.rails.n;
	config.on_demand_paging = arguments.on_demand_paging;
	option_security_apply(&arguments.security, &config.security, &config.timeouts);
	if (config.security.tls_dir || config.security.psk_file)
		privileges_forbid_dumps();
	ret = prepare(&arguments, &server, &error);
	if (!ret)
		ret = server_receive_guest(server, &config, &arguments.incoming, &port, &error);
	if (ret) {
		ret = command_failed("receive", &error);
		goto free_server;
	}
	printf("listening on %.*s:%u for a guest, process %d\n",
	       (int)(strrchr(arguments.listen, ':') - arguments.listen), arguments.listen, port,
	       (int)getpid());
	ret = server_wait(server, arguments.verbose);

free_server:
	server_free(server);
	return ret;
}
