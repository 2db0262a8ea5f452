/* SPDX-License-Identifier: Apache-2.0 */
/* A directory with a journal; see the header. */
#include "journal_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/cmocka_all.h"

const struct journal_entry commit_entry = {
	.event = JOURNAL_COMMIT,
	.side = SIDE_SOURCE,
	.session_id = { 0x00, 0x01, 0x7f, 0x80, 0xff, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xab },
	.generation = 3,
	.peer = "192.0.2.1:7440",
};

int make_folder(void **state)
{
	struct folder *folder = calloc(1, sizeof(*folder));

	if (!folder)
		return -1;
	strcpy(folder->path, "/tmp/ramlift-test-XXXXXX");
	if (!mkdtemp(folder->path))
		return -1;
	snprintf(folder->journal, sizeof(folder->journal), "%s/db.journal", folder->path);
	*state = folder;
	return 0;
}

int remove_folder(void **state)
{
	struct folder *folder = *state;

	unlink(folder->journal);
	if (rmdir(folder->path))
		return -1;
	free(folder);
	return 0;
}

void read_journal(const struct folder *folder, char *text, size_t size)
{
	FILE *file = fopen(folder->journal, "r");

	assert_non_null(file);
	text[fread(text, 1, size - 1, file)] = '\0';
	fclose(file);
}

void write_journal(const struct folder *folder, const char *text)
{
	FILE *file = fopen(folder->journal, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	assert_int_equal(fclose(file), 0);
}
