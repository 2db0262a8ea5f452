/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two sides have promised, on disk: the source writes COMMIT before it sends it, the
 * destination STARTED before its guest runs (rule 7). So whoever looks after a crash can know whose
 * a guest is. One small text file a guest, one synced line an event:
 *
 *   COMMIT side=source session=<32 hex digits> generation=1 peer=10.0.0.2:7440 time=<unix>
 *
 * A session's last word counts. The file is locked while it is read or written, and begins anew
 * with the newest sessions when it has grown long.
 */
#ifndef CORE_JOURNAL_H
#define CORE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/phase.h"
#include "core/transport.h"

#define JOURNAL_MAX_PEER (sizeof(((struct ramlift_doubt *)0)->peer))

enum journal_event {
	JOURNAL_BEGIN,	   /* source: there is an attempt */
	JOURNAL_COMMIT,	   /* source: the guest is about to be handed over; in doubt from here on */
	JOURNAL_REFUSED,   /* source: it is here again, the destination has never run it */
	JOURNAL_RESOLVED,  /* source: an operator or a fence has said whose it is */
	JOURNAL_RECEIVE,   /* destination: there is an attempt */
	JOURNAL_STARTED,   /* destination: it is about to run; source: it has heard so */
	JOURNAL_DISCARDED, /* destination: it has not run and never will */
	JOURNAL_EVENT_COUNT
};

struct journal_entry {
	enum journal_event event;
	enum side side;
	uint8_t session_id[SESSION_ID_BYTES];
	uint32_t generation;
	char peer[JOURNAL_MAX_PEER]; /* printable, without blanks */
	enum ramlift_owner owner;    /* of RESOLVED */
	int64_t time_s;		     /* set by journal_append() */
};

/* The last word of each session, in the order in which the sessions began. */
struct journal_history {
	struct journal_entry *sessions;
	unsigned n_sessions;
};

/* Can there be a journal of a guest of that name? Not empty, no slash, no dot at the start. */
bool journal_name_fits(const char *guest);

/* "COMMIT"; "unknown" for a number that is none. */
const char *journal_event_name(enum journal_event event);

/*
 * Append to <state_dir>/<guest>.journal, and sync. On failure (-errno with a sentence) what was
 * there before is still there, and nothing else.
 */
int journal_append(const char *state_dir, const char *guest, const struct journal_entry *entry,
		   struct ramlift_error *error);

/*
 * The same for a session's first line, and how long a line takes. A file's first one costs more and
 * a disk may be busy for a moment: where it took longer than enough_ns it is written once more, and
 * the shorter time counts.
 */
int journal_append_timed(const char *state_dir, const char *guest,
			 const struct journal_entry *entry, uint64_t enough_ns, uint64_t *took_ns,
			 struct ramlift_error *error);

/*
 * Read it all, and sync it: what has been read stays. Without a file there are no sessions.
 * -EBADMSG: there is something in it that no journal has, in words that name file and line.
 * journal_history_fini() frees.
 */
int journal_read(const char *state_dir, const char *guest, struct journal_history *history,
		 struct ramlift_error *error);
void journal_history_fini(struct journal_history *history);

/*
 * The text of a journal, any bytes. What follows the last newline was being written when somebody
 * fell, and is ignored. -EBADMSG: line *bad_line, counted from 1, makes no sense; -ENOMEM.
 */
int journal_decode(const char *text, size_t n_bytes, struct journal_history *history,
		   unsigned *bad_line);

/* That session on that side, or NULL. */
const struct journal_entry *journal_find(const struct journal_history *history, enum side side,
					 const uint8_t *session_id);

/* The newest session of that side, or NULL. */
const struct journal_entry *journal_newest(const struct journal_history *history, enum side side);

/* Of the sessions that this host was the source of; 0: there was none. */
uint32_t journal_highest_generation(const struct journal_history *history);

/* The session whose guest was handed over without an answer, or NULL. */
const struct journal_entry *journal_find_doubt(const struct journal_history *history);

/*
 * Take the lock that a live session of a guest holds, at its destination or its source. The kernel
 * lets go of it when the process ends. 0 and *lock_fd, to be closed; -EBUSY: somebody has it.
 */
int journal_lock(const char *state_dir, const char *guest, enum side side, int *lock_fd,
		 struct ramlift_error *error);

/* A line of the journal with its newline and a NUL. -EINVAL: the peer's name does not fit. */
#define JOURNAL_MAX_LINE 512u
int journal_encode(const struct journal_entry *entry, char line[JOURNAL_MAX_LINE]);

void journal_session_text(const uint8_t *session_id, char text[RAMLIFT_SESSION_TEXT]);
bool journal_session_parse(const char *text, uint8_t session_id[SESSION_ID_BYTES]);

#endif
