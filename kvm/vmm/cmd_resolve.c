/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift resolve`: the operator says which side owns a guest in doubt. */
#include <stdio.h>

#include "kvm/vmm/command.h"
#include "kvm/vmm/control_client.h"

#define PATIENCE_MS 10000

struct arguments {
	const char *name;
	bool source;
	bool destination;
	bool yes;
};

static const struct argp_option options[] = {
	{ "source", 's', NULL, 0,
	  "let the guest run on here; only if you know that it does not run at the destination and "
	  "never will, so it needs --yes",
	  0 },
	{ "destination", 'd', NULL, 0, "the guest runs at the destination: give it up here", 0 },
	{ "yes", 'y', NULL, 0, "yes, I know that it does not run at the destination", 0 },
	{ 0 },
};

static void check(const struct argp_state *state, const struct arguments *arguments)
{
	if (!arguments->name)
		command_usage(state, "say which guest: ramlift resolve db1 --destination");
	if (arguments->source == arguments->destination)
		command_usage(state, "say who owns the guest: --source or --destination");
	if (arguments->source && !arguments->yes)
		command_usage(state, "a guest that runs on both hosts destroys its data: add --yes "
				     "only if you know that it does not run at the destination");
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 's':
		arguments->source = true;
		break;
	case 'd':
		arguments->destination = true;
		break;
	case 'y':
		arguments->yes = true;
		break;
	case ARGP_KEY_ARG:
		command_take_name(state, &arguments->name, text);
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
	.args_doc = "GUEST",
	.doc = "Say where a guest is that 'ramlift status' shows as in-doubt.\v"
	       "A guest is in doubt when the destination was told to run it and did not answer. "
	       "Look there first ('ramlift status' on that host).",
};

int cmd_resolve(int argc, char **argv)
{
	struct arguments arguments = { .name = NULL };
	struct ramlift_error error;
	json_t *request;

	command_parse(&argp, argc, argv, &arguments);
	request = json_pack("{s:s, s:s}", "request", "resolve", "owner",
			    arguments.source ? "source" : "destination");
	if (control_client_ask(arguments.name, request, PATIENCE_MS, NULL, &error))
		return command_failed("resolve", &error);
	printf(arguments.source ? "guest %s runs on here\n" : "guest %s is given up here\n",
	       arguments.name);
	return COMMAND_DONE;
}
