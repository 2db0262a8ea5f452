/* SPDX-License-Identifier: Apache-2.0 */
#include "carried_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/zero.h"
#include "tests/support/cmocka_all.h"

/* The transport's table of functions has no context: one session at a time. */
static struct carrying *current;

static int fence(struct endpoint *endpoint, struct ramlift_error *error)
{
	int ret = memory_transport()->fence(endpoint, error);

	if (current->corrupt)
		*(char *)carrying_page(&current->destination_guest, 1, 7) ^= 1;
	atomic_store(&current->fenced, true);
	return ret;
}

static void put(struct carrying *carrying, struct inbox *inbox, const void *bytes, size_t n)
{
	pthread_mutex_lock(&carrying->lock);
	if (n) {
		inbox->bytes = realloc(inbox->bytes, inbox->n_bytes + n + 1);
		if (!inbox->bytes)
			abort();
		memcpy(inbox->bytes + inbox->n_bytes, bytes, n);
		inbox->n_bytes += n;
		inbox->bytes[inbox->n_bytes] = '\0';
	}
	inbox->n_ends += !n;
	pthread_mutex_unlock(&carrying->lock);
}

static int source_receives(void *context, unsigned stream, const void *bytes, size_t n,
			   struct ramlift_error *error)
{
	struct carrying *carrying = context;

	if (stream >= CARRYING_STREAMS)
		return error_set(error, -EPROTO, "a stream that there is not");
	put(carrying, &carrying->at_source[stream], bytes, n);
	return atomic_load(&carrying->source_receive_fails);
}

static int destination_receives(void *context, unsigned stream, const void *bytes, size_t n,
				struct ramlift_error *error)
{
	struct carrying *carrying = context;

	if (stream >= CARRYING_STREAMS)
		return error_set(error, -EPROTO, "a stream that there is not");
	put(carrying, &carrying->at_destination[stream], bytes, n);
	if (carrying->on_piece)
		return carrying->on_piece(carrying, stream, bytes, n, error);
	return destination_send_piece(carrying->destination, stream, bytes, n, error);
}

static int tick(void *context, struct carried_tick *tick, struct ramlift_error *error)
{
	struct carrying *carrying = context;

	atomic_fetch_add(&carrying->n_ticks, 1);
	tick->complete = atomic_load(&carrying->complete);
	if (tick->complete)
		tick->stopped_ns = clock_now_ns();
	return carrying->fail_tick ? error_set(error, carrying->fail_tick, "no tick") : 0;
}

static int release(void *context, struct ramlift_error *error)
{
	struct carrying *carrying = context;

	carrying->fenced_at_release = atomic_load(&carrying->fenced);
	carrying->same_ram_at_release =
		fake_guest_same_ram(&carrying->source_guest, &carrying->destination_guest);
	pthread_mutex_lock(&carrying->lock);
	carrying->destination_got_at_release = carrying->at_destination[0].n_bytes;
	pthread_mutex_unlock(&carrying->lock);
	atomic_fetch_add(&carrying->n_releases, 1);
	atomic_store(&carrying->released, true);
	return carrying->fail_release ? error_set(error, carrying->fail_release, "no release") : 0;
}

/* Over once the destination has echoed the last word, and after the third
 * question at the earliest. */
static int released(void *context, struct ramlift_error *error)
{
	struct carrying *carrying = context;
	unsigned n_polls = atomic_fetch_add(&carrying->n_released_polls, 1);
	bool loaded;

	if (carrying->fail_released)
		return error_set(error, carrying->fail_released, "not released");
	pthread_mutex_lock(&carrying->lock);
	loaded = carrying->at_source[0].bytes &&
		 strstr(carrying->at_source[0].bytes, "the end") != NULL;
	pthread_mutex_unlock(&carrying->lock);
	return loaded && n_polls >= 2 && !carrying->never_released ? 0 : -EAGAIN;
}

static const struct carried_ops source_ops = {
	.receive = source_receives,
	.tick = tick,
	.release = release,
	.released = released,
};

static const struct carried_ops destination_ops = { .receive = destination_receives };

