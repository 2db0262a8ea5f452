/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift`: find the command by its name and run it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/vmm/command.h"

static const struct command commands[] = {
	{ "run", cmd_run, "run a guest on this host" },
	{ "receive", cmd_receive, "wait for a guest from another host, then run it" },
	{ "migrate", cmd_migrate, "move a running guest to another host" },
	{ "cancel", cmd_cancel, "end a migration; the guest runs on at the source" },
	{ "status", cmd_status, "show the guests of this host, or one in detail" },
	{ "stop", cmd_stop, "stop a guest" },
	{ "resolve", cmd_resolve, "say where a guest is, after a hand-over without an answer" },
	{ "devices", cmd_devices, "list the RDMA devices of this host" },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	}
	return NULL;
}

static int run_command(const struct command *command, int argc, char **argv)
{
	char name[64];

	snprintf(name, sizeof(name), "ramlift %s", command->name);
	argv[0] = name;
	return command->run(argc, argv);
}

static void print_help(FILE *out)
{
	fprintf(out, "Usage: ramlift COMMAND [OPTION...]\n\n"
		     "Live-migrate running KVM guests over RDMA, or TCP.\n\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(out, "  %-10s %s\n\n", "help", "show this, or 'ramlift help COMMAND' for one");
	fprintf(out, "Every command has --help. 'ramlift --version' shows the version.\n");
}

static int unknown(const char *word)
{
	fprintf(stderr, "ramlift: unknown %s '%s'; see 'ramlift help'\n",
		word[0] == '-' ? "option" : "command", word);
	return COMMAND_USAGE;
}

static int help(int argc, char **argv)
{
	char option[] = "--help";
	char *arguments[] = { NULL, option, NULL };
	const struct command *command;

	if (argc < 3 || !strcmp(argv[2], "help")) {
		print_help(stdout);
		return COMMAND_DONE;
	}
	command = find_command(argv[2]);
	return command ? run_command(command, 2, arguments) : unknown(argv[2]);
}

int main(int argc, char **argv)
{
	const struct command *command;

	/* A client or a peer that goes away is an error of a call, never a signal. */
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		print_help(stderr);
		return COMMAND_USAGE;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "-?"))
		return help(argc, argv);
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("ramlift %s\n", RAMLIFT_VERSION);
		return COMMAND_DONE;
	}
	command = find_command(argv[1]);
	return command ? run_command(command, argc - 1, argv + 1) : unknown(argv[1]);
}
