/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dirty log: fetch a slot's bitmap, have KVM protect what it names, publish it; in this order,
 * for the reason that dirty_ring.c gives.
 *
 * With KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 the fetch protects nothing and KVM_CLEAR_DIRTY_LOG does it
 * in chunks, so that KVM's MMU lock is held for short times. Without it the fetch itself protects.
 * KVM_DIRTY_LOG_INITIALLY_SET is left off: it begins with every page dirty, also those that the
 * guest never touched, and the engine marks the present ones itself.
 */
#include "kvm/dirty_log.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/error.h"
#include "kvm/dirty_slots.h"

#define CHUNK_WORDS 4096u /* of 64 pages: 1 GiB */

struct ramlift_dirty_log {
	struct dirty_slots slots;
	bool manual_protect;
	struct ramlift_dirty_sink *sink;
	uint64_t *words; /* for the largest region */
};

static int fetch(struct ramlift_dirty_log *log, unsigned region)
{
	struct kvm_dirty_log get = {
		.slot = log->slots.slots[region],
		.dirty_bitmap = log->words,
	};

	return ioctl(log->slots.vm_fd, KVM_GET_DIRTY_LOG, &get) ? -errno : 0;
}

static int protect(struct ramlift_dirty_log *log, unsigned region, uint64_t first_word,
		   uint64_t n_words)
{
	uint64_t pages = dirty_slots_pages(&log->slots, region), first_page = first_word * 64;
	struct kvm_clear_dirty_log clear = {
		.slot = log->slots.slots[region],
		.first_page = first_page,
		.dirty_bitmap = log->words + first_word,
	};

	if (!log->manual_protect)
		return 0; /* the fetch has done it */
	/* A multiple of 64, but for the end of the slot. */
	clear.num_pages =
		(uint32_t)(n_words * 64 < pages - first_page ? n_words * 64 : pages - first_page);
	return ioctl(log->slots.vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) ? -errno : 0;
}

static bool any_set(const uint64_t *words, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		if (words[i])
			return true;
	}
	return false;
}

/* The order of protect and publish is rule 1. */
static int harvest_region(struct ramlift_dirty_log *log, unsigned region)
{
	uint64_t n_words = (dirty_slots_pages(&log->slots, region) + 63) / 64;
	int ret = fetch(log, region);

	for (uint64_t first = 0; !ret && first < n_words; first += CHUNK_WORDS) {
		uint64_t n = n_words - first < CHUNK_WORDS ? n_words - first : CHUNK_WORDS;

		if (!any_set(log->words + first, n))
			continue;
		ret = protect(log, region, first, n);
		if (ret)
			break;
		ramlift_dirty_mark_words(log->sink, region, first * 64, log->words + first, n);
	}
	return ret;
}

static int log_harvest(void *source, struct ramlift_error *error)
{
	struct ramlift_dirty_log *log = source;

	for (unsigned region = 0; region < log->slots.n; region++) {
		int ret = harvest_region(log, region);

		if (ret)
			return error_set(error, ret,
					 "cannot fetch KVM's dirty log of region %u: %s", region,
					 strerror(-ret));
	}
	return 0;
}

static int log_start(void *source, struct ramlift_dirty_sink *sink, struct ramlift_error *error)
{
	struct ramlift_dirty_log *log = source;

	log->sink = sink;
	return dirty_slots_track(&log->slots, error);
}

static void log_stop(void *source)
{
	struct ramlift_dirty_log *log = source;

	dirty_slots_untrack(&log->slots);
	log->sink = NULL;
}

const struct ramlift_dirty_source_ops *ramlift_dirty_log_ops(void)
{
	static const struct ramlift_dirty_source_ops ops = {
		.start = log_start,
		.harvest = log_harvest,
		.stop = log_stop,
	};

	return &ops;
}

int ramlift_dirty_log_new(const struct ramlift_dirty_log_config *config,
			  struct ramlift_dirty_log **log_out, struct ramlift_error *error)
{
	struct kvm_enable_cap manual = {
		.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		.args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE },
	};
	struct ramlift_dirty_log *log = calloc(1, sizeof(*log));
	uint64_t most_pages = 0;
	int ret;

	if (!log)
		return error_set(error, -ENOMEM, "no memory for the dirty log");
	ret = dirty_slots_init(&log->slots, config->vm_fd, config->regions, config->slots,
			       config->n_regions, error);
	if (ret)
		goto undo_log;
	for (unsigned i = 0; i < log->slots.n; i++) {
		if (dirty_slots_pages(&log->slots, i) > most_pages)
			most_pages = dirty_slots_pages(&log->slots, i);
	}
	log->words = calloc((most_pages + 63) / 64, sizeof(*log->words));
	if (!log->words) {
		ret = error_set(error, -ENOMEM, "no memory for the dirty log");
		goto undo_log;
	}
	log->manual_protect = ioctl(config->vm_fd, KVM_ENABLE_CAP, &manual) == 0;
	*log_out = log;
	return 0;

undo_log:
	free(log);
	return ret;
}

void ramlift_dirty_log_free(struct ramlift_dirty_log *log)
{
	if (!log)
		return;
	free(log->words);
	free(log);
}
