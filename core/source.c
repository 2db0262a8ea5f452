/* SPDX-License-Identifier: Apache-2.0 */
#include "core/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/journal.h"

#define LEAST_BUDGET_BYTES (16ull << 20)
#define BUDGET_SLICES	   16u

void ramlift_source_config_init(struct ramlift_source_config *config)
{
	memset(config, 0, sizeof(*config));
	config->lanes_per_rail = 4;
	config->max_downtime_ns = 300 * NS_PER_MS;
	config->on_divergence = RAMLIFT_DIVERGENCE_THROTTLE;
	config->register_threads = 2;
	config->pin = RAMLIFT_PIN_DEMAND;
	config->tick_ns = 20 * NS_PER_MS;
	config->timeouts = (struct ramlift_timeouts){
		.connect_ns = 10 * NS_PER_S,
		.authenticate_ns = 5 * NS_PER_S,
		.io_ns = 5 * NS_PER_S,
		.heartbeat_ns = 4 * NS_PER_S,
		.prepare_ns = 60 * NS_PER_S,
		.hand_over_ns = 60 * NS_PER_S,
	};
}

static uint64_t ram_bytes(const struct ramlift_source_config *config)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < config->n_regions && i < RAMLIFT_MAX_REGIONS; i++)
		bytes += config->regions[i].size_bytes;
	return bytes;
}

/* A budget is worth several slices, so that lanes find room while others still hold theirs. */
static uint64_t slice_bytes_for(const struct ramlift_source_config *config)
{
	uint64_t slice_bytes = config->slice_bytes;

	if (!slice_bytes && config->n_regions <= RAMLIFT_MAX_REGIONS)
		slice_bytes = ram_default_slice_bytes(config->regions, config->n_regions);
	while (config->pin == RAMLIFT_PIN_BUDGET && slice_bytes > STRIPE_BYTES &&
	       slice_bytes > config->pin_budget_bytes / BUDGET_SLICES &&
	       ram_bytes(config) / slice_bytes < RAM_MAX_SLICES / 2 - RAMLIFT_MAX_REGIONS)
		slice_bytes = slice_bytes / 2 / STRIPE_BYTES * STRIPE_BYTES;
	return slice_bytes;
}

static bool timeouts_make_sense(const struct ramlift_timeouts *timeouts)
{
	return timeouts->connect_ns && timeouts->authenticate_ns && timeouts->io_ns &&
	       timeouts->heartbeat_ns && timeouts->prepare_ns && timeouts->hand_over_ns;
}

static int check_config(const struct ramlift_source_config *config, struct ramlift_error *error)
{
	if (!config->guest_name || !journal_name_fits(config->guest_name))
		return error_set(error, -EINVAL,
				 "the guest needs a name of 1 to %u characters, "
				 "without a slash, and no dot at the start",
				 RAMLIFT_MAX_NAME - 1);
	if (!config->guest_ops || !config->guest_ops->pause || !config->guest_ops->resume ||
	    !config->guest_ops->save_state || !config->dirty_source_ops ||
	    !config->dirty_source_ops->start || !config->dirty_source_ops->harvest ||
	    !config->dirty_source_ops->stop)
		return error_set(error, -EINVAL,
				 "a call of the guest or its dirty source is missing");
	if (config->n_rails > RAMLIFT_MAX_RAILS)
		return error_set(error, -EINVAL, "%u rails: name at most %u", config->n_rails,
				 RAMLIFT_MAX_RAILS);
	if (!config->lanes_per_rail || config->lanes_per_rail > RAMLIFT_MAX_LANES ||
	    source_n_lanes(config) > RAMLIFT_MAX_LANES)
		return error_set(error, -EINVAL, "%u lanes on each of %u rails: use 1 to %u in all",
				 config->lanes_per_rail, source_n_rails(config), RAMLIFT_MAX_LANES);
	if (!config->n_transports || config->n_transports > WIRE_MAX_TRANSPORTS)
		return error_set(error, -EINVAL, "name 1 to %u transports", WIRE_MAX_TRANSPORTS);
	if (config->machine_bytes > WIRE_MAX_MACHINE_BYTES)
		return error_set(error, -EINVAL, "the machine's description is over 64 KiB");
	if (!config->tick_ns || !config->register_threads ||
	    !timeouts_make_sense(&config->timeouts))
		return error_set(error, -EINVAL, "a tick, a timeout or the number of threads is 0");
	if (!config->state_dir || !config->to)
		return error_set(error, -EINVAL,
				 "the destination or the state directory is missing");
	if (strlen(config->to) >= JOURNAL_MAX_PEER)
		return error_set(error, -EINVAL, "the destination's name is too long");
	for (unsigned i = 0; i < config->n_regions && i < RAMLIFT_MAX_REGIONS; i++) {
		if (!config->regions[i].hva ||
		    (uintptr_t)config->regions[i].hva % RAMLIFT_PAGE_BYTES)
			return error_set(error, -EINVAL, "region %u is not mapped page aligned", i);
		if (config->regions[i].numa_node < -1 ||
		    config->regions[i].numa_node >= WIRE_MAX_NUMA_NODES)
			return error_set(error, -EINVAL,
					 "region %u is on NUMA node %d, which is none", i,
					 config->regions[i].numa_node);
	}
	if ((unsigned)config->pin > RAMLIFT_PIN_BUDGET ||
	    (config->pin == RAMLIFT_PIN_BUDGET && config->pin_budget_bytes < LEAST_BUDGET_BYTES))
		return error_set(error, -EINVAL, "a budget for pinned memory is at least %llu MiB",
				 LEAST_BUDGET_BYTES >> 20);
	if (config->pin == RAMLIFT_PIN_BUDGET && slice_bytes_for(config) > config->pin_budget_bytes)
		return error_set(error, -EINVAL,
				 "a budget of %" PRIu64 " MiB for pinned memory is too small for "
				 "this guest: allow at least %" PRIu64 " MiB",
				 config->pin_budget_bytes >> 20, slice_bytes_for(config) >> 20);
	return ram_check(config->regions, config->n_regions, slice_bytes_for(config), error);
}

