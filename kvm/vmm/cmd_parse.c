/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How every command reads its options: argp does the work, its error messages are replaced by one
 * sentence that names the command's help.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/vmm/command.h"
#include "kvm/vmm/command_security.h"
#include "kvm/vmm/options.h"

struct parse {
	const struct argp *argp;
	void *input;
	struct option_security *security; /* NULL: the command has no such options */
};

void command_usage(const struct argp_state *state, const char *format, ...)
{
	const char *space = strchr(state->name, ' ');
	va_list arguments;

	fprintf(stderr, "%s: ", state->name);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, "; see 'ramlift help%s'\n", space ? space : "");
	exit(COMMAND_USAGE);
}

void command_check(const struct argp_state *state, int ret, const struct ramlift_error *error)
{
	if (ret)
		command_usage(state, "%s", error->text);
}

void command_take_name(const struct argp_state *state, const char **name, const char *argument)
{
	struct ramlift_error error;

	if (*name)
		command_usage(state, "unexpected argument '%s' after guest '%s'", argument, *name);
	command_check(state, option_guest_name(argument, &error), &error);
	*name = argument;
}

int command_failed(const char *command, const struct ramlift_error *error)
{
	fprintf(stderr, "ramlift %s: %s\n", command, error->text);
	return COMMAND_FAILED;
}

/* Does the word name an option of this command that takes a value? */
static bool wants_value(const struct argp *argp, const char *word)
{
	for (const struct argp_option *option = argp->options; option && option->name; option++) {
		if (option->arg && !strncmp(word, "--", 2) && !strcmp(word + 2, option->name))
			return true;
	}
	return false;
}

/* getopt has stopped at a word that it does not like: find the word and say what is wrong. */
static void refuse_word(const struct argp_state *state, const struct parse *parse)
{
	const char *word = state->next > 0 ? state->argv[state->next - 1] : NULL;

	if ((!word || word[0] != '-') && state->next < state->argc)
		word = state->argv[state->next];
	if (!word)
		command_usage(state, "the options make no sense");
	if (wants_value(parse->argp, word) ||
	    (parse->security && wants_value(&command_security_argp, word)))
		command_usage(state, "option '%s' needs a value", word);
	if (word[0] == '-')
		command_usage(state, "unknown option '%s'", word);
	command_usage(state, "unexpected argument '%s'", word);
}

static error_t parse_key(int key, char *argument, struct argp_state *state)
{
	struct parse *parse = state->input;
	error_t ret;

	if (key == ARGP_KEY_ERROR)
		refuse_word(state, parse);
	if (key == ARGP_KEY_INIT)
		state->child_inputs[0] = parse->security;
	state->input = parse->input;
	ret = parse->argp->parser(key, argument, state);
	state->input = parse;
	if (ret == ARGP_ERR_UNKNOWN && key == ARGP_KEY_ARG)
		command_usage(state, "unexpected argument '%s'", argument);
	return ret;
}

/* argp's own --help falls silent together with its error messages. */
static error_t parse_help(int key, char *argument, struct argp_state *state)
{
	char name[64];

	(void)argument;
	if (key != 'h')
		return ARGP_ERR_UNKNOWN;
	snprintf(name, sizeof(name), "%s", state->name);
	setenv("ARGP_HELP_FMT", "no-dup-args-note", 0);
	argp_help(state->root_argp, stdout, ARGP_HELP_STD_HELP, name);
	exit(COMMAND_DONE);
}

static const struct argp_option help_options[] = {
	{ "help", 'h', NULL, 0, "show this", -1 },
	{ 0 },
};

static const struct argp help_argp = { .options = help_options, .parser = parse_help };

void command_parse_secure(const struct argp *argp, int argc, char **argv, void *input,
			  struct option_security *security)
{
	const struct argp_child children[] = {
		{ security ? &command_security_argp : &help_argp, 0, NULL, 0 },
		{ security ? &help_argp : NULL, 0, NULL, 0 },
		{ 0 },
	};
	struct parse parse = { .argp = argp, .input = input, .security = security };
	struct argp wrapped = *argp;

	wrapped.parser = parse_key;
	wrapped.children = children;
	if (argp_parse(&wrapped, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP, NULL, &parse)) {
		fprintf(stderr, "%s: the options make no sense; see 'ramlift help'\n", argv[0]);
		exit(COMMAND_USAGE);
	}
}

void command_parse(const struct argp *argp, int argc, char **argv, void *input)
{
	command_parse_secure(argp, argc, argv, input, NULL);
}
