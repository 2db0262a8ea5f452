/* SPDX-License-Identifier: Apache-2.0 */
/* A pair for the hand-over; see the header. */
#include "handover_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "tests/support/cmocka_all.h"

struct rig *rig;

static int save(void *guest, void **state, size_t *state_bytes, struct ramlift_error *error)
{
	if (rig->on_save)
		rig->on_save(rig);
	return fake_guest_ops.save_state(guest, state, state_bytes, error);
}

static int load(void *guest, const void *state, size_t state_bytes, struct ramlift_error *error)
{
	if (rig->on_load)
		rig->on_load(rig);
	return fake_guest_ops.load_state(guest, state, state_bytes, error);
}

static int resume_there(void *guest, struct ramlift_error *error)
{
	int ret = rig->on_resume ? rig->on_resume(rig) : 0;

	return ret ? error_set(error, ret, "no vCPU wants to run")
		   : fake_guest_ops.resume(guest, error);
}

static void check_passed(char *checks, const char *check, const struct ramlift_error *failed)
{
	strcat(checks, check);
	strcat(checks, failed ? "! " : " ");
}

static void source_checked(void *context, const char *check, const struct ramlift_error *failed)
{
	check_passed(((struct rig *)context)->checks[SIDE_SOURCE], check, failed);
}

static void destination_checked(void *context, const char *check,
				const struct ramlift_error *failed)
{
	check_passed(((struct rig *)context)->checks[SIDE_DESTINATION], check, failed);
}

int set_up(void **state)
{
	(void)state;
	rig = calloc(1, sizeof(*rig));
	if (!rig)
		return -1;
	pair_init(&rig->pair, memory_transport());
	strcpy(rig->there, "/tmp/ramlift-test-XXXXXX");
	if (!mkdtemp(rig->there))
		return -1;
	rig->source_ops = fake_guest_ops;
	rig->source_ops.save_state = save;
	rig->destination_ops = fake_guest_ops;
	rig->destination_ops.load_state = load;
	rig->destination_ops.resume = resume_there;
	rig->pair.source_config.guest_ops = &rig->source_ops;
	rig->pair.source_config.checked = source_checked;
	rig->pair.source_config.progress_context = rig;
	rig->pair.destination_config.guest_ops = &rig->destination_ops;
	rig->pair.destination_config.state_dir = rig->there;
	rig->pair.destination_config.checked = destination_checked;
	rig->pair.destination_config.progress_context = rig;
	fake_guest_start_writer(&rig->pair.source_guest, 50, 100);
	return 0;
}

int tear_down(void **state)
{
	char command[80];

	(void)state;
	pair_fini(&rig->pair);
	snprintf(command, sizeof(command), "rm -r %s", rig->there);
	if (system(command))
		return -1;
	free(rig);
	return 0;
}

static enum journal_event last_word(const char *state_dir, enum side side)
{
	const struct journal_entry *newest;
	struct journal_history history;
	enum journal_event event;

	assert_int_equal(journal_read(state_dir, "fake", &history, NULL), 0);
	newest = journal_newest(&history, side);
	event = newest ? newest->event : JOURNAL_EVENT_COUNT;
	journal_history_fini(&history);
	return event;
}

enum journal_event word_here(void)
{
	return last_word(rig->pair.state_dir, SIDE_SOURCE);
}

enum journal_event word_there(void)
{
	return last_word(rig->there, SIDE_DESTINATION);
}

bool is_locked_there(void)
{
	int lock_fd, ret;

	ret = journal_lock(rig->there, "fake", SIDE_DESTINATION, &lock_fd, NULL);
	if (!ret)
		close(lock_fd);
	return ret == -EBUSY;
}

void assert_stayed_running(void)
{
	pair_assert_stayed(&rig->pair);
	assert_true(atomic_load(&rig->pair.source_guest.run));
	assert_int_equal(rig->pair.destination_guest.resumes, 0);
}

/* Once more, with nothing in the way; the destination is the same. */
void assert_moves_now(void)
{
	struct pair *pair = &rig->pair;
	int ret;

	ramlift_source_free(pair->source);
	pair->source_guest.resumes = 0;
	pair->source_guest.starts = 0;
	pair->source_guest.stops = 0;
	rig->on_save = NULL;
	rig->on_load = NULL;
	rig->on_resume = NULL;
	assert_int_equal(ramlift_source_new(&pair->source_config, &pair->source, NULL), 0);
	pair_start_destination(pair);
	ret = ramlift_source_run(pair->source, &pair->source_error);
	pair_join(pair);
	pair_assert_moved(pair, ret);
	assert_int_equal(word_here(), JOURNAL_STARTED);
	assert_int_equal(word_there(), JOURNAL_STARTED);
	assert_false(is_locked_there());
}
