/* SPDX-License-Identifier: Apache-2.0 */
/* What the source promises: its lines in the guest's journal, and what they keep it from. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/source.h"

static struct journal_entry line(const struct ramlift_source *source, enum journal_event event)
{
	struct journal_entry entry = {
		.event = event,
		.side = SIDE_SOURCE,
		.generation = source->session.generation,
	};

	memcpy(entry.session_id, source->session.id, SESSION_ID_BYTES);
	snprintf(entry.peer, sizeof(entry.peer), "%s", source->config.to);
	return entry;
}

int source_note(struct ramlift_source *source, enum journal_event event,
		struct ramlift_error *error)
{
	struct journal_entry entry = line(source, event);

	return journal_append(source->config.state_dir, source->config.guest_name, &entry, error);
}

int source_note_owner(struct ramlift_source *source, enum ramlift_owner owner,
		      struct ramlift_error *error)
{
	struct journal_entry entry = line(source, JOURNAL_RESOLVED);

	entry.owner = owner;
	return journal_append(source->config.state_dir, source->config.guest_name, &entry, error);
}

/* A guest that may run elsewhere must not move once more. */
static int check_history(struct ramlift_source *source, const struct journal_history *history,
			 struct ramlift_error *error)
{
	const struct journal_entry *doubt = journal_find_doubt(history);
	const char *guest = source->config.guest_name;
	uint32_t generation = journal_highest_generation(history);

	if (doubt)
		return error_set(
			error, -EBUSY,
			"IN DOUBT: %s was handed to %s before, and nobody has said whether "
			"it runs there; 'ramlift resolve %s' asks, or is told",
			guest, doubt->peer, guest);
	if (generation == UINT32_MAX)
		return error_set(error, -EOVERFLOW, "the journal of %s counts no further", guest);
	source->session.generation = generation + 1;
	return 0;
}

/* A journal that cannot be written is found out now, not with the guest paused; and what a line
 * costs is part of the downtime that is to be predicted. */
static int write_begin(struct ramlift_source *source, struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	struct journal_entry entry = line(source, JOURNAL_BEGIN);

	return journal_append_timed(config->state_dir, config->guest_name, &entry,
				    config->max_downtime_ns / 4, &source->rates.journal_ns, error);
}

int source_begin(struct ramlift_source *source, struct ramlift_error *error)
{
	const struct ramlift_source_config *config = &source->config;
	struct journal_history history;
	int ret;

	ret = journal_lock(config->state_dir, config->guest_name, SIDE_SOURCE, &source->lock_fd,
			   error);
	if (!ret)
		ret = journal_read(config->state_dir, config->guest_name, &history, error);
	if (!ret) {
		ret = check_history(source, &history, error);
		journal_history_fini(&history);
	}
	if (!ret)
		ret = write_begin(source, error);
	session_introduce(&source->session, config->guest_name);
	return session_checked(&source->session, "journal", ret, error);
}

void source_let_go(struct ramlift_source *source)
{
	if (source->lock_fd >= 0)
		close(source->lock_fd);
	source->lock_fd = -1;
}
