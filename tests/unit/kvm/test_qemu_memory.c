/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM of another process, with this process as that other one. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/ramlift.h"
#include "kvm/qemu/memory.h"

#define PAGE   ((size_t)RAMLIFT_PAGE_BYTES)
#define PAGES  16u
#define LENGTH (PAGES * PAGE)

struct guest {
	int fd;
	uint8_t *hva;
	struct memory_mapping mapping;
};

static bool find(const struct stat *file, struct memory_mapping *found, unsigned *n_found)
{
	struct memory_mapping *mappings;
	unsigned n;

	*n_found = 0;
	assert_int_equal(memory_list(getpid(), &mappings, &n, NULL), 0);
	for (unsigned i = 0; i < n; i++) {
		if (mappings[i].inode != file->st_ino || mappings[i].device != file->st_dev)
			continue;
		*found = mappings[i];
		++*n_found;
	}
	free(mappings);
	return *n_found == 1;
}

static void make(struct guest *guest, int fd)
{
	struct stat file;
	unsigned n;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, LENGTH), 0);
	guest->fd = fd;
	guest->hva = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(guest->hva, MAP_FAILED);
	assert_int_equal(fstat(fd, &file), 0);
	assert_true(find(&file, &guest->mapping, &n));
}

static void drop(struct guest *guest)
{
	munmap(guest->hva, LENGTH);
	if (guest->fd >= 0)
		close(guest->fd);
}

static void test_list(void **unused)
{
	struct guest guest;

	(void)unused;
	make(&guest, memfd_create("memory-backend-memfd", MFD_CLOEXEC));
	assert_int_equal(guest.mapping.hva, (uintptr_t)guest.hva);
	assert_int_equal(guest.mapping.size_bytes, LENGTH);
	assert_int_equal(guest.mapping.file_offset, 0);
	assert_int_equal(guest.mapping.page_size_bytes, PAGE);
	assert_true(guest.mapping.shared);
	assert_true(guest.mapping.writable);
	assert_string_equal(guest.mapping.path, "/memfd:memory-backend-memfd (deleted)");
	drop(&guest);
}

/* madvise() splits a mapping in three, as QEMU's does; a hole in the addresses parts it. */
static void test_pieces(void **unused)
{
	struct memory_mapping mapping;
	struct guest guest;
	struct stat file;
	unsigned n;

	(void)unused;
	make(&guest, memfd_create("pieces", MFD_CLOEXEC));
	assert_int_equal(madvise(guest.hva + 4 * PAGE, 4 * PAGE, MADV_DONTFORK), 0);
	assert_int_equal(fstat(guest.fd, &file), 0);
	assert_true(find(&file, &mapping, &n));
	assert_int_equal(mapping.size_bytes, LENGTH);
	assert_int_equal(munmap(guest.hva + 8 * PAGE, PAGE), 0);
	assert_false(find(&file, &mapping, &n));
	assert_int_equal(n, 2);
	assert_int_equal(mapping.file_offset, 9 * PAGE);
	drop(&guest);
}

static void test_private_and_read_only(void **unused)
{
	struct memory_mapping mapping;
	struct stat file;
	unsigned n;
	void *hva;
	int fd = memfd_create("private", MFD_CLOEXEC);

	(void)unused;
	assert_int_equal(ftruncate(fd, LENGTH), 0);
	assert_int_equal(fstat(fd, &file), 0);
	hva = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	assert_true(find(&file, &mapping, &n));
	assert_false(mapping.shared);
	assert_int_equal(mprotect(hva, LENGTH, PROT_READ), 0);
	assert_false(find(&file, &mapping, &n));
	assert_int_equal(n, 0);
	munmap(hva, LENGTH);
	close(fd);
}

static void expect_same_memory(const struct guest *guest)
{
	struct ramlift_region region = { .gpa = 7 };
	int fd;

	assert_int_equal(memory_open(getpid(), &guest->mapping, &fd, NULL), 0);
	assert_int_equal(memory_map(fd, &guest->mapping, &region, NULL), 0);
	assert_int_equal(region.gpa, 7);
	assert_int_equal(region.size_bytes, guest->mapping.size_bytes);
	assert_int_equal(region.page_size_bytes, PAGE);
	assert_int_equal(region.numa_node, -1);
	assert_int_equal(region.memfd, fd);
	strcpy((char *)guest->hva + 3 * PAGE, "written by the guest");
	assert_string_equal((char *)region.hva + 3 * PAGE, "written by the guest");
	strcpy((char *)region.hva + 5 * PAGE, "written by a lane");
	assert_string_equal((char *)guest->hva + 5 * PAGE, "written by a lane");
	memory_unmap(&region);
	assert_null(region.hva);
	memory_unmap(&region);
}

