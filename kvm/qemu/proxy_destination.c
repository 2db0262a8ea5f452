/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/proxy_destination.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/address.h"
#include "core/carried.h"
#include "core/error.h"
#include "core/wire.h"
#include "kvm/qemu/block_match.h"
#include "kvm/qemu/guest_ram.h"
#include "kvm/qemu/no_state.h"
#include "kvm/qemu/outlet.h"
#include "kvm/qemu/proxy_description.h"
#include "kvm/qemu/socket_owner.h"

struct proxy_destination {
	struct address qemu; /* where it listens */
	struct ramlift_destination *session;
	struct guest_ram ram; /* while there is a session */
	struct outlet *outlet;
};

static int map_blocks(struct proxy_destination *proxy, pid_t pid, const struct stream_block *blocks,
		      unsigned n_blocks, struct ramlift_error *error)
{
	struct memory_mapping *mappings;
	unsigned n_mappings;
	int ret;

	ret = memory_list(pid, &mappings, &n_mappings, error);
	if (ret)
		return ret;
	for (unsigned i = 0; !ret && i < n_blocks; i++) {
		const struct memory_mapping *mapping;

		ret = block_match(blocks, n_blocks, i, mappings, n_mappings, &mapping, error);
		if (!ret && !mapping)
			ret = error_set(error, -EINVAL,
					"the waiting QEMU shares no memory of %llu MiB for block "
					"%.64s: give it the same memory backends as the source",
					(unsigned long long)(blocks[i].size_bytes >> 20),
					blocks[i].name);
		if (!ret)
			ret = guest_ram_add(&proxy->ram, pid, mapping, error);
	}
	free(mappings);
	return ret;
}

static int check_regions(const struct proxy_destination *proxy,
			 const struct ramlift_guest_offer *offer, struct ramlift_error *error)
{
	bool same = proxy->ram.n_regions == offer->n_regions;

	for (unsigned i = 0; same && i < offer->n_regions; i++)
		same = proxy->ram.regions[i].size_bytes == offer->regions[i].size_bytes;
	return same ? 0 : error_set(error, -EPROTO, "the source's blocks and regions differ");
}

static int create(void *context, const struct ramlift_guest_offer *offer,
		  struct ramlift_region *regions, struct ramlift_error *error)
{
	struct stream_block blocks[RAMLIFT_MAX_REGIONS];
	struct proxy_destination *proxy = context;
	unsigned n_blocks;
	pid_t pid;
	int ret;

	ret = proxy_read_description(offer->machine, offer->machine_bytes, blocks, &n_blocks,
				     error);
	if (ret)
		return ret;
	ret = socket_owner((struct sockaddr *)&proxy->qemu.socket, NULL, &pid, error);
	if (ret == -ENOENT)
		error_set(error, ret, "no QEMU waits for a guest at %s", proxy->qemu.text);
	if (!ret)
		ret = map_blocks(proxy, pid, blocks, n_blocks, error);
	if (!ret)
		ret = check_regions(proxy, offer, error);
	if (ret) {
		guest_ram_fini(&proxy->ram);
		return ret;
	}
	guest_ram_give(&proxy->ram, regions);
	return 0;
}

static void discard(void *context)
{
	struct proxy_destination *proxy = context;

	outlet_close(proxy->outlet);
	proxy->outlet = NULL;
	guest_ram_fini(&proxy->ram);
}

/* Everything has come; QEMU's manager lets the guest run. */
static int resume(void *context, struct ramlift_error *error)
{
	struct proxy_destination *proxy = context;

	(void)error;
	outlet_close(proxy->outlet);
	proxy->outlet = NULL;
	return 0;
}

static const struct ramlift_guest_ops guest_ops = {
	.create = create,
	.discard = discard,
	.load_state = no_state_load,
	.resume = resume,
};

static int receive(void *context, unsigned stream, const void *bytes, size_t n_bytes,
		   struct ramlift_error *error)
{
	struct proxy_destination *proxy = context;
	int ret = 0;

	if (!proxy->outlet)
		ret = outlet_open((struct sockaddr *)&proxy->qemu.socket, proxy->qemu.length,
				  proxy->session, &proxy->outlet, error);
	return ret ? ret : outlet_write(proxy->outlet, stream, bytes, n_bytes, error);
}

static int clear(void *context, void *hva, uint64_t size_bytes, struct ramlift_error *error)
{
	const struct proxy_destination *proxy = context;

	return guest_ram_clear(&proxy->ram, hva, size_bytes, error);
}

static const struct carried_ops carried_ops = {
	.receive = receive,
	.clear = clear,
};

int proxy_destination_new(const char *connect, const struct ramlift_destination_config *session,
			  struct proxy_destination **result, struct ramlift_error *error)
{
	struct proxy_destination *proxy = calloc(1, sizeof(*proxy));
	struct ramlift_destination_config config = *session;
	int ret;

	if (!proxy)
		return error_set(error, -ENOMEM, "no memory for a proxy");
	config.guest_ops = &guest_ops;
	config.guest = proxy;
	ret = address_parse(connect, 0, &proxy->qemu, error);
	if (!ret)
		ret = ramlift_destination_new(&config, &proxy->session, error);
	if (ret) {
		free(proxy);
		return ret;
	}
	destination_carry(proxy->session, &carried_ops, proxy);
	*result = proxy;
	return 0;
}

uint16_t proxy_destination_port(const struct proxy_destination *proxy)
{
	return ramlift_destination_port(proxy->session);
}

int proxy_destination_run(struct proxy_destination *proxy, struct ramlift_error *error)
{
	int ret = ramlift_destination_run(proxy->session, error);

	guest_ram_fini(&proxy->ram);
	return ret;
}

void proxy_destination_stats(struct proxy_destination *proxy, struct ramlift_stats *stats)
{
	ramlift_destination_stats(proxy->session, stats);
}

void proxy_destination_info(struct proxy_destination *proxy, struct ramlift_session_info *info)
{
	ramlift_destination_info(proxy->session, info);
}

void proxy_destination_cancel(struct proxy_destination *proxy)
{
	ramlift_destination_cancel(proxy->session);
}

void proxy_destination_free(struct proxy_destination *proxy)
{
	if (!proxy)
		return;
	outlet_close(proxy->outlet);
	ramlift_destination_free(proxy->session);
	guest_ram_fini(&proxy->ram);
	free(proxy);
}
