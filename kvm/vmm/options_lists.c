/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options that are lists: rails, NUMA nodes, and what is pinned. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "kvm/vmm/options.h"

#define LONGEST_LIST 1024u

/* Call take() for each piece between commas; a copy, that it may write to. */
static int each_piece(const char *option, const char *text, void *context,
		      int (*take)(void *context, char *piece, struct ramlift_error *error),
		      struct ramlift_error *error)
{
	char copy[LONGEST_LIST], *rest = copy, *piece;
	int ret = 0;

	if (strlen(text) >= sizeof(copy))
		return error_set(error, -EINVAL, "%s is too long", option);
	strcpy(copy, text);
	while (!ret && (piece = strsep(&rest, ",")))
		ret = take(context, piece, error);
	return ret;
}

static int take_rail(void *context, char *name, struct ramlift_error *error)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	struct option_rails *rails = context;
	size_t length = strnlen(name, OPTION_MAX_DEVICE_NAME);

	if (!length || length >= OPTION_MAX_DEVICE_NAME || strspn(name, allowed) != length)
		return error_set(error, -EINVAL,
				 "--rails names RDMA devices, like mlx5_0,mlx5_1 "
				 "('ramlift devices' lists them)");
	if (rails->n == RAMLIFT_MAX_RAILS)
		return error_set(error, -ERANGE, "--rails names more than %u devices",
				 RAMLIFT_MAX_RAILS);
	for (unsigned i = 0; i < rails->n; i++) {
		if (!strcmp(rails->names[i], name))
			return error_set(error, -EINVAL, "--rails names %s twice", name);
	}
	strcpy(rails->names[rails->n++], name);
	return 0;
}

int option_rails(const char *text, struct option_rails *rails, struct ramlift_error *error)
{
	struct option_rails taken = { .n = 0 };
	int ret = each_piece("--rails", text, &taken, take_rail, error);

	if (ret)
		return ret;
	*rails = taken;
	for (unsigned i = 0; i < rails->n; i++)
		rails->list[i] = rails->names[i];
	return 0;
}

struct nodes {
	unsigned n;
	int list[MACHINE_MAX_NODES];
};

static int take_node_number(const char *option, const char *text, int *node,
			    struct ramlift_error *error)
{
	uint64_t number;
	int ret = option_number(option, text, 0, MACHINE_NUMA_NODE_LIMIT - 1, &number, error);

	if (!ret)
		*node = (int)number;
	return ret;
}

static int take_node(void *context, char *piece, struct ramlift_error *error)
{
	struct nodes *nodes = context;
	int ret;

	if (nodes->n == MACHINE_MAX_NODES)
		return error_set(error, -ERANGE, "--numa-nodes names more than %u nodes",
				 MACHINE_MAX_NODES);
	ret = take_node_number("a node of --numa-nodes", piece, &nodes->list[nodes->n], error);
	nodes->n += !ret;
	return ret;
}

int option_numa_nodes(const char *text, struct machine_config *config, struct ramlift_error *error)
{
	struct nodes nodes = { .n = 0 };
	int ret = each_piece("--numa-nodes", text, &nodes, take_node, error);

	if (ret)
		return ret;
	config->n_numa_nodes = nodes.n;
	memcpy(config->numa_nodes, nodes.list, sizeof(nodes.list));
	return 0;
}

static int take_move(void *context, char *piece, struct ramlift_error *error)
{
	struct machine_numa_map *map = context;
	char *to = strchr(piece, ':');
	unsigned n = map->n;
	int ret;

	if (!to)
		return error_set(error, -EINVAL,
				 "--numa-map '%s' is no pair; write it like 0:1,1:0", piece);
	*to++ = '\0';
	if (n == MACHINE_MAX_NODES)
		return error_set(error, -ERANGE, "--numa-map has more than %u pairs",
				 MACHINE_MAX_NODES);
	ret = take_node_number("a node of --numa-map", piece, &map->from[n], error);
	if (!ret)
		ret = take_node_number("a node of --numa-map", to, &map->to[n], error);
	for (unsigned i = 0; i < n && !ret; i++) {
		if (map->from[i] == map->from[n])
			ret = error_set(error, -EINVAL, "--numa-map says twice where node %d goes",
					map->from[n]);
	}
	map->n += !ret;
	return ret;
}

int option_numa_map(const char *text, struct machine_numa_map *map, struct ramlift_error *error)
{
	struct machine_numa_map taken = { .n = 0 };
	int ret = each_piece("--numa-map", text, &taken, take_move, error);

	if (!ret)
		*map = taken;
	return ret;
}

int option_pin(const char *text, enum ramlift_pin *pin, uint64_t *budget_bytes,
	       struct ramlift_error *error)
{
	static const char *const words[] = {
		[RAMLIFT_PIN_DEMAND] = "demand",
		[RAMLIFT_PIN_ALL] = "all",
	};
	static const char budget[] = "budget=";
	int ret;

	if (!strncmp(text, budget, strlen(budget))) {
		ret = option_size("--pin budget", text + strlen(budget), budget_bytes, error);
		if (!ret)
			*pin = RAMLIFT_PIN_BUDGET;
		return ret;
	}
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(text, words[i])) {
			*pin = (enum ramlift_pin)i;
			return 0;
		}
	}
	return error_set(error, -EINVAL, "--pin '%s' must be all, demand or budget=SIZE", text);
}
