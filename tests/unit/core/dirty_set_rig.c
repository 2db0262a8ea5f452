/* SPDX-License-Identifier: Apache-2.0 */
/* A dirty set to test; see the header. */
#include "dirty_set_rig.h"

#include <string.h>

#include "tests/support/cmocka_all.h"

void fixture_init(struct fixture *fixture)
{
	memset(fixture, 0, sizeof(*fixture));
	fixture->regions[0].size_bytes = FIRST_PAGES * PAGE;
	fixture->regions[1].gpa = 1ull << 32;
	fixture->regions[1].size_bytes = SECOND_PAGES * PAGE;
	fixture->regions[0].memfd = -1;
	fixture->regions[1].memfd = -1;
	assert_int_equal(ram_check(fixture->regions, 2, 1 << 20, NULL), 0);
	assert_int_equal(ram_init(&fixture->ram, fixture->regions, 2, 1 << 20), 0);
	assert_int_equal(fixture->ram.n_stripes, N_STRIPES);
	assert_int_equal(dirty_set_init(&fixture->set, &fixture->ram), 0);
}

void fixture_fini(struct fixture *fixture)
{
	dirty_set_fini(&fixture->set);
	ram_fini(&fixture->ram);
}

uint64_t dirty_pages(const struct fixture *fixture)
{
	return dirty_bitmap_count(&fixture->set.dirty);
}
