/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which memory backends are guest RAM, and under which names.
 *
 * QEMU names a RAM block after its backend: the id alone, or the whole path "/objects/ID" with the
 * property x-use-canonical-path-for-ramblock-id, which machine types up to 4.0 have on. A device
 * that sits on a bus puts its own path before it ("0000:00:03.0/ID"). What is called thus in "info
 * ramblock" is migrated; a backend that nobody uses is not there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "kvm/qemu/inspect_private.h"
#include "kvm/qemu/monitor_text.h"
#include "kvm/qemu/qmp.h"
#include "kvm/qemu/qom.h"

#define NO_BACKEND                                                                                 \
	"the guest's memory has no shared backend: start its QEMU with -object "                   \
	"memory-backend-memfd,id=mem0,size=...,share=on -machine memory-backend=mem0"

static bool ends_with_part(const char *name, const char *part)
{
	size_t name_bytes = strlen(name), part_bytes = strlen(part);

	return name_bytes > part_bytes && name[name_bytes - part_bytes - 1] == '/' &&
	       !strcmp(name + name_bytes - part_bytes, part);
}

/* Its own name before one with a device's path in front. */
static bool find_ramblock(const char *text, const char *region, uint64_t size_bytes,
			  struct monitor_ramblock *found)
{
	struct monitor_ramblock block;
	const char *at = text;

	while (monitor_next_ramblock(&at, &block)) {
		if (!strcmp(block.name, region)) {
			*found = block;
			return true;
		}
	}
	for (at = text; monitor_next_ramblock(&at, &block);) {
		if (block.size_bytes == size_bytes && ends_with_part(block.name, region)) {
			*found = block;
			return true;
		}
	}
	return false;
}

static int check_backend(struct inspection *inspection, const struct qemu_block *block,
			 const char *path, struct ramlift_error *error)
{
	bool read_only;
	int ret;

	if (!block->shared && !strcmp(block->type, "memory-backend-ram"))
		return error_set(error, -EOPNOTSUPP,
				 NO_BACKEND " (or -numa node,memdev=mem0): its RAM block %s is "
					    "private to QEMU now",
				 block->name);
	if (!block->shared)
		return error_set(error, -EOPNOTSUPP,
				 "the memory backend %s is not shared: add share=on to -object "
				 "%s,id=%s,... (-mem-path alone makes it private)",
				 block->id, block->type, block->id);
	ret = qom_get_bool(inspection->qmp, path, "readonly", &read_only, error);
	if (!ret && read_only)
		ret = error_set(error, -EOPNOTSUPP,
				"the memory backend %s is read-only: take readonly=on from its "
				"-object %s",
				block->id, block->type);
	if (!ret && (!block->size_bytes || block->size_bytes % RAMLIFT_PAGE_BYTES))
		ret = error_set(error, -EOPNOTSUPP,
				"the size of memory backend %s is not a multiple of 4 KiB: change "
				"its size=",
				block->id);
	return ret;
}

/* Takes the block in if the guest uses it. */
static int take_backend(struct inspection *inspection, const char *id, const char *type,
			const char *ramblocks, struct ramlift_error *error)
{
	struct qemu_guest *guest = inspection->guest;
	struct qemu_block *block = &guest->blocks[guest->n_blocks];
	struct inspect_block *details = &inspection->blocks[guest->n_blocks];
	struct qmp *qmp = inspection->qmp;
	struct monitor_ramblock found;
	char path[160];
	bool whole_path;
	int ret;

	if (strlen(id) >= sizeof(block->id))
		return error_set(error, -EOPNOTSUPP,
				 "the id of memory backend %.40s... is too long", id);
	snprintf(path, sizeof(path), "/objects/%s", id);
	snprintf(block->id, sizeof(block->id), "%s", id);
	snprintf(block->type, sizeof(block->type), "%s", type);
	ret = qom_get_bool(qmp, path, "x-use-canonical-path-for-ramblock-id", &whole_path, error);
	if (!ret)
		ret = qom_get_size(qmp, path, "size", &block->size_bytes, error);
	if (!ret)
		ret = qom_get_bool(qmp, path, "share", &block->shared, error);
	if (!ret)
		ret = qom_get_string(qmp, path, "mem-path", details->file, sizeof(details->file),
				     error);
	if (ret)
		return ret;
	snprintf(details->region, sizeof(details->region), "%s", whole_path ? path : block->id);
	if (!find_ramblock(ramblocks, details->region, block->size_bytes, &found))
		return 0;
	snprintf(block->name, sizeof(block->name), "%s", found.name);
	block->size_bytes = found.size_bytes;
	details->hva = found.hva;
	ret = check_backend(inspection, block, path, error);
	if (!ret)
		guest->n_blocks++;
	return ret;
}

static int take_all(struct inspection *inspection, const json_t *objects, const char *ramblocks,
		    struct ramlift_error *error)
{
	struct qemu_guest *guest = inspection->guest;
	const json_t *object;
	size_t i;
	int ret;

	json_array_foreach(objects, i, object)
	{
		const char *id = json_string_value(json_object_get(object, "name"));
		char type[sizeof(guest->blocks[0].type)];

		if (!id || !qom_child_type(object, "memory-backend-", type, sizeof(type)))
			continue;
		if (guest->n_blocks == RAMLIFT_MAX_REGIONS)
			return error_set(error, -EOPNOTSUPP,
					 "the guest has more than %u memory backends: give it "
					 "fewer and larger ones",
					 RAMLIFT_MAX_REGIONS);
		ret = take_backend(inspection, id, type, ramblocks, error);
		if (ret)
			return ret;
	}
	return guest->n_blocks ? 0 : error_set(error, -EOPNOTSUPP, NO_BACKEND);
}

int inspect_backends(struct inspection *inspection, struct ramlift_error *error)
{
	json_t *objects = NULL;
	char *ramblocks = NULL;
	int ret;

	ret = qom_list(inspection->qmp, "/objects", &objects, error);
	if (!ret)
		ret = qmp_monitor_command(inspection->qmp, "info ramblock", &ramblocks, error);
	if (!ret)
		ret = take_all(inspection, objects, ramblocks, error);
	json_decref(objects);
	free(ramblocks);
	return ret;
}
