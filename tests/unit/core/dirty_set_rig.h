/* SPDX-License-Identifier: Apache-2.0 */
/* A dirty set of a guest without memory behind it. */
#ifndef TESTS_UNIT_CORE_DIRTY_SET_RIG_H
#define TESTS_UNIT_CORE_DIRTY_SET_RIG_H

#include "core/dirty_set.h"

#define PAGE ((uint64_t)RAMLIFT_PAGE_BYTES)

/* Two regions: 100 pages (stripes 0 and 1, ragged) and 64 * 70 + 1 pages (stripes 64 to 134). */
#define FIRST_PAGES   100u
#define SECOND_PAGES  (64u * 70 + 1)
#define SECOND_STRIPE 64u
#define N_STRIPES     192u

struct fixture {
	struct ramlift_region regions[2];
	struct ram ram;
	struct ramlift_dirty_sink set;
};

void fixture_init(struct fixture *fixture);
void fixture_fini(struct fixture *fixture);
uint64_t dirty_pages(const struct fixture *fixture);

#endif
