/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/proxy_description.h"

#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "core/error.h"
#include "core/ramlift.h"

char *proxy_describe(const struct stream_block *blocks, const int *regions, unsigned n_blocks)
{
	json_t *list = json_array();
	json_t *description;
	char *text;

	for (unsigned i = 0; i < n_blocks; i++) {
		if (regions[i] >= 0)
			json_array_append_new(list,
					      json_pack("{s:s, s:I}", "name", blocks[i].name,
							"size", (json_int_t)blocks[i].size_bytes));
	}
	description = json_pack("{s:o}", "proxied_blocks", list);
	text = json_dumps(description, JSON_COMPACT);
	json_decref(description);
	return text;
}

static int read_block(const json_t *object, struct stream_block *block)
{
	const json_t *name = json_object_get(object, "name");
	json_int_t size = json_integer_value(json_object_get(object, "size"));
	size_t length = json_string_length(name);

	if (!json_is_string(name) || !length || length >= sizeof(block->name) || size <= 0)
		return -EPROTO;
	for (size_t i = 0; i < length; i++) {
		if (json_string_value(name)[i] < ' ' || json_string_value(name)[i] > '~')
			return -EPROTO;
	}
	memset(block, 0, sizeof(*block));
	memcpy(block->name, json_string_value(name), length);
	block->size_bytes = (uint64_t)size;
	return 0;
}

int proxy_read_description(const void *bytes, size_t n_bytes, struct stream_block *blocks,
			   unsigned *n_blocks, struct ramlift_error *error)
{
	json_t *description = json_loadb(bytes, n_bytes, 0, NULL);
	const json_t *list = json_object_get(description, "proxied_blocks");
	size_t n = json_array_size(list);
	int ret = n && n <= RAMLIFT_MAX_REGIONS ? 0 : -EPROTO;

	for (size_t i = 0; !ret && i < n; i++)
		ret = read_block(json_array_get(list, i), &blocks[i]);
	json_decref(description);
	if (ret)
		return error_set(error, ret,
				 "what comes is not from a proxy: 'ramlift qemu migrate' goes to "
				 "'ramlift qemu receive', 'ramlift migrate' to 'ramlift receive'");
	*n_blocks = (unsigned)n;
	return 0;
}
