/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the test guest and the VMM agree on: where things are in guest-physical memory, the boot
 * parameters, the reports, the ports. Freestanding: included by both sides.
 *
 *      0x00001000  boot parameters, written by the VMM before the start, read by the guest
 *      0x00002000  page tables: PML4, PDPT; page directories from 0x40000 on
 *      0x00010000  the program
 *      0x00020000  a stack page for each vCPU
 *      0x00030000  a report page for each vCPU, written by the guest, read by the VMM
 *      0x00100000  the generation table: for each page of RAM the generation last stamped on it
 *      after it    the pages that are stamped, up to the end of RAM
 *
 * RAM is one block from 0, with a hole from 3 to 4 GiB when there is more than 3 GiB. Pages are
 * numbered without the hole.
 */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#include <stdint.h>

#define GUEST_PAGE_BYTES    4096ull
#define GUEST_MAX_VCPUS	    16u
#define GUEST_BOOT_GPA	    0x1000ull
#define GUEST_PML4_GPA	    0x2000ull
#define GUEST_PDPT_GPA	    0x3000ull
#define GUEST_PROGRAM_GPA   0x10000ull
#define GUEST_PROGRAM_BYTES 0x10000ull
#define GUEST_STACKS_GPA    0x20000ull
#define GUEST_REPORTS_GPA   0x30000ull
#define GUEST_PDS_GPA	    0x40000ull
#define GUEST_MAX_PDS	    0x60ull /* of 1 GiB each; hosts with 1 GiB pages need none */
#define GUEST_TABLE_GPA	    0x100000ull

#define GUEST_HOLE_GPA	 0xc0000000ull
#define GUEST_HOLE_BYTES 0x40000000ull

/*
 * IN, 32 bits: what to do next. Bits 0-15: pages to write, 16-31: pages to verify. The VMM answers
 * when it is time for it; this is how the guest is paced.
 */
#define GUEST_PORT_BATCH 0x510
/* OUT, 32 bits: a failure was found and is in the report; the value is its kind. */
#define GUEST_PORT_FAILURE 0x514

enum guest_pattern { GUEST_UNIFORM, GUEST_SEQUENTIAL, GUEST_SKEWED };

enum guest_failure {
	GUEST_FAILURE_NONE,
	GUEST_FAILURE_PAGE,  /* a page is not what the table says; word: the first wrong one */
	GUEST_FAILURE_REPORT /* the report page and the registers are not of the same moment */
};

struct guest_boot {
	uint64_t n_vcpus;
	uint64_t n_pages;    /* of RAM */
	uint64_t first_page; /* the first to be stamped */
	uint64_t hot_pages;  /* of all vCPUs together */
	uint64_t fill_percent;
	uint64_t pattern;
};

/* Written by one vCPU alone; the VMM reads at any time. */
struct guest_report {
	volatile uint64_t pages_written;
	volatile uint64_t pages_verified;
	volatile uint64_t sweeps;
	volatile uint64_t failures;
	volatile uint64_t failure_kind; /* of the first one, as are the words below */
	volatile uint64_t failure_page;
	volatile uint64_t failure_word;
	volatile uint64_t failure_expected;
	volatile uint64_t failure_found;
	volatile uint64_t failure_generation;
};

static inline uint64_t guest_page_gpa(uint64_t page)
{
	uint64_t gpa = page * GUEST_PAGE_BYTES;

	return gpa < GUEST_HOLE_GPA ? gpa : gpa + GUEST_HOLE_BYTES;
}

/* The table's end, as a page number: stamped pages begin here. */
static inline uint64_t guest_first_page(uint64_t n_pages)
{
	uint64_t end = GUEST_TABLE_GPA + n_pages * sizeof(uint32_t);

	return (end + GUEST_PAGE_BYTES - 1) / GUEST_PAGE_BYTES;
}

#endif
