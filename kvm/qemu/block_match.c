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
 * "qemu_back_mem.ID.XXXXXX" in a folder, where ID may be the whole path with "_" for "/". */
static bool is_named_after(const struct memory_mapping *mapping, const struct stream_block *block)
{
	static const char prefix[] = "qemu_back_mem.";
	const char *file = strrchr(mapping->path, '/');
	const char *id = backend_id(block);
	size_t n = strlen(id);

	if (!file)
		return false;
	file++;
	if (!strncmp(file, prefix, sizeof(prefix) - 1)) {
		const char *part = file + sizeof(prefix) - 1;

		for (; *part; part++) {
			if (strchr("._", part[-1]) && !strncmp(part, id, n) && part[n] == '.')
				return true;
		}
		return false;
	}
	return !strncmp(file, id, n) && (!file[n] || file[n] == ' ');
}

/* A descriptor without a name in any file system, but not of a memory backend: other shared memory
 * of QEMU's, as for vhost-user devices. */
static bool is_foreign(const struct memory_mapping *mapping)
{
	static const char memfd[] = "/memfd:", backend[] = "/memfd:memory-backend-";

	return !strncmp(mapping->path, memfd, sizeof(memfd) - 1) &&
	       strncmp(mapping->path, backend, sizeof(backend) - 1) != 0;
}

static bool is_candidate(const struct stream_block *block, const struct memory_mapping *mapping)
{
	return mapping->shared && mapping->writable && block->size_bytes >= LEAST_BYTES &&
	       mapping->size_bytes == block->size_bytes && !is_foreign(mapping);
}

static const struct memory_mapping *find_by_name(const struct stream_block *block,
						 const struct memory_mapping *mappings,
						 unsigned n_mappings)
{
	for (unsigned i = 0; i < n_mappings; i++) {
		if (is_candidate(block, &mappings[i]) && is_named_after(&mappings[i], block))
			return &mappings[i];
	}
	return NULL;
}

static bool is_another_blocks(const struct stream_block *blocks, unsigned n_blocks,
			      const struct memory_mapping *mapping)
{
	for (unsigned i = 0; i < n_blocks; i++) {
		if (is_candidate(&blocks[i], mapping) && is_named_after(mapping, &blocks[i]))
			return true;
	}
	return false;
}

static bool is_same_memory(const struct memory_mapping *a, const struct memory_mapping *b)
{
	return a->inode == b->inode && a->device == b->device && a->file_offset == b->file_offset;
}

/* The only one of the block's size that no block's name is on; *several: not the only one. */
static const struct memory_mapping *
find_by_size(const struct stream_block *blocks, unsigned n_blocks, const struct stream_block *block,
	     const struct memory_mapping *mappings, unsigned n_mappings, bool *several)
{
	const struct memory_mapping *found = NULL;

	*several = false;
	for (unsigned i = 0; i < n_mappings; i++) {
		if (!is_candidate(block, &mappings[i]) ||
		    is_another_blocks(blocks, n_blocks, &mappings[i]))
			continue;
		*several |= found && !is_same_memory(found, &mappings[i]);
		found = &mappings[i];
	}
	/* One of them may be shared and the other not: it would get the first one's memory. */
	for (unsigned i = 0; found && i < n_blocks; i++)
		*several |= &blocks[i] != block && blocks[i].size_bytes == block->size_bytes &&
			    !find_by_name(&blocks[i], mappings, n_mappings);
	return found;
}

int block_match(const struct stream_block *blocks, unsigned n_blocks, unsigned index,
		const struct memory_mapping *mappings, unsigned n_mappings,
		const struct memory_mapping **mapping, struct ramlift_error *error)
{
	const struct stream_block *block = &blocks[index];
	const struct memory_mapping *found = find_by_name(block, mappings, n_mappings);
	bool several = false;

	if (!found)
		found = find_by_size(blocks, n_blocks, block, mappings, n_mappings, &several);
	if (several)
		return error_set(
			error, -EOPNOTSUPP,
			"the guest has several memories of %llu MiB, and which of them is block "
			"%.64s cannot be told: give its backends files with share=on (in libvirt "
			"<memoryBacking><source type='file'/><access mode='shared'/>)",
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
