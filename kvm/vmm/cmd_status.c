/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift status`: ask the processes of this user's guests how they are, and the journals for
 * guests in doubt whose process has died. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/control_client.h"
#include "kvm/vmm/doubt.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/report_read.h"
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

/* A guest that has a journal in place of a process. */
static json_t *status_of_doubt(const struct ramlift_doubt *doubt)
{
	char hint[DOUBT_HINT_BYTES];

	doubt_hint(hint, doubt, false);
	return json_pack("{s:s, s:s, s:n, s:o, s:s}", "guest", doubt->guest, "state", "in-doubt",
			 "pid", "doubt", doubt_json(doubt), "hint", hint);
}

/* The guest's name in a file name like "db1.sock"; false: it is another file. */
static bool guest_of_file(const char *file, const char *ending, char name[RAMLIFT_MAX_NAME])
{
	size_t length = strlen(file), tail = strlen(ending);

	if (length <= tail || length - tail >= RAMLIFT_MAX_NAME ||
	    strcmp(file + length - tail, ending))
		return false;
	memcpy(name, file, length - tail);
	name[length - tail] = '\0';
	return !option_guest_name(name, NULL);
}

/* Call take() for each guest that has a file with this ending. */
static int each_guest(const char *directory, const char *ending, void *context,
		      void (*take)(void *context, const char *name), struct ramlift_error *error)
{
	char name[RAMLIFT_MAX_NAME];
	struct dirent **entries;
	int n = scandir(directory, &entries, NULL, alphasort);

	if (n < 0)
		return error_set(error, -errno, "cannot read %s: %s", directory, strerror(errno));
	for (int i = 0; i < n; i++) {
		if (guest_of_file(entries[i]->d_name, ending, name))
			take(context, name);
		free(entries[i]);
	}
	free(entries);
	return 0;
}

struct listing {
	json_t *guests;
	unsigned n_silent; /* processes that do not answer, journals that cannot be read */
};

static void complain(struct listing *listing, const struct ramlift_error *error)
{
	fprintf(stderr, "ramlift status: %s\n", error->text);
	listing->n_silent++;
}

static void take_process(void *context, const char *name)
{
	struct listing *listing = context;
	struct ramlift_error error;
	json_t *status;
	int ret = ask(name, &status, &error);

	if (!ret)
		json_array_append_new(listing->guests, status);
	else if (ret != -ENOENT)
		complain(listing, &error);
}

static bool is_listed(const struct listing *listing, const char *name)
{
	json_t *status;
	size_t i;

	json_array_foreach(listing->guests, i, status)
	{
		if (!strcmp(read_text(status, "guest"), name))
			return true;
	}
	return false;
}

static void take_journal(void *context, const char *name)
{
	struct listing *listing = context;
	struct ramlift_doubt doubt;
	struct ramlift_error error;
	int ret;

	if (is_listed(listing, name))
		return;
	ret = doubt_find(name, &doubt, &error);
	if (!ret)
		json_array_append_new(listing->guests, status_of_doubt(&doubt));
	else if (ret != -ENOENT)
		complain(listing, &error);
}

static int list_guests(struct listing *listing, struct ramlift_error *error)
{
	char directory[4096];
	int ret;

	ret = runtime_dir(directory, sizeof(directory), error);
	if (!ret)
		ret = each_guest(directory, ".sock", listing, take_process, error);
	if (!ret)
		ret = state_dir(directory, sizeof(directory), error);
	if (!ret)
		ret = each_guest(directory, ".journal", listing, take_journal, error);
	return ret;
}

static void print_json(const json_t *object)
{
	json_dumpf(object, stdout, JSON_INDENT(2));
	printf("\n");
}

static int show_all(bool json)
{
	struct listing listing = { .guests = json_array() };
	struct ramlift_error error;
	json_t *all;

	if (list_guests(&listing, &error)) {
		json_decref(listing.guests);
		return command_failed("status", &error);
	}
	if (json) {
		all = json_pack("{s:O}", "guests", listing.guests);
		print_json(all);
		json_decref(all);
	} else if (json_array_size(listing.guests)) {
		report_table_guests(stdout, listing.guests);
	} else if (!listing.n_silent) {
		fprintf(stderr, "no guest of yours runs on this host\n");
	}
	json_decref(listing.guests);
	return listing.n_silent ? COMMAND_FAILED : COMMAND_DONE;
}

/* From its process, else from its journal. */
static int find(const char *name, json_t **status, struct ramlift_error *error)
{
	struct ramlift_doubt doubt;
	int ret = ask(name, status, error);

	if (ret != -ENOENT || doubt_find(name, &doubt, NULL))
		return ret;
	*status = status_of_doubt(&doubt);
	return 0;
}

int cmd_status(int argc, char **argv)
{
	struct arguments arguments = { .name = NULL };
	struct ramlift_error error;
	json_t *status;

	command_parse(&argp, argc, argv, &arguments);
	if (!arguments.name)
		return show_all(arguments.json);
	if (find(arguments.name, &status, &error))
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
