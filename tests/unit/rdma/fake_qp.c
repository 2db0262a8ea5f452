/* SPDX-License-Identifier: Apache-2.0 */
/* The device's queue pairs: see fake.h. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fake_device.h"

struct fake_qp *fake_qps;

void fake_qp_error(struct ibv_qp *raw)
{
	struct fake_qp *qp = CONTAINER(struct fake_qp, qp, raw);

	pthread_mutex_lock(&fake_lock);
	qp->qp.state = IBV_QPS_ERR;
	for (unsigned i = 0; i < qp->n_receives; i++)
		fake_complete(qp->qp.recv_cq, qp, qp->receives[i].wr_id, IBV_WC_WR_FLUSH_ERR, 0, 0);
	qp->n_receives = 0;
	pthread_mutex_unlock(&fake_lock);
}

static enum ibv_wc_status do_write(struct fake_qp *qp, const struct ibv_send_wr *wr)
{
	const struct ibv_sge *piece = wr->sg_list;
	struct fake_mr *target;

	if (!fake_find_mr(qp->qp.pd, piece->lkey, piece->addr, piece->length))
		return IBV_WC_LOC_PROT_ERR;
	if (!qp->peer || qp->peer->qp.state != IBV_QPS_RTS)
		return IBV_WC_RETRY_EXC_ERR;
	target = fake_find_mr(qp->peer->qp.pd, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr,
			      piece->length);
	if (!target || !(target->access & IBV_ACCESS_REMOTE_WRITE))
		return IBV_WC_REM_ACCESS_ERR;
	memcpy((void *)(uintptr_t)wr->wr.rdma.remote_addr, (void *)(uintptr_t)piece->addr,
	       piece->length);
	return IBV_WC_SUCCESS;
}

static enum ibv_wc_status do_send(struct fake_qp *qp, const struct ibv_send_wr *wr)
{
	const struct ibv_sge *piece = wr->sg_list;
	struct fake_qp *peer = qp->peer;
	struct fake_receive receive;

	if (!(wr->send_flags & IBV_SEND_INLINE) &&
	    !fake_find_mr(qp->qp.pd, piece->lkey, piece->addr, piece->length))
		return IBV_WC_LOC_PROT_ERR;
	if (!peer || peer->qp.state != IBV_QPS_RTS)
		return IBV_WC_RETRY_EXC_ERR;
	if (!peer->n_receives)
		return IBV_WC_RNR_RETRY_EXC_ERR;
	receive = peer->receives[0];
	memmove(peer->receives, peer->receives + 1, --peer->n_receives * sizeof(receive));
	if (piece->length > receive.piece.length ||
	    !fake_find_mr(peer->qp.pd, receive.piece.lkey, receive.piece.addr, piece->length)) {
		fake_complete(peer->qp.recv_cq, peer, receive.wr_id, IBV_WC_LOC_LEN_ERR, 0, 0);
		fake_qp_error(&peer->qp);
		return IBV_WC_REM_INV_REQ_ERR;
	}
	memcpy((void *)(uintptr_t)receive.piece.addr, (void *)(uintptr_t)piece->addr,
	       piece->length);
	fake_complete(peer->qp.recv_cq, peer, receive.wr_id, IBV_WC_SUCCESS, piece->length, 0);
	return IBV_WC_SUCCESS;
}

static void do_request(struct fake_qp *qp, const struct ibv_send_wr *wr)
{
	enum ibv_wc_status status = IBV_WC_WR_FLUSH_ERR;

	qp->used++;
	qp->unsignalled++;
	if (qp->qp.state == IBV_QPS_RTS) {
		assert(wr->opcode == IBV_WR_RDMA_WRITE || wr->opcode == IBV_WR_SEND);
		status = wr->opcode == IBV_WR_SEND ? do_send(qp, wr) : do_write(qp, wr);
		if (status != IBV_WC_SUCCESS)
			fake_qp_error(&qp->qp);
	}
	if (status == IBV_WC_SUCCESS && !(wr->send_flags & IBV_SEND_SIGNALED))
		return;
	fake_complete(qp->qp.send_cq, qp, wr->wr_id, status, 0, qp->unsignalled);
	qp->unsignalled = 0;
}

int fake_post_send(struct ibv_qp *raw, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct fake_qp *qp = CONTAINER(struct fake_qp, qp, raw);
	int ret = 0;

	if (fake_fails(ENOMEM)) {
		*bad = wr;
		return ENOMEM;
	}
	pthread_mutex_lock(&fake_lock);
	for (; wr && !ret; wr = wr->next) {
		if (qp->used == qp->max_send || wr->num_sge != 1) {
			*bad = wr;
			ret = ENOMEM;
		} else {
			do_request(qp, wr);
		}
	}
	pthread_mutex_unlock(&fake_lock);
	return ret;
}

int fake_post_recv(struct ibv_qp *raw, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct fake_qp *qp = CONTAINER(struct fake_qp, qp, raw);

	*bad = wr;
	if (fake_fails(ENOMEM))
		return ENOMEM;
	assert(!wr->next && wr->num_sge == 1);
	if (qp->n_receives == qp->max_receive)
		return ENOMEM;
	qp->receives[qp->n_receives++] =
		(struct fake_receive){ .wr_id = wr->wr_id, .piece = wr->sg_list[0] };
	return 0;
}

struct ibv_qp *fake_qp_new(struct ibv_pd *pd, const struct ibv_qp_init_attr *init)
{
	struct fake_qp *qp = malloc(sizeof(*qp));

	memset(qp, 0, sizeof(*qp));
	qp->qp.context = pd->context;
	qp->qp.qp_context = init->qp_context;
	qp->qp.pd = pd;
	qp->qp.send_cq = init->send_cq;
	qp->qp.recv_cq = init->recv_cq;
	qp->qp.qp_type = init->qp_type;
	qp->qp.state = IBV_QPS_INIT;
	qp->max_send = init->cap.max_send_wr;
	qp->max_receive = init->cap.max_recv_wr;
	assert(qp->max_receive <= MAX_RECEIVES);
	pthread_mutex_lock(&fake_lock);
	qp->next = fake_qps;
	fake_qps = qp;
	pthread_mutex_unlock(&fake_lock);
	fake_count(1);
	return &qp->qp;
}

void fake_qp_free(struct ibv_qp *raw)
{
	struct fake_qp *qp = CONTAINER(struct fake_qp, qp, raw), **at;

	pthread_mutex_lock(&fake_lock);
	for (at = &fake_qps; *at != qp; at = &(*at)->next)
		;
	*at = qp->next;
	if (qp->peer)
		qp->peer->peer = NULL;
	pthread_mutex_unlock(&fake_lock);
	free(qp);
	fake_count(-1);
}

void fake_qp_connect(struct ibv_qp *one, struct ibv_qp *other)
{
	struct fake_qp *a = CONTAINER(struct fake_qp, qp, one);
	struct fake_qp *b = CONTAINER(struct fake_qp, qp, other);

	a->peer = b;
	b->peer = a;
	one->state = IBV_QPS_RTS;
	other->state = IBV_QPS_RTS;
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	if (fake_fails(EINVAL))
		return EINVAL;
	assert(mask == IBV_QP_STATE && attr->qp_state == IBV_QPS_ERR);
	fake_qp_error(qp);
	return 0;
}

unsigned fake_fullest_queue(void)
{
	unsigned fullest = 0;

	pthread_mutex_lock(&fake_lock);
	for (struct fake_qp *qp = fake_qps; qp; qp = qp->next)
		fullest = qp->used > fullest ? qp->used : fullest;
	pthread_mutex_unlock(&fake_lock);
	return fullest;
}
