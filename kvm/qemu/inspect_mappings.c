/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which mapping of QEMU's process is which RAM block. A mistake here would mix up the guest's
 * memory, so QEMU itself is asked for a block's address: "info ramblock" says it from 8.0 on;
 * before, "info mtree" says where in the guest the block is and gpa2hva where that is in QEMU. Only
 * for a block that the guest does not see just now the file's path and size decide, if they leave
 * one choice.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/error.h"
#include "kvm/qemu/inspect_private.h"
#include "kvm/qemu/monitor_text.h"
#include "kvm/qemu/qmp.h"

/* Sets hva if QEMU can tell. */
static int ask_address(struct inspection *inspection, const char *tree,
		       struct inspect_block *details, struct ramlift_error *error)
{
	uint64_t gpa, offset, hva;
	char line[48], *text;
	int ret;

	if (!monitor_find_region(tree, details->region, &gpa, &offset))
		return 0;
	snprintf(line, sizeof(line), "gpa2hva 0x%" PRIx64, gpa);
	ret = qmp_monitor_command(inspection->qmp, line, &text, error);
	if (ret)
		return ret;
	if (monitor_read_hva(text, details->region, &hva) && hva > offset)
		details->hva = hva - offset;
	free(text);
	return 0;
}

static int ask_addresses(struct inspection *inspection, struct ramlift_error *error)
{
	char *tree = NULL;
	int ret = 0;

	for (unsigned i = 0; i < inspection->guest->n_blocks && !ret; i++) {
		if (inspection->blocks[i].hva)
			continue;
		if (!tree)
			ret = qmp_monitor_command(inspection->qmp, "info mtree -f", &tree, error);
		if (!ret)
			ret = ask_address(inspection, tree, &inspection->blocks[i], error);
	}
	free(tree);
	return ret;
}

static bool contains(const struct memory_mapping *mapping, uint64_t hva, uint64_t size_bytes)
{
	return mapping->shared && hva >= mapping->hva && hva - mapping->hva < mapping->size_bytes &&
	       mapping->size_bytes - (hva - mapping->hva) >= size_bytes;
}

/* The backend's file, or a file without a name in the backend's folder, or any without a path. */
static bool may_be(const struct memory_mapping *mapping, pid_t pid, const char *path)
{
	char name[PATH_MAX + 32];
	struct stat file;

	if (!*path)
		return !strncmp(mapping->path, "/memfd:", 7) || !strncmp(mapping->path, "/dev/", 5);
	snprintf(name, sizeof(name), "/proc/%d/root%s", (int)pid, path);
	if (!stat(name, &file) && !S_ISDIR(file.st_mode))
		return file.st_dev == mapping->device && file.st_ino == mapping->inode;
	return !strncmp(mapping->path, path, strlen(path));
}

static uint64_t whole_pages(uint64_t size_bytes, uint64_t page_size_bytes)
{
	return (size_bytes + page_size_bytes - 1) / page_size_bytes * page_size_bytes;
}

/* The only mapping of that size, other views of the same memory aside; NULL: none, or several. */
static const struct memory_mapping *only_choice(const struct inspection *inspection, unsigned block,
						const struct memory_mapping *mappings,
						unsigned n_mappings)
{
	uint64_t size_bytes = inspection->guest->blocks[block].size_bytes;
	const struct memory_mapping *choice = NULL;

	for (unsigned i = 0; i < n_mappings; i++) {
		const struct memory_mapping *mapping = &mappings[i];

		if (!mapping->shared ||
		    mapping->size_bytes != whole_pages(size_bytes, mapping->page_size_bytes) ||
		    !may_be(mapping, inspection->guest->pid, inspection->blocks[block].file))
			continue;
		if (choice &&
		    (choice->inode != mapping->inode || choice->device != mapping->device ||
		     choice->file_offset != mapping->file_offset))
			return NULL;
		choice = choice ? choice : mapping;
	}
	return choice;
}

static int find_mapping(struct inspection *inspection, unsigned number,
			const struct memory_mapping *mappings, unsigned n_mappings,
			struct ramlift_error *error)
{
	struct qemu_block *block = &inspection->guest->blocks[number];
	uint64_t hva = inspection->blocks[number].hva;
	const struct memory_mapping *found = NULL;

	for (unsigned i = 0; i < n_mappings && hva && !found; i++)
		if (contains(&mappings[i], hva, block->size_bytes))
			found = &mappings[i];
	if (!hva) {
		found = only_choice(inspection, number, mappings, n_mappings);
		hva = found ? found->hva : 0;
	}
	if (!found && hva)
		return error_set(error, -ESRCH,
				 "process %d has no shared memory where QEMU has the guest's RAM "
				 "block %s: if that is not QEMU's process, name it by --pid",
				 (int)inspection->guest->pid, block->name);
	if (!found)
		return error_set(error, -EOPNOTSUPP,
				 "it cannot be told which memory of process %d is the guest's RAM "
				 "block %s: name QEMU's process by --pid, or give the backend a "
				 "file of its own: -object "
				 "memory-backend-file,id=%s,mem-path=/dev/shm/...,share=on",
				 (int)inspection->guest->pid, block->name, block->id);
	block->mapping = *found;
	block->mapping.hva = hva;
	block->mapping.file_offset += hva - found->hva;
	block->mapping.size_bytes = block->size_bytes;
	return 0;
}

/* Two blocks in the same bytes of a file would be sent on lanes that know nothing of each other. */
static int check_apart(const struct qemu_guest *guest, struct ramlift_error *error)
{
	for (unsigned i = 1; i < guest->n_blocks; i++) {
		const struct memory_mapping *a = &guest->blocks[i].mapping;

		for (unsigned j = 0; j < i; j++) {
			const struct memory_mapping *b = &guest->blocks[j].mapping;

			if (a->inode == b->inode && a->device == b->device &&
			    a->file_offset < b->file_offset + b->size_bytes &&
			    b->file_offset < a->file_offset + a->size_bytes)
				return error_set(error, -EOPNOTSUPP,
						 "the memory backends %s and %s share a file: "
						 "give each its own mem-path",
						 guest->blocks[j].id, guest->blocks[i].id);
		}
	}
	return 0;
}

int inspect_mappings(struct inspection *inspection, struct ramlift_error *error)
{
	struct memory_mapping *mappings;
	unsigned n_mappings;
	int ret;

	ret = ask_addresses(inspection, error);
	if (!ret)
		ret = memory_list(inspection->guest->pid, &mappings, &n_mappings, error);
	if (ret)
		return ret;
	for (unsigned i = 0; i < inspection->guest->n_blocks && !ret; i++)
		ret = find_mapping(inspection, i, mappings, n_mappings, error);
	free(mappings);
	return ret ? ret : check_apart(inspection->guest, error);
}
