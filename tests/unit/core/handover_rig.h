/* SPDX-License-Identifier: Apache-2.0 */
/* A pair whose sides have journals of their own, and whose guests do more than they are asked. */
#ifndef TESTS_UNIT_CORE_HANDOVER_RIG_H
#define TESTS_UNIT_CORE_HANDOVER_RIG_H

#include "core/journal.h"
#include "session_pair.h"

struct rig {
	struct pair pair;
	char there[32]; /* the destination's state directory */
	struct ramlift_guest_ops source_ops, destination_ops;
	void (*on_save)(struct rig *rig);
	void (*on_load)(struct rig *rig);
	int (*on_resume)(struct rig *rig); /* at the destination */
	char checks[2][400];		   /* what was checked, in order, by side */
};

extern struct rig *rig; /* the one of the test that runs */

int set_up(void **state);
int tear_down(void **state);
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

/* The last words in the journals, and whether a session holds the guest at the destination. */
enum journal_event word_here(void);
enum journal_event word_there(void);
bool is_locked_there(void);

void assert_stayed_running(void);
/* Once more, with nothing in the way; the destination is the same. */
void assert_moves_now(void);

#endif
