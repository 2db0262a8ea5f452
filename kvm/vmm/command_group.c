/* SPDX-License-Identifier: Apache-2.0 */
/* Find a command in its group by its name and run it, or show the group's help. */
#include <stdio.h>
#include <string.h>

#include "kvm/vmm/command.h"

static const struct command *find_command(const struct command_group *group, const char *name)
{
	for (size_t i = 0; i < group->n_commands; i++) {
		if (!strcmp(name, group->commands[i].name))
			return &group->commands[i];
	}
	return NULL;
}

static int run_command(const struct command_group *group, const struct command *command, int argc,
		       char **argv)
{
	char name[64];

	snprintf(name, sizeof(name), "%s %s", group->name, command->name);
	argv[0] = name;
	return command->run(argc, argv);
}

static void print_help(const struct command_group *group, FILE *out)
{
	fprintf(out, "Usage: %s COMMAND [OPTION...]\n\n%s\n\n", group->name, group->about);
	for (size_t i = 0; i < group->n_commands; i++)
		fprintf(out, "  %-10s %s\n", group->commands[i].name, group->commands[i].help);
	fprintf(out, "  %-10s %s\n\n", "help", "show this, or 'help COMMAND' for one");
	fprintf(out, "Every command has --help. 'ramlift --version' shows the version.\n");
}

static int unknown(const struct command_group *group, const char *word)
{
	const char *space = strchr(group->name, ' ');

	fprintf(stderr, "%s: unknown %s '%s'; see 'ramlift help%s'\n", group->name,
		word[0] == '-' ? "option" : "command", word, space ? space : "");
	return COMMAND_USAGE;
}

/* "help COMMAND [SUBCOMMAND]" */
static int help(const struct command_group *group, int argc, char **argv)
{
	char option[] = "--help";
	char *arguments[] = { NULL, argc > 3 ? argv[3] : option, argc > 3 ? option : NULL, NULL };
	const struct command *command;

	if (argc < 3 || !strcmp(argv[2], "help")) {
		print_help(group, stdout);
		return COMMAND_DONE;
	}
	command = find_command(group, argv[2]);
	return command ? run_command(group, command, argc > 3 ? 3 : 2, arguments)
		       : unknown(group, argv[2]);
}

int command_group_run(const struct command_group *group, int argc, char **argv)
{
	const struct command *command;

	if (argc < 2) {
		print_help(group, stderr);
		return COMMAND_USAGE;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "-?"))
		return help(group, argc, argv);
	command = find_command(group, argv[1]);
	return command ? run_command(group, command, argc - 1, argv + 1) : unknown(group, argv[1]);
}
