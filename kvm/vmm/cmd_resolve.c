/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ramlift resolve`: the operator says which side owns a guest in doubt, to its process, or, where
 * that has died, to its journal.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kvm/vmm/audit.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/control_client.h"
#include "kvm/vmm/doubt.h"
#include "kvm/vmm/options_security.h"
#include "kvm/vmm/report_read.h"
#include "kvm/vmm/runtime_dir.h"

#include <unistd.h>

#define PATIENCE_MS 30000

struct arguments {
	const char *name;
	bool source;
	bool destination;
	bool ask;
	bool yes;
	struct option_security security;
};

static const struct argp_option options[] = {
	{ "source", 's', NULL, 0,
	  "let the guest run on here; only if you know that it does not run at the destination and "
	  "never will, so it needs --yes. Where its process has died the guest is lost, and may be "
	  "started anew",
	  0 },
	{ "destination", 'd', NULL, 0, "the guest runs at the destination: give it up here", 0 },
	{ "ask", 'a', NULL, 0,
	  "ask the destination, where the guest's process, which would, has died", 0 },
	{ "yes", 'y', NULL, 0, "yes, I know that it does not run at the destination", 0 },
	{ 0 },
};

static void check(const struct argp_state *state, const struct arguments *arguments)
{
	if (!arguments->name)
		command_usage(state, "say which guest: ramlift resolve db1 --destination");
	if (arguments->source + arguments->destination + arguments->ask != 1)
		command_usage(state, "say who owns the guest: --source or --destination, or --ask");
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
	case 'a':
		arguments->ask = true;
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

/* Its process is there. It may have learnt meanwhile that it is the other way round. */
static int tell_process(struct control_client *client, const struct arguments *arguments,
			struct ramlift_error *error)
{
	const char *wanted = arguments->source ? "source" : "destination";
	json_t *answer;
	bool as_wanted, source;
	int ret;

	ret = control_client_send(
		client, json_pack("{s:s, s:s}", "request", "resolve", "owner", wanted), error);
	if (!ret)
		ret = control_client_read(client, PATIENCE_MS, &answer, error);
	if (ret)
		return command_failed("resolve", error);
	ret = control_client_refusal(answer, error);
	source = !strcmp(read_text(answer, "owner"), "source");
	as_wanted = !strcmp(read_text(answer, "owner"), wanted);
	json_decref(answer);
	if (ret)
		return command_failed("resolve", error);
	printf(source ? "guest %s runs on here\n" : "guest %s is given up here\n", arguments->name);
	if (as_wanted)
		return COMMAND_DONE;
	fprintf(stderr, "ramlift resolve: guest %s was no longer in doubt, and is the %s's\n",
		arguments->name, source ? "source" : "destination");
	return COMMAND_FAILED;
}

static int ask(const struct ramlift_doubt *doubt, const struct arguments *arguments,
	       enum ramlift_owner *owner, struct ramlift_error *error)
{
	struct ramlift_source_config defaults;
	struct ramlift_security security;
	int ret;

	ramlift_source_config_init(&defaults);
	option_security_apply(&arguments->security, &security, &defaults.timeouts);
	ret = ramlift_doubt_ask(doubt, &security, &defaults.timeouts, owner, error);
	if (!ret && *owner == RAMLIFT_OWNER_UNKNOWN)
		fprintf(stderr,
			"ramlift resolve: %s does not know that session, or has not decided: guest "
			"%s stays in doubt\n",
			doubt->peer, doubt->guest);
	return ret;
}

static void say_owner(const char *guest, enum ramlift_owner owner)
{
	if (owner == RAMLIFT_OWNER_SOURCE)
		printf("guest %s is lost, for its memory died with its process here, and may be "
		       "started anew: 'ramlift run --name %s' (where QEMU still holds it paused: "
		       "'cont')\n",
		       guest, guest);
	else
		printf("guest %s is given up here: it belongs to the destination\n", guest);
}

static int write_journal(const struct ramlift_doubt *doubt, const struct arguments *arguments,
			 enum ramlift_owner owner, struct ramlift_error *error)
{
	const struct ucred operator= { .uid = getuid(), .gid = getgid(), .pid = getpid() };
	char directory[4096];
	struct audit audit;
	int ret;

	ret = state_dir(directory, sizeof(directory), error);
	if (!ret)
		ret = ramlift_doubt_resolve(directory, doubt, owner, error);
	if (ret)
		return ret;
	audit_init(&audit, directory);
	audit_write_resolved(&audit, doubt, owner, arguments->ask ? "destination" : "operator",
			     &operator);
	audit_fini(&audit);
	return 0;
}

/* Its process has died. */
static int tell_journal(const struct arguments *arguments, struct ramlift_error *error)
{
	enum ramlift_owner owner =
		arguments->source ? RAMLIFT_OWNER_SOURCE : RAMLIFT_OWNER_DESTINATION;
	struct ramlift_doubt doubt;
	int ret;

	ret = doubt_find(arguments->name, &doubt, error);
	if (ret == -ENOENT) {
		fprintf(stderr,
			"ramlift resolve: no guest %s runs here, and it is not in doubt: there is "
			"nothing to resolve\n",
			arguments->name);
		return COMMAND_FAILED;
	}
	if (!ret && arguments->ask)
		ret = ask(&doubt, arguments, &owner, error);
	if (!ret && owner == RAMLIFT_OWNER_UNKNOWN)
		return COMMAND_IN_DOUBT;
	if (!ret)
		ret = write_journal(&doubt, arguments, owner, error);
	if (ret)
		return command_failed("resolve", error);
	say_owner(arguments->name, owner);
	return COMMAND_DONE;
}

int cmd_resolve(int argc, char **argv)
{
	static struct arguments arguments;
	struct control_client *client;
	struct ramlift_error error;
	int ret;

	command_parse_secure(&argp, argc, argv, &arguments, &arguments.security);
	ret = control_client_open(arguments.name, &client, &error);
	if (ret == -ENOENT)
		return tell_journal(&arguments, &error);
	if (ret)
		return command_failed("resolve", &error);
	if (arguments.ask) {
		fprintf(stderr,
			"ramlift resolve: the process of guest %s is there, and asks by itself; "
			"see 'ramlift status %s'\n",
			arguments.name, arguments.name);
		ret = COMMAND_FAILED;
	} else {
		ret = tell_process(client, &arguments, &error);
	}
	control_client_close(client);
	return ret;
}
