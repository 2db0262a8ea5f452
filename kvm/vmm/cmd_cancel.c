/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift cancel`: end a guest's migration and wait for what came of it. */
#include <stdio.h>
#include <string.h>

#include "kvm/vmm/command.h"
#include "kvm/vmm/control_client.h"
#include "kvm/vmm/report_read.h"

static error_t parse(int key, char *text, struct argp_state *state)
{
	switch (key) {
	case ARGP_KEY_ARG:
		command_take_name(state, state->input, text);
		return 0;
	case ARGP_KEY_NO_ARGS:
		command_usage(state, "say which guest: ramlift cancel db1");
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.parser = parse,
	.args_doc = "GUEST",
	.doc = "End the migration of a guest before its switchover; it runs on at the source.\v"
	       "Waits until the migration has ended. Exit status 1 if it could not be cancelled "
	       "any more.",
};

int cmd_cancel(int argc, char **argv)
{
	struct ramlift_error error;
	const char *name = NULL;
	json_t *result = NULL;
	bool cancelled;

	command_parse(&argp, argc, argv, &name);
	if (control_client_ask(name, json_pack("{s:s}", "request", "cancel"), -1, &result, &error))
		return command_failed("cancel", &error);
	cancelled = !strcmp(read_text(result, "outcome"), "cancelled");
	if (cancelled)
		printf("the migration of guest %s is cancelled\n", name);
	else
		fprintf(stderr, "ramlift cancel: the migration of guest %s has ended before: %s\n",
			name, read_text(result, "outcome"));
	json_decref(result);
	return cancelled ? COMMAND_DONE : COMMAND_FAILED;
}
