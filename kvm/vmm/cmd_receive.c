/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift receive`: wait for a guest from another host, then be its process. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/server.h"

struct arguments {
	const char *listen;
	enum option_transport transport;
	uint64_t memory_bytes;
	bool once;
	bool verbose;
};

static const struct argp_option options[] = {
	{ "listen", 'l', "ADDRESS", 0, "where to listen: host:port, 0.0.0.0:7440, [::]:7440", 0 },
	{ "transport", 't', "KIND", 0, "accept rdma, tcp, or auto: both (default)", 0 },
	{ "memory", 'm', "SIZE", 0, "take only a guest with this much memory; default any", 0 },
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
		command_check(state,
			      option_size("--memory", text, &arguments->memory_bytes, &error),
			      &error);
		break;
	case '1':
		arguments->once = true;
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
	       "Whoever can reach the address can send a guest: listen on a network that you "
	       "trust.",
};

int cmd_receive(int argc, char **argv)
{
	struct arguments arguments = { .transport = TRANSPORT_AUTO };
	const struct ramlift_transport *transports[2];
	struct ramlift_destination_config config;
	struct ramlift_error error = { .code = 0 };
	struct server *server = NULL;
	uint16_t port = 0;
	int ret;

	command_parse(&argp, argc, argv, &arguments);
	setvbuf(stdout, NULL, _IOLBF, 0);
	ramlift_destination_config_init(&config);
	config.listen = arguments.listen;
	config.transports = transports;
	config.n_transports = option_transport_list(arguments.transport, transports);
	ret = server_new(&server, &error);
	if (!ret)
		ret = server_receive_guest(server, &config, arguments.once, arguments.memory_bytes,
					   &port, &error);
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