/* As QEMU does: what follows its last page is ready at once, but the carrier holds it back. */
static bool has_been_released(struct carrying *carrying)
{
	return atomic_load(&carrying->released);
}

static void *program_thread(void *argument)
{
	struct carrying *carrying = argument;

	carrying->program(carrying);
	if (carrying_wait(carrying, has_been_released))
		carrying_say(carrying, 0, "devices, the end");
	return NULL;
}

static int program_start(void *context, struct ramlift_dirty_sink *sink,
			 struct ramlift_error *error)
{
	struct carrying *carrying = context;

	(void)sink;
	(void)error;
	carrying->source_guest.starts++;
	return -pthread_create(&carrying->program_thread, NULL, program_thread, carrying);
}

static int program_harvest(void *context, struct ramlift_error *error)
{
	(void)context;
	(void)error;
	return 0;
}

static void program_stop(void *context)
{
	struct carrying *carrying = context;

	carrying->source_guest.stops++;
	atomic_store(&carrying->quit, true);
	pthread_join(carrying->program_thread, NULL);
}

static const struct ramlift_dirty_source_ops program_ops = {
	.start = program_start,
	.harvest = program_harvest,
	.stop = program_stop,
};

void carrying_init(struct carrying *carrying)
{
	memset(carrying, 0, sizeof(*carrying));
	current = carrying;
	pthread_mutex_init(&carrying->lock, NULL);
	fake_guest_init(&carrying->source_guest, CARRYING_BYTES);
	fake_guest_init(&carrying->destination_guest, 0);
	carrying->transport_ops = *memory_transport();
	carrying->transport_ops.fence = fence;
	carrying->transport = &carrying->transport_ops;
	strcpy(carrying->state_dir, "/tmp/ramlift-test-XXXXXX");
	assert_non_null(mkdtemp(carrying->state_dir));

	ramlift_destination_config_init(&carrying->destination_config);
	carrying->destination_config.guest_ops = &fake_guest_ops;
	carrying->destination_config.guest = &carrying->destination_guest;
	carrying->destination_config.listen = "127.0.0.1:0";
	carrying->destination_config.transports = &carrying->transport;
	carrying->destination_config.n_transports = 1;
	carrying->destination_config.state_dir = carrying->state_dir;

	ramlift_source_config_init(&carrying->source_config);
	carrying->source_config.guest_name = "program";
	carrying->source_config.guest_ops = &fake_guest_ops;
	carrying->source_config.guest = &carrying->source_guest;
	carrying->source_config.dirty_source_ops = &program_ops;
	carrying->source_config.dirty_source = carrying;
	carrying->source_config.regions = carrying->source_guest.regions;
	carrying->source_config.n_regions = carrying->source_guest.n_regions;
	carrying->source_config.transports = &carrying->transport;
	carrying->source_config.n_transports = 1;
	carrying->source_config.to = carrying->to;
	carrying->source_config.state_dir = carrying->state_dir;
	carrying->source_config.slice_bytes = 4 << 20;
	carrying->source_config.tick_ns = 5 * NS_PER_MS;
	carrying->source_config.verify = true;
}

static void *destination_thread(void *argument)
{
	struct carrying *carrying = argument;

	carrying->destination_ret =
		ramlift_destination_run(carrying->destination, &carrying->destination_error);
	return NULL;
}

int carrying_run(struct carrying *carrying)
{
	int ret;

	assert_int_equal(ramlift_destination_new(&carrying->destination_config,
						 &carrying->destination,
						 &carrying->destination_error),
			 0);
	if (!carrying->destination_does_not_carry)
		destination_carry(carrying->destination, &destination_ops, carrying);
	snprintf(carrying->to, sizeof(carrying->to), "127.0.0.1:%u",
		 ramlift_destination_port(carrying->destination));
	assert_int_equal(ramlift_source_new(&carrying->source_config, &carrying->source,
					    &carrying->source_error),
			 0);
	if (!carrying->source_does_not_carry)
		assert_int_equal(source_carry(carrying->source, &source_ops, carrying,
					      &carrying->source_error),
				 0);
	assert_int_equal(
		pthread_create(&carrying->destination_thread, NULL, destination_thread, carrying),
		0);
	ret = ramlift_source_run(carrying->source, &carrying->source_error);
	pthread_join(carrying->destination_thread, NULL);
	ramlift_source_stats(carrying->source, &carrying->source_stats);
	ramlift_destination_stats(carrying->destination, &carrying->destination_stats);
	return ret;
}

