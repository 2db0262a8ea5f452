/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a journal. What is taken can be written again line by line, and says the same. */
#include <errno.h>

#include "core/journal.h"
#include "tests/fuzz/fuzz.h"

static void check_session(const struct journal_entry *entry)
{
	char line[JOURNAL_MAX_LINE];
	struct journal_history again;
	const struct journal_entry *same;
	unsigned bad_line;

	CHECK(entry->event < JOURNAL_EVENT_COUNT);
	CHECK(entry->side == SIDE_SOURCE || entry->side == SIDE_DESTINATION);
	CHECK(memchr(entry->peer, '\0', sizeof(entry->peer)));
	if (entry->event == JOURNAL_RESOLVED)
		CHECK(entry->owner == RAMLIFT_OWNER_SOURCE ||
		      entry->owner == RAMLIFT_OWNER_DESTINATION);
	CHECK(!journal_encode(entry, line));
	CHECK(!journal_decode(line, strlen(line), &again, &bad_line));
	CHECK(again.n_sessions == 1);
	same = &again.sessions[0];
	CHECK(same->event == entry->event && same->side == entry->side);
	CHECK(same->generation == entry->generation && same->owner == entry->owner);
	CHECK(!memcmp(same->session_id, entry->session_id, SESSION_ID_BYTES));
	CHECK(!strcmp(same->peer, entry->peer) && same->time_s == entry->time_s);
	journal_history_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct journal_history history;
	unsigned bad_line = 0;
	int ret = journal_decode((const char *)data, size, &history, &bad_line);

	if (ret) {
		CHECK(ret == -EBADMSG && bad_line);
		return 0;
	}
	for (unsigned i = 0; i < history.n_sessions; i++) {
		const struct journal_entry *session = &history.sessions[i];

		check_session(session);
		CHECK(journal_find(&history, session->side, session->session_id) == session);
	}
	if (history.n_sessions)
		CHECK(journal_newest(&history, SIDE_SOURCE) ||
		      journal_newest(&history, SIDE_DESTINATION));
	journal_history_fini(&history);
	return 0;
}
