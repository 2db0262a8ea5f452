/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/proxy_source.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/address.h"
#include "core/carried.h"
#include "core/clock.h"
#include "core/error.h"
#include "kvm/qemu/block_match.h"
#include "kvm/qemu/guest_ram.h"
#include "kvm/qemu/inlet.h"
#include "kvm/qemu/no_state.h"
#include "kvm/qemu/proxy_description.h"

#define TICK_NS	       (10 * NS_PER_MS)
#define WINDOW_DIVISOR 64 /* how far the inlet may run ahead of the lanes: 1/64 s */

struct proxy_source {
	struct ramlift_source_config config;
	uint16_t port;
	int cancel_fd;
	struct inlet *inlet;

	/* Of one migration. */
	char name[RAMLIFT_MAX_NAME];
	pid_t pid;
	struct stream_block blocks[STREAM_MAX_BLOCKS];
	int regions[STREAM_MAX_BLOCKS]; /* of each block; -1: it passes through */
	unsigned n_blocks;
	struct guest_ram ram;
	_Atomic(struct ramlift_source *) session;
	struct ramlift_stats stats;
	struct ramlift_session_info info;
};

static int region_of(void *context, const struct stream_block *block)
{
	const struct proxy_source *proxy = context;

	for (unsigned i = 0; i < proxy->n_blocks; i++) {
		if (!strcmp(proxy->blocks[i].name, block->name) &&
		    proxy->blocks[i].size_bytes == block->size_bytes)
			return proxy->regions[i];
	}
	return -1;
}

/* QEMU is waiting already: take what it sends. */
static int start(void *context, struct ramlift_dirty_sink *sink, struct ramlift_error *error)
{
	struct proxy_source *proxy = context;

	(void)sink;
	return inlet_start(proxy->inlet, proxy->pid, proxy->session, region_of, proxy, error);
}

static int nothing(void *context, struct ramlift_error *error)
{
	(void)context;
	(void)error;
	return 0;
}

/* QEMU's connections break, and with them its migration, unless that is over. */
static void stop(void *context)
{
	struct proxy_source *proxy = context;

	inlet_stop(proxy->inlet);
}

static const struct ramlift_dirty_source_ops dirty_source_ops = {
	.start = start,
	.harvest = nothing,
	.stop = stop,
};

/* Whether the guest runs is its manager's business. */
static const struct ramlift_guest_ops guest_ops = {
	.pause = nothing,
	.resume = nothing,
	.save_state = no_state_save,
};

static int receive(void *context, unsigned stream, const void *bytes, size_t n_bytes,
		   struct ramlift_error *error)
{
	struct proxy_source *proxy = context;

	return stream ? 0 : inlet_write(proxy->inlet, bytes, n_bytes, error);
}

static int tick(void *context, struct carried_tick *tick, struct ramlift_error *error)
{
	struct proxy_source *proxy = context;
	int ret = inlet_check(proxy->inlet, error);

	if (ret)
		return ret;
	inlet_set_window(proxy->inlet, tick->link_rate / WINDOW_DIVISOR);
	tick->complete = inlet_complete(proxy->inlet, &tick->stopped_ns);
	return 0;
}

static int release(void *context, struct ramlift_error *error)
{
	struct proxy_source *proxy = context;

	(void)error;
	inlet_release(proxy->inlet);
	return 0;
}

/* QEMU closes its connection once its migration has ended, one way or the other. */
static int released(void *context, struct ramlift_error *error)
{
	struct proxy_source *proxy = context;
	int ret = inlet_check(proxy->inlet, error);

	if (ret)
		return ret;
	return inlet_ended(proxy->inlet) ? 0 : -EAGAIN;
}

static const struct carried_ops carried_ops = {
	.receive = receive,
	.tick = tick,
	.release = release,
	.released = released,
};

/* Which of QEMU's blocks are shared memory; those become the regions, in the blocks' order. */
static int map_blocks(struct proxy_source *proxy, struct ramlift_error *error)
{
	struct memory_mapping *mappings;
	unsigned n_mappings;
	int ret;

	ret = memory_list(proxy->pid, &mappings, &n_mappings, error);
	if (ret)
		return ret;
	for (unsigned i = 0; !ret && i < proxy->n_blocks; i++) {
		const struct memory_mapping *mapping;

		proxy->regions[i] = -1;
		ret = block_match(proxy->blocks, proxy->n_blocks, i, mappings, n_mappings, &mapping,
				  error);
		if (ret || !mapping)
			continue;
		proxy->regions[i] = (int)proxy->ram.n_regions;
		ret = guest_ram_add(&proxy->ram, proxy->pid, mapping, error);
	}
	free(mappings);
	if (!ret && !proxy->ram.n_regions)
		ret = error_set(error, -EOPNOTSUPP,
				"process %d shares none of its guest's memory: give it a backend "
				"with share=on (in libvirt <memoryBacking><source type='memfd'/>"
				"<access mode='shared'/>)",
				(int)proxy->pid);
	return ret;
}

