/* SPDX-License-Identifier: Apache-2.0 */
/* Which shared mapping is which RAM block, with nothing to go by but names and sizes. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "kvm/qemu/block_match.h"

#define MIB   (1ull << 20)
#define MEMFD "/memfd:memory-backend-memfd (deleted)"
#define MOST  4u

struct guest {
	struct stream_block blocks[MOST];
	struct memory_mapping mappings[MOST];
	unsigned n_blocks, n_mappings;
};

static void add_block(struct guest *guest, const char *name, uint64_t size_bytes)
{
	struct stream_block *block = &guest->blocks[guest->n_blocks++];

	snprintf(block->name, sizeof(block->name), "%s", name);
	block->size_bytes = size_bytes;
}

static struct memory_mapping *add_mapping(struct guest *guest, const char *path,
					  uint64_t size_bytes)
{
	struct memory_mapping *mapping = &guest->mappings[guest->n_mappings++];

	snprintf(mapping->path, sizeof(mapping->path), "%s", path);
	mapping->size_bytes = size_bytes;
	mapping->inode = guest->n_mappings;
	mapping->shared = true;
	mapping->writable = true;
	return mapping;
}

/* The number of the block's mapping; -1: it has none. */
static int match(const struct guest *guest, unsigned block)
{
	const struct memory_mapping *mapping = NULL;

	assert_int_equal(block_match(guest->blocks, guest->n_blocks, block, guest->mappings,
				     guest->n_mappings, &mapping, NULL),
			 0);
	return mapping ? (int)(mapping - guest->mappings) : -1;
}

static void expect_refused(const struct guest *guest, unsigned block, const char *words)
{
	const struct memory_mapping *mapping;
	struct ramlift_error error;

	assert_int_equal(block_match(guest->blocks, guest->n_blocks, block, guest->mappings,
				     guest->n_mappings, &mapping, &error),
			 -EOPNOTSUPP);
	assert_non_null(strstr(error.text, words));
}

static void the_only_one_of_its_size(void **state)
{
	struct guest guest = { 0 };

	(void)state;
	add_block(&guest, "pc.ram", 512 * MIB);
	add_block(&guest, "pc.rom", MIB / 8);
	add_block(&guest, "vga.vram", 16 * MIB);
	add_mapping(&guest, MEMFD, 512 * MIB);
	assert_int_equal(match(&guest, 0), 0);
	assert_int_equal(match(&guest, 1), -1);
	assert_int_equal(match(&guest, 2), -1);
}

static void libvirts_files(void **state)
{
	struct guest guest = { 0 };

	(void)state;
	add_block(&guest, "/objects/ram-node0", 512 * MIB);
	add_block(&guest, "ram-node1", 512 * MIB);
	add_mapping(&guest, "/var/lib/libvirt/qemu/ram/1-db1/ram-node1", 512 * MIB);
	add_mapping(&guest, "/var/lib/libvirt/qemu/ram/1-db1/ram-node0 (deleted)", 512 * MIB);
	assert_int_equal(match(&guest, 0), 1);
	assert_int_equal(match(&guest, 1), 0);
}

/* QEMU's own, in a folder: what libvirt uses with huge pages. */
static void qemus_files(void **state)
{
	struct guest guest = { 0 };

	(void)state;
	add_block(&guest, "/objects/node1", 512 * MIB);
	add_block(&guest, "ram-node1", 512 * MIB);
	add_mapping(&guest, "/dev/hugepages/1-db1/qemu_back_mem.ram-node1.a1B2c3 (deleted)",
		    512 * MIB);
	add_mapping(&guest, "/dev/hugepages/1-db1/qemu_back_mem._objects_node1.d4E5f6 (deleted)",
		    512 * MIB);
	assert_int_equal(match(&guest, 0), 1);
	assert_int_equal(match(&guest, 1), 0);
}

static void several_of_one_size(void **state)
{
	struct guest guest = { 0 };

	(void)state;
	add_block(&guest, "ram-node0", 512 * MIB);
	add_block(&guest, "ram-node1", 512 * MIB);
	add_mapping(&guest, MEMFD, 512 * MIB);
	add_mapping(&guest, MEMFD, 512 * MIB);
	expect_refused(&guest, 0, "several memories of 512 MiB");
}

/* Two blocks must never become one mapping. */
static void one_of_two_is_private(void **state)
{
	struct guest guest = { 0 };

	(void)state;
	add_block(&guest, "ram-node0", 128 * MIB);
	add_block(&guest, "ram-node1", 128 * MIB);
	add_mapping(&guest, MEMFD, 128 * MIB);
	expect_refused(&guest, 0, "cannot be told");
	expect_refused(&guest, 1, "cannot be told");
	/* Told by its name, the other one is the other one. */
	snprintf(guest.mappings[0].path, sizeof(guest.mappings[0].path), "/dev/shm/ram-node1");
	assert_int_equal(match(&guest, 0), -1);
	assert_int_equal(match(&guest, 1), 0);
}

static void one_memory_mapped_twice(void **state)
{
	struct guest guest = { 0 };

	(void)state;
	add_block(&guest, "pc.ram", 512 * MIB);
	add_mapping(&guest, MEMFD, 512 * MIB);
	add_mapping(&guest, MEMFD, 512 * MIB)->inode = 1;
	assert_true(match(&guest, 0) >= 0);
}

static void other_memory_of_that_size(void **state)
{
	struct guest guest = { 0 };

	(void)state;
	add_block(&guest, "vga.vram", 16 * MIB);
	add_mapping(&guest, "/memfd:vhost-log (deleted)", 16 * MIB);
	add_mapping(&guest, MEMFD, 16 * MIB)->shared = false;
	add_mapping(&guest, MEMFD, 16 * MIB)->writable = false;
	assert_int_equal(match(&guest, 0), -1);
}

static void guest_memory_must_be_shared(void **state)
{
	struct guest guest = { 0 };

	(void)state;
	add_block(&guest, "pc.ram", 512 * MIB);
	expect_refused(&guest, 0, "share=on");
	guest.blocks[0].size_bytes = 128 * MIB;
	assert_int_equal(match(&guest, 0), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_only_one_of_its_size),
		cmocka_unit_test(libvirts_files),
		cmocka_unit_test(qemus_files),
		cmocka_unit_test(several_of_one_size),
		cmocka_unit_test(one_of_two_is_private),
		cmocka_unit_test(one_memory_mapped_twice),
		cmocka_unit_test(other_memory_of_that_size),
		cmocka_unit_test(guest_memory_must_be_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
