/* SPDX-License-Identifier: Apache-2.0 */
/* Completion queues, protection domains and registrations: see fake.h. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fake_device.h"

#undef ibv_reg_mr

pthread_mutex_t fake_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static struct {
	int live;
	unsigned fail_in;
	bool failed, hold;
	unsigned late, looks, notifications;
	struct fake_mr *mrs[MAX_MRS];
	uint32_t next_key;
} fake;

void fake_count(int change)
{
	__atomic_add_fetch(&fake.live, change, __ATOMIC_RELAXED);
}

unsigned fake_live(void)
{
	return (unsigned)__atomic_load_n(&fake.live, __ATOMIC_RELAXED);
}

bool fake_fails(int code)
{
	bool fails;

	pthread_mutex_lock(&fake_lock);
	fails = fake.fail_in && --fake.fail_in == 0;
	fake.failed |= fails;
	pthread_mutex_unlock(&fake_lock);
	if (fails)
		errno = code;
	return fails;
}

void fake_fail_call(unsigned nth)
{
	pthread_mutex_lock(&fake_lock);
	fake.fail_in = nth;
	fake.failed = false;
	pthread_mutex_unlock(&fake_lock);
}

bool fake_has_failed(void)
{
	bool failed;

	pthread_mutex_lock(&fake_lock);
	failed = fake.failed;
	pthread_mutex_unlock(&fake_lock);
	return failed;
}

/* Completion queues. */

static void ring(struct fake_cq *cq)
{
	if (!cq->armed || cq->head == cq->tail || fake.hold)
		return;
	cq->entries[cq->head % MAX_ENTRIES].late = 0;
	cq->armed = false;
	eventfd_write(cq->cq.channel->fd, 1);
}

void fake_complete(struct ibv_cq *raw, struct fake_qp *qp, uint64_t wr_id,
		   enum ibv_wc_status status, uint32_t bytes, unsigned retires)
{
	struct fake_cq *cq = CONTAINER(struct fake_cq, cq, raw);
	struct entry *entry = &cq->entries[cq->tail++ % MAX_ENTRIES];

	assert(cq->tail - cq->head <= (unsigned)cq->cq.cqe && cq->cq.cqe <= MAX_ENTRIES);
	/* Of a completion with an error, the rest is undefined. */
	memset(entry, 0xa5, sizeof(*entry));
	entry->wc.wr_id = wr_id;
	entry->wc.status = status;
	if (status == IBV_WC_SUCCESS)
		entry->wc.byte_len = bytes;
	entry->qp = qp;
	entry->retires = retires;
	entry->late = fake.late;
	ring(cq);
}

static int poll_cq(struct ibv_cq *raw, int n, struct ibv_wc *wc)
{
	struct fake_cq *cq = CONTAINER(struct fake_cq, cq, raw);
	int got = 0;

	if (fake_fails(EIO))
		return -1;
	pthread_mutex_lock(&fake_lock);
	fake.looks++;
	for (; got < n && cq->head != cq->tail && !fake.hold; got++) {
		struct entry *entry = &cq->entries[cq->head % MAX_ENTRIES];

		if (entry->late) {
			entry->late--;
			break;
		}
		cq->head++;
		wc[got] = entry->wc;
		entry->qp->used -= entry->retires;
	}
	pthread_mutex_unlock(&fake_lock);
	return got;
}

