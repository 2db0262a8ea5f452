/* SPDX-License-Identifier: Apache-2.0 */
/* Another process's memory, mapped here too. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/zero.h"
#include "kvm/qemu/memory.h"
#include "kvm/qemu/memory_private.h"

#define GIB	    ((double)(1ull << 30))
#define CLEAR_BYTES (256u << 10)

int memory_map(int fd, const struct memory_mapping *mapping, struct ramlift_region *region,
	       struct ramlift_error *error)
{
	struct stat file;
	void *hva;
	int ret;

	if (fstat(fd, &file)) {
		ret = -errno;
		return error_set(error, ret, "cannot look at the guest's memory: %s",
				 strerror(-ret));
	}
	/* What is mapped beyond the end of a file kills who touches it. */
	if (!mapping->size_bytes || mapping->size_bytes % RAMLIFT_PAGE_BYTES ||
	    mapping->file_offset > (uint64_t)file.st_size ||
	    mapping->size_bytes > (uint64_t)file.st_size - mapping->file_offset)
		return error_set(error, -EINVAL,
				 "the file %.200s has %llu bytes, too few for what QEMU has mapped "
				 "of it: it was truncated",
				 mapping->path, (unsigned long long)file.st_size);
	hva = mmap(NULL, mapping->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   (off_t)mapping->file_offset);
	if (hva == MAP_FAILED) {
		ret = -errno;
		return error_set(error, ret, "cannot map %.1f GiB of guest memory: %s",
				 (double)mapping->size_bytes / GIB, strerror(-ret));
	}
	(void)madvise(hva, mapping->size_bytes, MADV_DONTDUMP); /* core dumps stay small */
	region->hva = hva;
	region->size_bytes = mapping->size_bytes;
	region->memfd = fd;
	region->memfd_offset = mapping->file_offset;
	region->page_size_bytes = memory_fd_page_bytes(fd);
	region->numa_node = -1; /* the other process's to place */
	return 0;
}

void memory_unmap(struct ramlift_region *region)
{
	uint64_t page_bytes = region->page_size_bytes;

	if (!region->hva)
		return;
	/* Huge pages go as a whole only. */
	munmap(region->hva, (region->size_bytes + page_bytes - 1) / page_bytes * page_bytes);
	close(region->memfd);
	*region = (struct ramlift_region){ .gpa = region->gpa, .memfd = -1 };
}

/*
 * What the file has is read, not looked at through the mapping, which would cost a page fault for
 * every few pages; only a page that is not zeros is touched there.
 */
static int clear_pages(const struct ramlift_region *region, uint64_t begin, uint64_t end,
		       uint8_t *buffer)
{
	uint8_t *base = region->hva;

	while (begin < end) {
		size_t want = end - begin < CLEAR_BYTES ? (size_t)(end - begin) : CLEAR_BYTES;
		ssize_t n = pread(region->memfd, buffer, want, (off_t)begin);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)RAMLIFT_PAGE_BYTES)
			return n < 0 ? -errno : -EIO;
		n -= n % (ssize_t)RAMLIFT_PAGE_BYTES;
		for (ssize_t at = 0; at < n; at += RAMLIFT_PAGE_BYTES) {
			if (!page_is_zero(&buffer[at]))
				memset(&base[begin - region->memfd_offset + (uint64_t)at], 0,
				       RAMLIFT_PAGE_BYTES);
		}
		begin += (uint64_t)n;
	}
	return 0;
}

/* The next piece of data of the file at or after *begin; -ENXIO: there is none. */
static int find_data(const struct ramlift_region *region, uint64_t *begin, uint64_t *end)
{
	uint64_t limit = region->memfd_offset + region->size_bytes;
	off_t data = lseek(region->memfd, (off_t)*begin, SEEK_DATA);
	off_t hole;

	if (data < 0)
		return -errno;
	if ((uint64_t)data >= limit)
		return -ENXIO;
	hole = lseek(region->memfd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*begin = (uint64_t)data & ~(uint64_t)(RAMLIFT_PAGE_BYTES - 1);
	*end = (uint64_t)hole < limit ? (uint64_t)hole : limit;
	return 0;
}

int memory_clear(const struct ramlift_region *region, struct ramlift_error *error)
{
	uint8_t *buffer = aligned_alloc(RAMLIFT_PAGE_BYTES, CLEAR_BYTES);
	uint64_t begin = region->memfd_offset;
	uint64_t end = begin;
	int ret = buffer ? 0 : -ENOMEM;

	while (!ret && begin < region->memfd_offset + region->size_bytes) {
		ret = find_data(region, &begin, &end);
		if (!ret)
			ret = clear_pages(region, begin, end, buffer);
		begin = end;
	}
	free(buffer);
	if (!ret || ret == -ENXIO)
		return 0;
	return error_set(error, ret, "cannot find out what the guest's memory holds already: %s",
			 strerror(-ret));
}
