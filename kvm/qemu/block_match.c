/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/block_match.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"

/* Smaller mappings of files are libraries' and devices', never guest memory. */
#define LEAST_BYTES (1u << 20)

/* "/objects/ID" and "ID" are both the backend ID's. */
static const char *backend_id(const struct stream_block *block)
{
	const char *slash = strrchr(block->name, '/');

	return slash ? slash + 1 : block->name;
}

/* Is the file named after the backend? ".../ID" as libvirt does, or QEMU's
 * "qemu_back_mem.ID.XXXXXX" in a folder. */
static bool is_named_after(const struct memory_mapping *mapping, const char *id)
{
	static const char prefix[] = "qemu_back_mem.";
	const char *file = strrchr(mapping->path, '/');
	size_t n = strlen(id);

	if (!file)
		return false;
	file++;
	if (!strncmp(file, prefix, sizeof(prefix) - 1)) {
		file += sizeof(prefix) - 1;
		/* QEMU adds the canonical path, with other characters for slashes. */
		for (; *file; file++) {
			if (!strncmp(file, id, n) && file[n] == '.')
				return true;
		}
		return false;
	}
	return !strncmp(file, id, n) && (!file[n] || file[n] == ' ');
}

static bool is_candidate(const struct stream_block *block, const struct memory_mapping *mapping)
{
	return mapping->shared && mapping->writable && block->size_bytes >= LEAST_BYTES &&
	       mapping->size_bytes == block->size_bytes;
}

static bool is_same_memory(const struct memory_mapping *a, const struct memory_mapping *b)
{
	return a->inode == b->inode && a->device == b->device && a->file_offset == b->file_offset;
}

int block_match(const struct stream_block *block, const struct memory_mapping *mappings,
		unsigned n_mappings, const struct memory_mapping **mapping,
		struct ramlift_error *error)
{
	const struct memory_mapping *found = NULL;
	bool several = false;

	for (unsigned i = 0; i < n_mappings; i++) {
		if (!is_candidate(block, &mappings[i]))
			continue;
		if (is_named_after(&mappings[i], backend_id(block))) {
			*mapping = &mappings[i];
			return 0;
		}
		several = several || (found && !is_same_memory(found, &mappings[i]));
		found = &mappings[i];
	}
	if (several)
		return error_set(
			error, -EOPNOTSUPP,
			"QEMU has several memories of %llu MiB, and which of them is block "
			"%.64s cannot be told: give its backends files (in libvirt "
			"<memoryBacking><source type='file'/>)",
			(unsigned long long)(block->size_bytes >> 20), block->name);
	if (!found && block->size_bytes >= BLOCK_MATCH_GUEST_BYTES)
		return error_set(error, -EOPNOTSUPP,
				 "the guest's memory %.64s is not shared: give it a backend with "
				 "share=on (in libvirt <memoryBacking><source type='memfd'/>"
				 "<access mode='shared'/>)",
				 block->name);
	*mapping = found;
	return 0;
}
