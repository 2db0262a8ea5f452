/* SPDX-License-Identifier: Apache-2.0 */
/* A directory with a journal in it. */
#ifndef TESTS_UNIT_CORE_JOURNAL_FOLDER_H
#define TESTS_UNIT_CORE_JOURNAL_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/journal.h"
#include "core/ramlift.h"

/* An entry as good as any. */
extern const struct journal_entry commit_entry;

struct folder {
	char path[32], journal[64];
};

/* Of each test, which finds it in *state. */
int make_folder(void **state);
int remove_folder(void **state);
#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)

void read_journal(const struct folder *folder, char *text, size_t size);
void write_journal(const struct folder *folder, const char *text);

#endif