static void test_memfd(void **unused)
{
	struct guest guest;

	(void)unused;
	make(&guest, memfd_create("memory-backend-memfd", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	/* As QEMU seals it. */
	assert_int_equal(ftruncate(guest.fd, LENGTH), 0);
	assert_int_equal(fcntl(guest.fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL),
			 0);
	expect_same_memory(&guest);
	drop(&guest);
}

/* By its path, where the process has closed the descriptor; and not another file of that path. */
static void test_file(void **unused)
{
	char path[] = "/tmp/ramlift-memory-XXXXXX";
	struct guest guest;
	struct stat opened;
	int fd;

	(void)unused;
	make(&guest, mkstemp(path));
	close(guest.fd);
	guest.fd = -1;
	expect_same_memory(&guest);
	assert_int_equal(unlink(path), 0);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	/* Whether the old one can still be had depends on rights; the new one is not it. */
	if (!memory_open(getpid(), &guest.mapping, &fd, NULL)) {
		assert_int_equal(fstat(fd, &opened), 0);
		assert_int_equal(opened.st_ino, guest.mapping.inode);
		close(fd);
	}
	unlink(path);
	drop(&guest);
}

static void test_truncated(void **unused)
{
	struct ramlift_region region = { 0 };
	struct ramlift_error error;
	struct guest guest;
	int fd;

	(void)unused;
	make(&guest, memfd_create("short", MFD_CLOEXEC));
	assert_int_equal(ftruncate(guest.fd, LENGTH / 2), 0);
	assert_int_equal(memory_open(getpid(), &guest.mapping, &fd, NULL), 0);
	assert_int_equal(memory_map(fd, &guest.mapping, &region, &error), -EINVAL);
	assert_non_null(strstr(error.text, "truncated"));
	guest.mapping.file_offset = UINT64_MAX - PAGE + 1;
	assert_int_equal(memory_map(fd, &guest.mapping, &region, NULL), -EINVAL);
	assert_null(region.hva);
	close(fd);
	drop(&guest);
}

static void test_no_process(void **unused)
{
	const struct memory_mapping mapping = { .path = "/nothing" };
	struct memory_mapping *mappings;
	struct ramlift_error error;
	pid_t pid = fork();
	unsigned n;
	int fd;

	(void)unused;
	if (!pid)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(memory_list(pid, &mappings, &n, &error), -ESRCH);
	assert_non_null(strstr(error.text, "no process"));
	assert_int_equal(memory_open(pid, &mapping, &fd, NULL), -ESRCH);
}

static void test_clear(void **unused)
{
	struct ramlift_region region = { 0 };
	struct memory_mapping part;
	struct stat before, after;
	struct guest guest;
	int fd;

	(void)unused;
	make(&guest, memfd_create("clear", MFD_CLOEXEC));
	memset(guest.hva + PAGE, 0x11, PAGE);  /* before the region */
	memset(guest.hva + 5 * PAGE, 0x22, 1); /* in it: the first byte of a page */
	guest.hva[8 * PAGE - 1] = 0x33;	       /* the last one */
	guest.hva[6 * PAGE] = 0;	       /* data, but zero */
	guest.hva[11 * PAGE + 99] = 0x44;      /* the region's last page */
	guest.hva[12 * PAGE] = 0x55;	       /* behind it */
	part = guest.mapping;
	part.file_offset += 4 * PAGE;
	part.size_bytes = 8 * PAGE;
	assert_int_equal(memory_open(getpid(), &part, &fd, NULL), 0);
	assert_int_equal(memory_map(fd, &part, &region, NULL), 0);
	assert_int_equal(region.memfd_offset, 4 * PAGE);
	assert_int_equal(fstat(fd, &before), 0);
	assert_int_equal(memory_clear(&region, NULL), 0);
	assert_int_equal(fstat(fd, &after), 0);
	assert_int_equal(before.st_blocks, after.st_blocks);
	for (size_t i = 4 * PAGE; i < 12 * PAGE; i++)
		assert_int_equal(guest.hva[i], 0);
	assert_int_equal(guest.hva[PAGE], 0x11);
	assert_int_equal(guest.hva[12 * PAGE], 0x55);
	assert_int_equal(memory_clear(&region, NULL), 0);
	memory_unmap(&region);
	drop(&guest);
}

/* Nothing but holes. */
static void test_clear_fresh(void **unused)
{
	struct ramlift_region region = { 0 };
	struct guest guest;
	struct stat file;
	int fd;

	(void)unused;
	make(&guest, memfd_create("fresh", MFD_CLOEXEC));
	assert_int_equal(memory_open(getpid(), &guest.mapping, &fd, NULL), 0);
	assert_int_equal(memory_map(fd, &guest.mapping, &region, NULL), 0);
	assert_int_equal(memory_clear(&region, NULL), 0);
	assert_int_equal(fstat(fd, &file), 0);
	assert_int_equal(file.st_blocks, 0);
	memory_unmap(&region);
	drop(&guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_private_and_read_only),
		cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_no_process),
		cmocka_unit_test(test_clear),
		cmocka_unit_test(test_clear_fresh),
	};

	return cmocka_run_group_tests_name("qemu_memory", tests, NULL, NULL);
}
