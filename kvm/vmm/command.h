/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of `ramlift`: one function a command, found by name in the table of main.c, and what
 * they share. Commands print; everything below them returns struct ramlift_error.
 */
#ifndef KVM_VMM_COMMAND_H
#define KVM_VMM_COMMAND_H

#include <argp.h>
#include <stdbool.h>

#include "core/ramlift.h"

/* What the process returns. */
enum command_status {
	COMMAND_DONE = 0,
	COMMAND_FAILED = 1,
	COMMAND_USAGE = 2,
	COMMAND_CANCELLED = 3,
	COMMAND_IN_DOUBT = 4,
};

/* argv[0] is "ramlift NAME", for help and messages; the result is the exit status. */
struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
};

/* Commands that are told apart by their first word: all of them, or those of `ramlift qemu`. */
struct command_group {
	const char *name; /* what the user types before the command */
	const char *about;
	const struct command *commands;
	size_t n_commands;
};

/* argv[1] names the command, or asks for help. Returns the exit status. */
int command_group_run(const struct command_group *group, int argc, char **argv);

int cmd_run(int argc, char **argv);
int cmd_receive(int argc, char **argv);
int cmd_migrate(int argc, char **argv);
int cmd_cancel(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_resolve(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_qemu(int argc, char **argv);
int cmd_qemu_migrate(int argc, char **argv);
int cmd_qemu_receive(int argc, char **argv);
int cmd_qemu_proxy(int argc, char **argv);

/*
 * Parse with argp; whatever does not fit ends the process with one sentence and COMMAND_USAGE, and
 * --help ends it with COMMAND_DONE. The parser of argp sees input as state->input.
 */
void command_parse(const struct argp *argp, int argc, char **argv, void *input);

/* The same for a command that has the options of command_security.h as well. */
struct option_security;
void command_parse_secure(const struct argp *argp, int argc, char **argv, void *input,
			  struct option_security *security);

/* For parsers: end the process with this sentence and COMMAND_USAGE. */
void command_usage(const struct argp_state *state, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* For parsers: command_usage() with the error's sentence unless ret is 0. */
void command_check(const struct argp_state *state, int ret, const struct ramlift_error *error);

/* For parsers: take the one argument that is a guest's name. */
void command_take_name(const struct argp_state *state, const char **name, const char *argument);

/* Print "ramlift NAME: sentence" on stderr and return COMMAND_FAILED. */
int command_failed(const char *command, const struct ramlift_error *error);

#endif
