/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's lines: written here, and read from any bytes. No I/O. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/journal.h"

#define SIDES	    (1u << SIDE_SOURCE | 1u << SIDE_DESTINATION)
#define MAX_DECIMAL 20u /* digits of the largest number */

static const struct {
	const char *name;
	unsigned sides; /* whose word it is, as bits */
} events[JOURNAL_EVENT_COUNT] = {
	[JOURNAL_BEGIN] = { "BEGIN", 1u << SIDE_SOURCE },
	[JOURNAL_COMMIT] = { "COMMIT", 1u << SIDE_SOURCE },
	[JOURNAL_REFUSED] = { "REFUSED", 1u << SIDE_SOURCE },
	[JOURNAL_RESOLVED] = { "RESOLVED", 1u << SIDE_SOURCE },
	[JOURNAL_RECEIVE] = { "RECEIVE", 1u << SIDE_DESTINATION },
	[JOURNAL_STARTED] = { "STARTED", SIDES },
	[JOURNAL_DISCARDED] = { "DISCARDED", 1u << SIDE_DESTINATION },
};

static const char *const sides[] = {
	[SIDE_SOURCE] = "source",
	[SIDE_DESTINATION] = "destination",
};

const char *journal_event_name(enum journal_event event)
{
	return (unsigned)event < JOURNAL_EVENT_COUNT ? events[event].name : "unknown";
}