static int carry(struct proxy_source *proxy, struct ramlift_error *error)
{
	struct ramlift_source_config config = proxy->config;
	struct ramlift_source *session;
	char *description;
	int ret;

	description = proxy_describe(proxy->blocks, proxy->regions, proxy->n_blocks);
	if (!description)
		return error_set(error, -ENOMEM, "no memory to describe the guest");
	config.guest_name = proxy->name;
	config.guest_ops = &guest_ops;
	config.guest = proxy;
	config.dirty_source_ops = &dirty_source_ops;
	config.dirty_source = proxy;
	config.regions = proxy->ram.regions;
	config.n_regions = proxy->ram.n_regions;
	config.machine = description;
	config.machine_bytes = strlen(description);
	config.tick_ns = TICK_NS;
	ret = ramlift_source_new(&config, &session, error);
	if (ret)
		goto free_description;
	ret = source_carry(session, &carried_ops, proxy, error);
	if (ret)
		goto free_session;
	atomic_store(&proxy->session, session);
	if (!wait_for_fd(proxy->cancel_fd, POLLIN, 0, -1)) /* it came a moment before */
		ramlift_source_cancel(session);
	ret = ramlift_source_run(session, error);
	/* Its manager decides, whatever the other half answers: no doubt is left in the journal. */
	if (ret == -EINPROGRESS && !ramlift_source_resolve(session, RAMLIFT_OWNER_DESTINATION))
		ramlift_source_settle(session, NULL);
	atomic_store(&proxy->session, NULL);
	ramlift_source_stats(session, &proxy->stats);
	ramlift_source_info(session, &proxy->info);

free_session:
	ramlift_source_free(session);

free_description:
	free(description);
	return ret;
}

int proxy_source_run(struct proxy_source *proxy, struct ramlift_error *error)
{
	int ret;

	proxy->info = (struct ramlift_session_info){ .generation = 0 };
	ret = inlet_peek(proxy->inlet, proxy->cancel_fd, &proxy->pid, proxy->blocks,
			 &proxy->n_blocks, error);
	if (!ret)
		ret = map_blocks(proxy, error);
	snprintf(proxy->name, sizeof(proxy->name), "qemu-%d", (int)proxy->pid);
	if (!ret)
		ret = carry(proxy, error);
	guest_ram_fini(&proxy->ram);
	/* The next migration finds nothing of this one. */
	inlet_close(proxy->inlet);
	proxy->inlet = NULL;
	return inlet_open(proxy->port, &proxy->inlet, ret ? NULL : error) ? -EADDRINUSE : ret;
}

int proxy_source_new(uint16_t port, const struct ramlift_source_config *session,
		     struct proxy_source **result, struct ramlift_error *error)
{
	struct proxy_source *proxy = calloc(1, sizeof(*proxy));
	int ret;

	if (!proxy)
		return error_set(error, -ENOMEM, "no memory for a proxy");
	proxy->config = *session;
	proxy->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (proxy->cancel_fd < 0) {
		ret = error_set(error, -errno, "cannot make a proxy: %s", strerror(errno));
		goto free_proxy;
	}
	ret = inlet_open(port, &proxy->inlet, error);
	if (ret)
		goto close_cancel;
	proxy->port = inlet_port(proxy->inlet);
	*result = proxy;
	return 0;

close_cancel:
	close(proxy->cancel_fd);
free_proxy:
	free(proxy);
	return ret;
}

uint16_t proxy_source_port(const struct proxy_source *proxy)
{
	return proxy->port;
}

pid_t proxy_source_pid(const struct proxy_source *proxy)
{
	return proxy->pid;
}

void proxy_source_stats(struct proxy_source *proxy, struct ramlift_stats *stats)
{
	*stats = proxy->stats;
}

void proxy_source_info(const struct proxy_source *proxy, struct ramlift_session_info *info)
{
	*info = proxy->info;
}

void proxy_source_cancel(struct proxy_source *proxy)
{
	struct ramlift_source *session = atomic_load(&proxy->session);
	uint64_t one = 1;
	ssize_t n = write(proxy->cancel_fd, &one, sizeof(one));

	(void)n; /* fails only when it is readable anyway */
	if (session)
		ramlift_source_cancel(session);
}

void proxy_source_free(struct proxy_source *proxy)
{
	if (!proxy)
		return;
	inlet_close(proxy->inlet);
	close(proxy->cancel_fd);
	free(proxy);
}
