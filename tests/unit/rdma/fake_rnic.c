/* SPDX-License-Identifier: Apache-2.0 */
/* The devices themselves: what they say of themselves, their ports and events. See fake.h. */
#include <assert.h>
#include <errno.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fake_device.h"

#define MAX_EVENTS 16

struct fake_rnic {
	struct ibv_device device;
	struct verbs_context verbs;
	struct ibv_async_event events[MAX_EVENTS];
	unsigned n_events;
	bool port_down, pages_on_demand;
	int queue_node;
};

static struct fake_rnic rnics[FAKE_MAX_DEVICES];
static unsigned n_rnics;
static int max_qp_wr;
static const char *sysfs = "/nonexistent";

static struct fake_rnic *rnic_of(struct ibv_context *context)
{
	return CONTAINER(struct fake_rnic, verbs.context, context);
}

struct ibv_context *fake_context(unsigned device)
{
	return device < n_rnics ? &rnics[device].verbs.context : NULL;
}

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr,
		      size_t size)
{
	assert(port == 1 && size >= sizeof(*attr));
	if (fake_fails(EIO))
		return EIO;
	memset(attr, 0, sizeof(*attr));
	attr->state = rnic_of(context)->port_down ? IBV_PORT_DOWN : IBV_PORT_ACTIVE;
	return 0;
}

static int query_device_ex(struct ibv_context *context,
			   const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	assert(!input && size >= sizeof(*attr));
	if (fake_fails(EIO))
		return EIO;
	memset(attr, 0, sizeof(*attr));
	attr->odp_caps.general_caps = IBV_ODP_SUPPORT;
	attr->odp_caps.per_transport_caps.rc_odp_caps =
		rnic_of(context)->pages_on_demand ? IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_WRITE
						  : IBV_ODP_SUPPORT_SEND;
	return 0;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	(void)context;
	if (fake_fails(EIO))
		return EIO;
	memset(attr, 0, sizeof(*attr));
	attr->max_qp_wr = max_qp_wr;
	attr->max_cqe = MAX_ENTRIES;
	return 0;
}

struct ibv_device **ibv_get_device_list(int *n)
{
	struct ibv_device **list;

	if (fake_fails(ENOMEM))
		return NULL;
	list = malloc((n_rnics + 1) * sizeof(*list));
	for (unsigned i = 0; i < n_rnics; i++)
		list[i] = &rnics[i].device;
	list[n_rnics] = NULL;
	*n = (int)n_rnics;
	fake_count(1);
	return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
	fake_count(-1);
}

struct ibv_context **rdma_get_devices(int *n)
{
	struct ibv_context **list = malloc((n_rnics + 1) * sizeof(struct ibv_context *));

	for (unsigned i = 0; i <= n_rnics; i++)
		list[i] = fake_context(i);
	*n = (int)n_rnics;
	return list;
}

void rdma_free_devices(struct ibv_context **list)
{
	free(list);
}

void fake_plug(unsigned n)
{
	assert(!fake_live() && n <= FAKE_MAX_DEVICES);
	n_rnics = n;
	for (unsigned i = 0; i < n; i++) {
		struct fake_rnic *rnic = &rnics[i];
		struct ibv_context *context = &rnic->verbs.context;
		int fd = context->device ? context->async_fd
					 : eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);

		memset(rnic, 0, sizeof(*rnic));
		snprintf(rnic->device.name, sizeof(rnic->device.name), "fake%u", i);
		snprintf(rnic->device.ibdev_path, sizeof(rnic->device.ibdev_path), "%s/fake%u",
			 sysfs, i);
		rnic->verbs.sz = sizeof(rnic->verbs);
		rnic->verbs.query_port = query_port;
		rnic->verbs.query_device_ex = query_device_ex;
		context->device = &rnic->device;
		context->abi_compat = __VERBS_ABI_IS_EXTENDED;
		context->async_fd = fd;
		context->num_comp_vectors = 1;
		fake_verbs_ops(&context->ops);
		rnic->queue_node = -1;
	}
}

void fake_limit_queues(int limit)
{
	max_qp_wr = limit;
}

void fake_sysfs(const char *path)
{
	sysfs = path;
}

void fake_port_down(unsigned device)
{
	rnics[device].port_down = true;
}

void fake_page_on_demand(unsigned device)
{
	rnics[device].pages_on_demand = true;
}

/* The first node that this thread prefers. */
void fake_note_queue(struct ibv_context *context)
{
	unsigned long nodes[16] = { 0 };
	int mode = 0;

	rnic_of(context)->queue_node = -1;
	if (!get_mempolicy(&mode, nodes, sizeof(nodes) * 8, NULL, 0) && mode == MPOL_PREFERRED)
		rnic_of(context)->queue_node = __builtin_ctzl(nodes[0]);
}

int fake_queue_node(unsigned device)
{
	return rnics[device].queue_node;
}

static void report(struct fake_rnic *rnic, struct ibv_async_event event)
{
	pthread_mutex_lock(&fake_lock);
	assert(rnic->n_events < MAX_EVENTS);
	rnic->events[rnic->n_events++] = event;
	pthread_mutex_unlock(&fake_lock);
	eventfd_write(rnic->verbs.context.async_fd, 1);
}

void fake_async_event(unsigned device, enum ibv_event_type type, unsigned port)
{
	report(&rnics[device],
	       (struct ibv_async_event){ .element.port_num = (int)port, .event_type = type });
}

void fake_queue_event(unsigned device, enum ibv_event_type type, struct ibv_qp *qp)
{
	fake_qp_error(qp);
	report(&rnics[device], (struct ibv_async_event){ .element.qp = qp, .event_type = type });
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	struct fake_rnic *rnic = rnic_of(context);
	eventfd_t value;

	if (eventfd_read(context->async_fd, &value))
		return -1;
	pthread_mutex_lock(&fake_lock);
	*event = rnic->events[0];
	memmove(rnic->events, rnic->events + 1, --rnic->n_events * sizeof(*event));
	pthread_mutex_unlock(&fake_lock);
	fake_count(1);
	return 0;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
	(void)event;
	fake_count(-1);
}
