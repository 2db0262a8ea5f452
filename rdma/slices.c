/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registration of guest memory: pinning it and giving the adapters keys to it. Knows nothing of
 * lanes. Each slice has its own entries, so threads may register different slices at once.
 */
#include <assert.h>
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "rdma/endpoint.h"
#include "rdma/verbs_error.h"

/*
 * The adapter only reads at the source, so it may do so in any order. At the destination it must
 * not: with relaxed ordering two writes to one page may land in either order (ibv_reg_mr(3)), and a
 * lane sends the newer copy of a page without waiting for the older one's completion.
 */
#define SOURCE_ACCESS	   IBV_ACCESS_RELAXED_ORDERING
#define DESTINATION_ACCESS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

static bool may_lock_anything(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capget, &header, data))
		return false;
	return data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

/* The kernel counts pages once for each registration (mm->pinned_vm in ib_umem_get()). */
static int limit_error(struct ramlift_error *error, int code, uint64_t bytes, uint64_t limit,
		       unsigned n_rails)
{
	char size_text[SIZE_TEXT_BYTES], limit_text[SIZE_TEXT_BYTES];

	verbs_size_text(bytes, size_text);
	verbs_size_text(limit, limit_text);
	return error_set(error, code,
			 "cannot register %s of guest memory: locked-memory limit is %s (ulimit "
			 "-l)%s",
			 size_text, limit_text,
			 n_rails > 1 ? ", and memory counts once for each of its rails" : "");
}

/* Every page of the guest may come to be registered, so the limit must hold them all, or the budget
 * that they are kept to. Memory that is paged on demand is not pinned. */
int slices_check_limit(const struct transport_params *params, struct ramlift_error *error)
{
	struct rlimit limit;
	uint64_t total = 0;

	if (params->on_demand_paging || getrlimit(RLIMIT_MEMLOCK, &limit) ||
	    limit.rlim_cur == RLIM_INFINITY || may_lock_anything())
		return 0;
	for (unsigned i = 0; i < params->n_slices; i++)
		total += params->slices[i].size_bytes;
	if (params->pin_budget_bytes && params->pin_budget_bytes < total)
		total = params->pin_budget_bytes;
	if (total <= limit.rlim_cur)
		return 0;
	return limit_error(error, -ENOMEM, total, limit.rlim_cur, 1);
}

static int register_error(const struct rail *rail, struct ramlift_error *error, int code,
			  uint64_t bytes)
{
	char size_text[SIZE_TEXT_BYTES];
	struct rlimit limit;

	/* A container's root has the capability in its own namespace only: the kernel decides. */
	if ((code == -ENOMEM || code == -EPERM || code == -EAGAIN) &&
	    !getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur != RLIM_INFINITY)
		return limit_error(error, code, bytes, limit.rlim_cur,
				   rail->endpoint->params.n_rails);
	verbs_size_text(bytes, size_text);
	return error_set(error, code, "cannot register %s of guest memory with RDMA device %s: %s",
			 size_text, ibv_get_device_name(rail->device->device), strerror(-code));
}

int slices_register(struct endpoint *endpoint, unsigned slice, unsigned rails,
		    struct slice_key *key, struct ramlift_error *error)
{
	const struct transport_params *params = &endpoint->params;
	unsigned access = endpoint->tokens ? DESTINATION_ACCESS : SOURCE_ACCESS;
	struct slice_key made = { .address = 0 };
	const struct slice *memory;

	assert(slice < params->n_slices && rails && !(rails >> params->n_rails));
	memory = &params->slices[slice];
	made.address = (uintptr_t)memory->hva;
	if (params->on_demand_paging)
		access |= IBV_ACCESS_ON_DEMAND;
	for (unsigned i = 0; i < params->n_rails; i++) {
		struct rail *rail = &endpoint->rails[i];
		struct ibv_mr *mr;

		assert(rail->pd && !rail->mrs[slice]);
		if (!(rails >> i & 1))
			continue;
		mr = ibv_reg_mr(rail->pd, memory->hva, memory->size_bytes, access);
		if (!mr) {
			int ret = register_error(rail, error, errno ? -errno : -EIO,
						 memory->size_bytes);

			slices_deregister(endpoint, slice);
			return ret;
		}
		rail->mrs[slice] = mr;
		made.rkeys[i] = mr->rkey;
	}
	if (key)
		*key = made;
	return 0;
}

void slices_deregister(struct endpoint *endpoint, unsigned slice)
{
	assert(slice < endpoint->params.n_slices);
	for (unsigned i = 0; i < endpoint->params.n_rails; i++) {
		struct rail *rail = &endpoint->rails[i];

		if (!rail->mrs || !rail->mrs[slice])
			continue;
		ibv_dereg_mr(rail->mrs[slice]);
		rail->mrs[slice] = NULL;
	}
}