void journal_session_text(const uint8_t *session_id, char text[RAMLIFT_SESSION_TEXT])
{
	for (unsigned i = 0; i < SESSION_ID_BYTES; i++)
		snprintf(&text[2 * i], 3, "%02x", session_id[i]);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool journal_session_parse(const char *text, uint8_t session_id[SESSION_ID_BYTES])
{
	uint8_t id[SESSION_ID_BYTES];

	if (strnlen(text, RAMLIFT_SESSION_TEXT) != 2 * SESSION_ID_BYTES)
		return false;
	for (unsigned i = 0; i < SESSION_ID_BYTES; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		id[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(session_id, id, sizeof(id));
	return true;
}

static bool is_word(const char *text)
{
	for (const char *c = text; *c; c++) {
		if (*c <= ' ' || *c > '~')
			return false;
	}
	return text[0];
}

int journal_encode(const struct journal_entry *entry, char line[JOURNAL_MAX_LINE])
{
	char session[RAMLIFT_SESSION_TEXT], owner[32] = "";
	int n;

	if (!is_word(entry->peer))
		return -EINVAL;
	journal_session_text(entry->session_id, session);
	if (entry->event == JOURNAL_RESOLVED)
		snprintf(owner, sizeof(owner), " owner=%s",
			 entry->owner == RAMLIFT_OWNER_SOURCE ? "source" : "destination");
	n = snprintf(line, JOURNAL_MAX_LINE,
		     "%s side=%s session=%s generation=%" PRIu32 " peer=%s%s time=%" PRId64 "\n",
		     events[entry->event].name, sides[entry->side], session, entry->generation,
		     entry->peer, owner, entry->time_s);
	return n < (int)JOURNAL_MAX_LINE ? 0 : -EINVAL;
}

/* The next word of a line, up to a single blank or the line's end; NULL if it is longer than its
 * room or not printable. */
static char *take_word(const char **at, const char *end, char *word, size_t size)
{
	size_t n = 0;

	for (; *at < end && **at != ' '; (*at)++) {
		if (n + 1 >= size || **at < ' ' || **at > '~')
			return NULL;
		word[n++] = **at;
	}
	if (!n)
		return NULL;
	word[n] = '\0';
	if (*at < end) {
		(*at)++;
		if (*at == end) /* a blank at the end */
			return NULL;
	}
	return word;
}

/* The value of the next word, which must be key=value; where it is
 * another one, nothing is taken. */
static char *take_value(const char **at, const char *end, const char *key, char *word, size_t size)
{
	const char *begin = *at;
	size_t n = strlen(key);

	if (!take_word(at, end, word, size) || strncmp(word, key, n) != 0 || word[n] != '=' ||
	    !word[n + 1]) {
		*at = begin;
		return NULL;
	}
	return word + n + 1;
}

static bool parse_number(const char *text, uint64_t most, uint64_t *number)
{
	uint64_t value = 0;

	if (!text || !text[0] || strlen(text) > MAX_DECIMAL || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || value > (most - (uint64_t)(*text - '0')) / 10)
			return false;
		value = value * 10 + (uint64_t)(*text - '0');
	}
	*number = value;
	return true;
}

static bool parse_side(const char *text, enum side *side)
{
	for (unsigned i = 0; text && i < 2; i++) {
		if (!strcmp(text, sides[i])) {
			*side = (enum side)i;
			return true;
		}
	}
	return false;
}

static bool parse_owner(const char *text, enum ramlift_owner *owner)
{
	enum side side;

	if (!parse_side(text, &side))
		return false;
	*owner = side == SIDE_SOURCE ? RAMLIFT_OWNER_SOURCE : RAMLIFT_OWNER_DESTINATION;
	return true;
}

static bool parse_event(const char *text, enum journal_event *event)
{
	for (unsigned i = 0; text && i < JOURNAL_EVENT_COUNT; i++) {
		if (!strcmp(text, events[i].name)) {
			*event = (enum journal_event)i;
			return true;
		}
	}
	return false;
}

static bool decode_line(const char *at, const char *end, struct journal_entry *entry)
{
	char word[JOURNAL_MAX_PEER + 8], *value;
	uint64_t generation, time_s;

	memset(entry, 0, sizeof(*entry));
	if (!parse_event(take_word(&at, end, word, sizeof(word)), &entry->event))
		return false;
	value = take_value(&at, end, "side", word, sizeof(word));
	if (value && !parse_side(value, &entry->side)) /* without one it is the source's */
		return false;
	value = take_value(&at, end, "session", word, sizeof(word));
	if (!value || !journal_session_parse(value, entry->session_id))
		return false;
	if (!parse_number(take_value(&at, end, "generation", word, sizeof(word)), UINT32_MAX,
			  &generation))
		return false;
	value = take_value(&at, end, "peer", word, sizeof(word));
	if (!value || strlen(value) >= sizeof(entry->peer))
		return false;
	strcpy(entry->peer, value);
	if (entry->event == JOURNAL_RESOLVED &&
	    !parse_owner(take_value(&at, end, "owner", word, sizeof(word)), &entry->owner))
		return false;
	if (!parse_number(take_value(&at, end, "time", word, sizeof(word)), INT64_MAX, &time_s))
		return false;
	entry->generation = (uint32_t)generation;
	entry->time_s = (int64_t)time_s;
	return at == end && events[entry->event].sides >> entry->side & 1u;
}

/* The session's place, or where a new one goes. Lines of a session are mostly close together. */
static unsigned place_of(const struct journal_history *history, const struct journal_entry *entry)
{
	for (unsigned i = history->n_sessions; i-- > 0;) {
		const struct journal_entry *session = &history->sessions[i];

		if (session->side == entry->side &&
		    !memcmp(session->session_id, entry->session_id, SESSION_ID_BYTES))
			return i;
	}
	return history->n_sessions;
}

static int add(struct journal_history *history, unsigned *room, const struct journal_entry *entry)
{
	unsigned place = place_of(history, entry);

	if (place == *room) {
		unsigned more = *room ? 2 * *room : 16;
		struct journal_entry *grown =
			realloc(history->sessions, more * sizeof(*history->sessions));

		if (!grown)
			return -ENOMEM;
		history->sessions = grown;
		*room = more;
	}
	/* One session is one generation. */
	if (place < history->n_sessions && history->sessions[place].generation != entry->generation)
		return -EBADMSG;
	if (place == history->n_sessions)
		history->n_sessions++;
	history->sessions[place] = *entry;
	return 0;
}

int journal_decode(const char *text, size_t n_bytes, struct journal_history *result,
		   unsigned *bad_line)
{
	struct journal_history history = { 0 };
	const char *end = text + n_bytes, *newline;
	unsigned line = 0, room = 0;

	while (text < end && (newline = memchr(text, '\n', (size_t)(end - text)))) {
		struct journal_entry entry;
		int ret = -EBADMSG;

		line++;
		if (decode_line(text, newline, &entry))
			ret = add(&history, &room, &entry);
		if (ret) {
			if (ret == -EBADMSG)
				*bad_line = line;
			journal_history_fini(&history);
			return ret;
		}
		text = newline + 1;
	}
	if ((size_t)(end - text) >= JOURNAL_MAX_LINE) { /* no line was ever going to be that long */
		*bad_line = line + 1;
		journal_history_fini(&history);
		return -EBADMSG;
	}
	*result = history;
	return 0;
}

void journal_history_fini(struct journal_history *history)
{
	free(history->sessions);
	memset(history, 0, sizeof(*history));
}

const struct journal_entry *journal_find(const struct journal_history *history, enum side side,
					 const uint8_t *session_id)
{
	for (unsigned i = 0; i < history->n_sessions; i++) {
		const struct journal_entry *session = &history->sessions[i];

		if (session->side == side &&
		    !memcmp(session->session_id, session_id, SESSION_ID_BYTES))
			return session;
	}
	return NULL;
}

const struct journal_entry *journal_newest(const struct journal_history *history, enum side side)
{
	for (unsigned i = history->n_sessions; i-- > 0;) {
		if (history->sessions[i].side == side)
			return &history->sessions[i];
	}
	return NULL;
}

uint32_t journal_highest_generation(const struct journal_history *history)
{
	uint32_t highest = 0;

	for (unsigned i = 0; i < history->n_sessions; i++) {
		const struct journal_entry *session = &history->sessions[i];

		if (session->side == SIDE_SOURCE && session->generation > highest)
			highest = session->generation;
	}
	return highest;
}

const struct journal_entry *journal_find_doubt(const struct journal_history *history)
{
	for (unsigned i = history->n_sessions; i-- > 0;) {
		const struct journal_entry *session = &history->sessions[i];

		if (session->side == SIDE_SOURCE && session->event == JOURNAL_COMMIT)
			return session;
	}
	return NULL;
}
