/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift status`: ask the processes of this user's guests how they are. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/control_client.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/report_table.h"
#include "kvm/vmm/runtime_dir.h"

#define PATIENCE_MS 3000

struct arguments {
	const char *name;
	bool json;
};

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, "one JSON object on standard output", 0 },
	{ 0 },
};

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 'j':
		arguments->json = true;
		return 0;
	case ARGP_KEY_ARG:
		command_take_name(state, &arguments->name, text);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "[GUEST]",
	.doc = "Show the guests of this host that belong to you, or one in detail.",
};

static int ask(const char *name, json_t **status, struct ramlift_error *error)
{
	return control_client_ask(name, json_pack("{s:s}", "request", "status"), PATIENCE_MS,
				  status, error);
}

/* The guest's name in a file name like "db1.sock"; false: it is another file. */
static bool guest_of_file(const char *file, char name[RAMLIFT_MAX_NAME])
{
	size_t length = strlen(file), tail = strlen(".sock");

	if (length <= tail || length - tail >= RAMLIFT_MAX_NAME ||
	    strcmp(file + length - tail, ".sock"))
		return false;
	memcpy(name, file, length - tail);
	name[length - tail] = '\0';
	return !option_guest_name(name, NULL);
}

/* n_silent: processes that do not answer. */
static int list_guests(json_t *guests, unsigned *n_silent, struct ramlift_error *error)
{
	char directory[4096], name[RAMLIFT_MAX_NAME];
	struct dirent **entries;
	int n, ret;

	ret = runtime_dir(directory, sizeof(directory), error);
	if (ret)
		return ret;
	n = scandir(directory, &entries, NULL, alphasort);
	if (n < 0)
		return error_set(error, -errno, "cannot read %s: %s", directory, strerror(errno));
	for (int i = 0; i < n; i++) {
		json_t *status;

		if (guest_of_file(entries[i]->d_name, name)) {
			ret = ask(name, &status, error);
			if (!ret)
				json_array_append_new(guests, status);
			else if (ret != -ENOENT && ++*n_silent)
				fprintf(stderr, "ramlift status: %s\n", error->text);
		}
		free(entries[i]);
	}
	free(entries);
	return 0;
}

static void print_json(const json_t *object)
{
	json_dumpf(object, stdout, JSON_INDENT(2));
	printf("\n");
}

static int show_all(bool json)
{
	json_t *guests = json_array(), *all;
	struct ramlift_error error;
	unsigned n_silent = 0;

	if (list_guests(guests, &n_silent, &error)) {
		json_decref(guests);
		return command_failed("status", &error);
	}
	if (json) {
		all = json_pack("{s:O}", "guests", guests);
		print_json(all);
		json_decref(all);
	} else if (json_array_size(guests)) {
		report_table_guests(stdout, guests);
	} else if (!n_silent) {
		fprintf(stderr, "no guest of yours runs on this host\n");
	}
	json_decref(guests);
	return n_silent ? COMMAND_FAILED : COMMAND_DONE;
}

int cmd_status(int argc, char **argv)
{
	struct arguments arguments = { .name = NULL };
	struct ramlift_error error;
	json_t *status;

	command_parse(&argp, argc, argv, &arguments);
	if (!arguments.name)
		return show_all(arguments.json);
	if (ask(arguments.name, &status, &error))
		return command_failed("status", &error);
	if (arguments.json) {
		json_object_del(status, "request");
		json_object_del(status, "event");
		print_json(status);
	} else {
		report_table_guest(stdout, status);
	}
	json_decref(status);
	return COMMAND_DONE;
}