void carrying_fini(struct carrying *carrying)
{
	char command[80];

	ramlift_source_free(carrying->source);
	ramlift_destination_free(carrying->destination);
	fake_guest_fini(&carrying->source_guest);
	fake_guest_fini(&carrying->destination_guest);
	for (unsigned i = 0; i < CARRYING_STREAMS; i++) {
		free(carrying->at_source[i].bytes);
		free(carrying->at_destination[i].bytes);
	}
	pthread_mutex_destroy(&carrying->lock);
	snprintf(command, sizeof(command), "rm -r %s", carrying->state_dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(memory_transport_open_endpoints(), 0);
	assert_int_equal(memory_transport_late_writes(), 0);
}

bool carrying_say(struct carrying *carrying, unsigned stream, const char *words)
{
	return !source_send_piece(carrying->source, stream, words, strlen(words), NULL);
}

bool carrying_wait(struct carrying *carrying, bool (*condition)(struct carrying *carrying))
{
	while (!condition(carrying)) {
		if (atomic_load(&carrying->quit))
			return false;
		usleep(200);
	}
	return true;
}

bool carrying_has_no_backlog(struct carrying *carrying)
{
	return !source_backlog_bytes(carrying->source);
}

void *carrying_page(struct fake_guest *guest, unsigned region, uint64_t page)
{
	return (char *)guest->regions[region].hva + page * RAMLIFT_PAGE_BYTES;
}

void carrying_name_present(struct carrying *carrying)
{
	for (unsigned region = 0; region < 2; region++) {
		uint64_t n_pages =
			carrying->source_guest.regions[region].size_bytes / RAMLIFT_PAGE_BYTES;
		uint64_t first = 0;

		for (uint64_t page = 0; page <= n_pages; page++) {
			if (page < n_pages &&
			    !page_is_zero(carrying_page(&carrying->source_guest, region, page)))
				continue;
			source_queue_pages(carrying->source, region, first, page - first);
			first = page + 1;
		}
	}
	source_wake_lanes(carrying->source);
}

void carrying_complete(struct carrying *carrying)
{
	atomic_store(&carrying->complete, true);
	source_hasten(carrying->source);
}

void carrying_assert_moved(struct carrying *carrying, int ret)
{
	if (ret)
		print_message("source: %s\ndestination: %s\n", carrying->source_error.text,
			      carrying->destination_error.text);
	assert_int_equal(ret, 0);
	assert_int_equal(carrying->destination_ret, 0);
	assert_int_equal(carrying->source_guest.resumes, 0);
	assert_int_equal(carrying->destination_guest.resumes, 1);
	assert_int_equal(carrying->source_guest.stops, 1);
	assert_int_equal(atomic_load(&carrying->n_releases), 1);
	assert_true(carrying->fenced_at_release);
	assert_int_equal(carrying->source_stats.phase, RAMLIFT_PHASE_DONE);
	assert_int_equal(carrying->destination_stats.phase, RAMLIFT_PHASE_DONE);
}

void carrying_assert_stayed(struct carrying *carrying)
{
	/* A program that has begun may have stopped its guest by itself. */
	bool resumes = carrying->source_guest.pauses ||
		       (!carrying->source_does_not_carry && carrying->source_guest.starts);

	assert_int_equal(carrying->source_guest.resumes, resumes ? 1 : 0);
	assert_int_equal(carrying->source_guest.stops, carrying->source_guest.starts);
	assert_int_equal(carrying->destination_guest.resumes, 0);
	assert_false(carrying->destination_guest.created);
	assert_int_equal(carrying->source_stats.phase, RAMLIFT_PHASE_FAILED);
	assert_int_not_equal(carrying->destination_ret, 0);
}
