/* SPDX-License-Identifier: Apache-2.0 */
/* A rail's life. Connections are in connect.c and accept.c, registrations in slices.c. */
#include "rdma/rail.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "rdma/device_address.h"
#include "rdma/device_node.h"
#include "rdma/endpoint.h"

int rail_init(struct rail *rail, struct endpoint *endpoint, unsigned index,
	      struct ramlift_error *error)
{
	*rail = (struct rail){ .endpoint = endpoint, .index = index, .numa_node = -1 };
	rail->mrs = calloc(endpoint->params.n_slices + 1ul, sizeof(struct ibv_mr *));
	if (!rail->mrs)
		return error_set(error, -ENOMEM, "not enough memory for a session");
	return 0;
}

void rail_fini(struct rail *rail)
{
	if (rail->listener)
		rdma_destroy_id(rail->listener);
	if (rail->tokens_mr)
		ibv_dereg_mr(rail->tokens_mr);
	if (rail->pd)
		ibv_dealloc_pd(rail->pd);
	free(rail->mrs);
}

int rail_find_local(struct rail *rail, const struct sockaddr *near, bool same_family,
		    struct ramlift_error *error)
{
	struct endpoint *endpoint = rail->endpoint;

	if (!endpoint->params.rails)
		return 0;
	return device_address_find(endpoint->cm, endpoint->params.rails[rail->index], near,
				   same_family, &rail->local, error);
}

/* Work requests that a lane's queues may hold. */
static unsigned send_depth(const struct ibv_device_attr *limits)
{
	unsigned depth = LANE_SEND_DEPTH;

	if (limits->max_qp_wr > 0 && depth > (unsigned)limits->max_qp_wr)
		depth = (unsigned)limits->max_qp_wr;
	if (limits->max_cqe > (int)LANE_RECEIVES &&
	    depth > (unsigned)limits->max_cqe - LANE_RECEIVES)
		depth = (unsigned)limits->max_cqe - LANE_RECEIVES;
	return depth;
}

/* On-demand paging is asked for, but is there for writes, on either end of them, only on some
 * devices. */
static int check_on_demand_paging(struct ibv_context *device, struct ramlift_error *error)
{
	struct ibv_device_attr_ex attr = { .odp_caps = { 0 } };
	int ret = ibv_query_device_ex(device, NULL, &attr);

	if (ret)
		return error_set(error, -ret, "cannot ask RDMA device %s for its features: %s",
				 ibv_get_device_name(device->device), strerror(ret));
	if (attr.odp_caps.general_caps & IBV_ODP_SUPPORT &&
	    attr.odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_WRITE)
		return 0;
	return error_set(error, -EOPNOTSUPP,
			 "RDMA device %s cannot fault pages in on demand for RDMA writes: migrate "
			 "without on-demand paging",
			 ibv_get_device_name(device->device));
}

int rail_use_device(struct rail *rail, struct ibv_context *device, struct ramlift_error *error)
{
	const struct transport_params *params = &rail->endpoint->params;
	const char *name = ibv_get_device_name(device->device);
	struct ibv_device_attr limits;
	int ret;

	assert(!rail->pd);
	ret = ibv_query_device(device, &limits);
	if (ret)
		return error_set(error, -ret, "cannot ask RDMA device %s for its limits: %s", name,
				 strerror(ret));
	ret = params->on_demand_paging ? check_on_demand_paging(device, error) : 0;
	if (ret)
		return ret;
	rail->pd = ibv_alloc_pd(device);
	if (!rail->pd) {
		ret = errno ? -errno : -EIO;
		return error_set(error, ret, "cannot use RDMA device %s: %s", name, strerror(-ret));
	}
	rail->numa_node = device_node(device->device);
	rail->send_depth = send_depth(&limits);
	rail->device = device;
	return 0;
}

unsigned rail_n_lanes(const struct transport_params *params)
{
	return params->n_lanes / params->n_rails;
}

unsigned rail_first_lane(const struct rail *rail)
{
	return rail->index * rail_n_lanes(&rail->endpoint->params);
}
