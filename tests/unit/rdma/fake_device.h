/* SPDX-License-Identifier: Apache-2.0 */
/* What the fake device's files share. */
#ifndef TESTS_UNIT_RDMA_FAKE_DEVICE_H
#define TESTS_UNIT_RDMA_FAKE_DEVICE_H

#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stddef.h>

#include "fake.h"

#define MAX_MRS	     256
#define MAX_RECEIVES 16
#define MAX_ENTRIES  1024
#define CONTAINER(type, member, pointer)                                                           \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

struct entry {
	struct ibv_wc wc;
	struct fake_qp *qp;
	unsigned retires; /* work requests whose slots it gives back */
	unsigned late;	  /* looks until it shows */
};

struct fake_cq {
	struct ibv_cq cq;
	struct entry entries[MAX_ENTRIES];
	unsigned head, tail;
	bool armed;
	unsigned events_given, events_acked;
};

struct fake_receive {
	uint64_t wr_id;
	struct ibv_sge piece;
};

struct fake_qp {
	struct ibv_qp qp;
	struct fake_qp *peer;
	unsigned max_send, max_receive;
	unsigned used, unsignalled;
	struct fake_receive receives[MAX_RECEIVES];
	unsigned n_receives;
	struct fake_qp *next;
};

struct fake_mr {
	struct ibv_mr mr;
	unsigned access;
};

extern pthread_mutex_t fake_lock; /* recursive; all of the device's state */
extern struct fake_qp *fake_qps;

/* Should this call fail? Sets errno to code then. */
bool fake_fails(int code);
/* An object more, or less. */
void fake_count(int change);

/* fake_rnic.c; NULL: there is no such device */
struct ibv_context *fake_context(unsigned device);
void fake_note_queue(struct ibv_context *context);

/* fake_net.c */
struct ibv_context *fake_device_at(const struct sockaddr *address);

/* fake_verbs.c */
void fake_verbs_ops(struct ibv_context_ops *ops);
void fake_complete(struct ibv_cq *cq, struct fake_qp *qp, uint64_t wr_id, enum ibv_wc_status status,
		   uint32_t bytes, unsigned retires);
struct fake_mr *fake_find_mr(const struct ibv_pd *pd, uint32_t key, uint64_t address,
			     uint64_t length);

/* fake_qp.c */
struct ibv_qp *fake_qp_new(struct ibv_pd *pd, const struct ibv_qp_init_attr *init);
void fake_qp_free(struct ibv_qp *qp);
void fake_qp_connect(struct ibv_qp *one, struct ibv_qp *other);
void fake_qp_error(struct ibv_qp *qp);
int fake_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int fake_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

#endif