int ramlift_source_new(const struct ramlift_source_config *config, struct ramlift_source **result,
		       struct ramlift_error *error)
{
	struct ramlift_source *source;
	int ret;

	ret = check_config(config, error);
	if (ret)
		return ret;
	source = calloc(1, sizeof(*source));
	if (!source)
		return error_set(error, -ENOMEM, "no memory for a session");
	source->config = *config;
	source->config.slice_bytes = slice_bytes_for(config);
	ret = security_new(&config->security, &source->security, error);
	if (ret)
		goto free_source;
	ret = address_parse(config->to, 0, &source->peer, error);
	if (ret)
		goto free_security;
	address_host(config->to, source->host, sizeof(source->host));
	ret = session_init(&source->session, SIDE_SOURCE);
	if (ret) {
		error_set(error, ret, "cannot make a session: %s", strerror(-ret));
		goto free_security;
	}
	source->session.progress = config->progress;
	source->session.checked = config->checked;
	source->session.progress_context = config->progress_context;
	source->lock_fd = -1;
	source->settle_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (source->settle_fd < 0) {
		ret = error_set(error, -errno, "cannot make a session: %s", strerror(errno));
		goto fini_session;
	}
	if (getrandom(source->session.id, SESSION_ID_BYTES, 0) != SESSION_ID_BYTES) {
		ret = error_set(error, -EIO, "the kernel gives no random numbers");
		goto close_settle_fd;
	}
	ret = ram_init(&source->ram, config->regions, config->n_regions,
		       source->config.slice_bytes);
	if (ret) {
		error_set(error, ret, "no memory for the table of slices");
		goto close_settle_fd;
	}
	ret = dirty_set_init(&source->set, &source->ram);
	if (ret) {
		error_set(error, ret, "no memory for the dirty bitmaps");
		goto fini_ram;
	}
	source->session.stats.ram_bytes = source->ram.bytes;
	*result = source;
	return 0;

fini_ram:
	ram_fini(&source->ram);
close_settle_fd:
	close(source->settle_fd);
fini_session:
	session_fini(&source->session);
free_security:
	security_free(source->security);
free_source:
	free(source);
	return ret;
}

void ramlift_source_free(struct ramlift_source *source)
{
	if (!source)
		return;
	dirty_bitmap_fini(&source->named);
	dirty_set_fini(&source->set);
	ram_fini(&source->ram);
	source_let_go(source);
	close(source->settle_fd);
	session_fini(&source->session);
	security_free(source->security);
	free(source);
}

int ramlift_source_cancel(struct ramlift_source *source)
{
	return session_cancel(&source->session);
}

void ramlift_source_stats(struct ramlift_source *source, struct ramlift_stats *stats)
{
	session_copy_stats(&source->session, stats);
}

void ramlift_source_info(struct ramlift_source *source, struct ramlift_session_info *info)
{
	session_copy_info(&source->session, info);
}

int ramlift_source_mark_dirty(struct ramlift_source *source, uint64_t gpa, uint64_t length_bytes)
{
	for (unsigned i = 0; i < source->ram.n_regions; i++) {
		const struct ramlift_region *region = &source->ram.regions[i];
		uint64_t offset = gpa - region->gpa;
		uint64_t first;

		if (gpa < region->gpa || offset >= region->size_bytes ||
		    length_bytes > region->size_bytes - offset)
			continue;
		first = offset / RAMLIFT_PAGE_BYTES;
		if (length_bytes)
			ramlift_dirty_mark(&source->set, i, first,
					   (offset + length_bytes - 1) / RAMLIFT_PAGE_BYTES -
						   first + 1);
		return 0;
	}
	return -ERANGE;
}