static int req_notify_cq(struct ibv_cq *raw, int solicited_only)
{
	struct fake_cq *cq = CONTAINER(struct fake_cq, cq, raw);

	(void)solicited_only;
	if (fake_fails(EIO))
		return EIO;
	/* Like a device: what came before does not ring. What is late comes now. */
	pthread_mutex_lock(&fake_lock);
	fake.notifications++;
	cq->armed = true;
	if (cq->head != cq->tail && cq->entries[cq->head % MAX_ENTRIES].late)
		ring(cq);
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

void fake_late_completions(unsigned looks)
{
	fake.late = looks;
}

unsigned fake_looks(void)
{
	return fake.looks;
}

unsigned fake_notifications(void)
{
	return fake.notifications;
}

void fake_hold_completions(bool hold)
{
	pthread_mutex_lock(&fake_lock);
	fake.hold = hold;
	for (struct fake_qp *qp = fake_qps; qp; qp = qp->next)
		ring(CONTAINER(struct fake_cq, cq, qp->qp.send_cq));
	pthread_mutex_unlock(&fake_lock);
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	struct ibv_comp_channel *channel;

	if (fake_fails(EMFILE))
		return NULL;
	channel = malloc(sizeof(*channel));
	channel->context = context;
	channel->fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	fake_count(1);
	return channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	close(channel->fd);
	free(channel);
	fake_count(-1);
	return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context,
			     struct ibv_comp_channel *channel, int vector)
{
	struct fake_cq *cq;

	(void)vector;
	if (fake_fails(ENOMEM))
		return NULL;
	cq = malloc(sizeof(*cq));
	memset(cq, 0, sizeof(*cq));
	cq->cq.context = context;
	cq->cq.cq_context = cq_context;
	cq->cq.channel = channel;
	cq->cq.cqe = cqe;
	fake_note_queue(context);
	fake_count(1);
	return &cq->cq;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
	eventfd_t value;

	if (fake_fails(EINTR) || eventfd_read(channel->fd, &value))
		return -1;
	pthread_mutex_lock(&fake_lock);
	for (struct fake_qp *qp = fake_qps; qp; qp = qp->next)
		if (qp->qp.send_cq->channel == channel)
			*cq = qp->qp.send_cq;
	*cq_context = (*cq)->cq_context;
	CONTAINER(struct fake_cq, cq, *cq)->events_given++;
	pthread_mutex_unlock(&fake_lock);
	fake_count(1);
	return 0;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int n)
{
	CONTAINER(struct fake_cq, cq, cq)->events_acked += n;
	fake_count(-(int)n);
}

int ibv_destroy_cq(struct ibv_cq *raw)
{
	struct fake_cq *cq = CONTAINER(struct fake_cq, cq, raw);

	/* The real one would wait for ever. */
	assert(cq->events_given == cq->events_acked);
	free(cq);
	fake_count(-1);
	return 0;
}

/* Protection domains and registrations. */

struct fake_mr *fake_find_mr(const struct ibv_pd *pd, uint32_t key, uint64_t address,
			     uint64_t length)
{
	for (unsigned i = 0; i < MAX_MRS; i++) {
		struct fake_mr *mr = fake.mrs[i];

		if (mr && mr->mr.pd == pd && mr->mr.rkey == key &&
		    address >= (uintptr_t)mr->mr.addr && length <= mr->mr.length &&
		    address - (uintptr_t)mr->mr.addr <= mr->mr.length - length)
			return mr;
	}
	return NULL;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	struct ibv_pd *pd;

	if (fake_fails(ENOMEM))
		return NULL;
	pd = malloc(sizeof(*pd));
	*pd = (struct ibv_pd){ .context = context };
	fake_count(1);
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
	for (unsigned i = 0; i < MAX_MRS; i++)
		assert(!fake.mrs[i] || fake.mrs[i]->mr.pd != pd);
	free(pd);
	fake_count(-1);
	return 0;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t length, uint64_t iova,
				unsigned access)
{
	struct fake_mr *mr;
	unsigned slot = 0;

	assert(iova == (uintptr_t)address);
	if (fake_fails(ENOMEM))
		return NULL;
	mr = malloc(sizeof(*mr));
	mr->mr = (struct ibv_mr){
		.context = pd->context, .pd = pd, .addr = address, .length = length
	};
	mr->access = access;
	pthread_mutex_lock(&fake_lock);
	mr->mr.lkey = mr->mr.rkey = fake.next_key += 0x101;
	while (fake.mrs[slot])
		slot++;
	assert(slot < MAX_MRS);
	fake.mrs[slot] = mr;
	pthread_mutex_unlock(&fake_lock);
	fake_count(1);
	return &mr->mr;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access)
{
	return ibv_reg_mr_iova2(pd, address, length, (uintptr_t)address, (unsigned)access);
}

int ibv_dereg_mr(struct ibv_mr *raw)
{
	struct fake_mr *mr = CONTAINER(struct fake_mr, mr, raw);

	pthread_mutex_lock(&fake_lock);
	for (unsigned i = 0; i < MAX_MRS; i++)
		if (fake.mrs[i] == mr)
			fake.mrs[i] = NULL;
	pthread_mutex_unlock(&fake_lock);
	free(mr);
	fake_count(-1);
	return 0;
}

int fake_access_on(unsigned device, const void *address)
{
	for (unsigned i = 0; i < MAX_MRS; i++) {
		struct fake_mr *mr = fake.mrs[i];

		if (mr && mr->mr.context == fake_context(device) &&
		    (const char *)address >= (char *)mr->mr.addr &&
		    (const char *)address < (char *)mr->mr.addr + mr->mr.length)
			return (int)mr->access;
	}
	return -1;
}

void fake_verbs_ops(struct ibv_context_ops *ops)
{
	ops->poll_cq = poll_cq;
	ops->req_notify_cq = req_notify_cq;
	ops->post_send = fake_post_send;
	ops->post_recv = fake_post_recv;
}

void fake_reset(void)
{
	fake_plug(1);
	fake_fail_call(0);
	fake.hold = false;
	fake.late = fake.looks = fake.notifications = 0;
	fake_limit_queues(4096);
}
