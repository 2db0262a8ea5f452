/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift stop`: end a guest and its process. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kvm/vmm/command.h"
#include "kvm/vmm/control_client.h"
#include "kvm/vmm/report_read.h"

#define PATIENCE_MS 60000 /* freeing a large guest takes its time */

static error_t parse(int key, char *text, struct argp_state *state)
{
	switch (key) {
	case ARGP_KEY_ARG:
		command_take_name(state, state->input, text);
		return 0;
	case ARGP_KEY_NO_ARGS:
		command_usage(state, "say which guest: ramlift stop db1");
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.parser = parse,
	.args_doc = "GUEST",
	.doc = "Stop a guest and end its process. What is in its memory is lost.",
};

/* Once the request was accepted, the end of the connection is the end of the guest. */
static int wait_for_end(struct control_client *client, struct ramlift_error *error)
{
	bool accepted = false;
	json_t *message;
	int ret;

	do {
		ret = control_client_read(client, PATIENCE_MS, &message, error);
		if (!ret) {
			ret = control_client_refusal(message, error);
			accepted |= !ret && !strcmp(read_text(message, "request"), "stop");
			json_decref(message);
		}
	} while (!ret);
	return accepted && ret == -ECONNRESET ? 0 : ret;
}

int cmd_stop(int argc, char **argv)
{
	struct control_client *client;
	struct ramlift_error error;
	const char *name = NULL;
	int ret;

	command_parse(&argp, argc, argv, &name);
	if (control_client_open(name, &client, &error))
		return command_failed("stop", &error);
	ret = control_client_send(client, json_pack("{s:s}", "request", "stop"), &error);
	if (!ret)
		ret = wait_for_end(client, &error);
	control_client_close(client);
	if (ret)
		return command_failed("stop", &error);
	printf("guest %s is stopped\n", name);
	return COMMAND_DONE;
}
