/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs that know nothing of Ramlift, by librdmacm's blocking calls. */
#include <arpa/inet.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/pair.h"
#include "tests/testbed/rogue.h"

#define PORT	    "7471"
#define WRITE_BYTES 4096u

static struct rdma_cm_id *endpoint_at(const struct sockaddr_in *address, int flags)
{
	struct rdma_addrinfo hints = { .ai_port_space = RDMA_PS_TCP, .ai_flags = flags }, *found;
	struct ibv_qp_init_attr attributes = {
		.cap = { .max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
		.sq_sig_all = 1,
	};
	struct rdma_cm_id *id;
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &address->sin_addr, text, sizeof(text));
	if (rdma_getaddrinfo(text, PORT, &hints, &found) ||
	    rdma_create_ep(&id, found, NULL, &attributes))
		die(NULL, "cannot make a queue pair");
	rdma_freeaddrinfo(found);
	return id;
}

void rogue_bystander(const struct sockaddr_in *address)
{
	struct rdma_cm_id *listener = endpoint_at(address, RAI_PASSIVE), *id;
	static char memory[WRITE_BYTES] __attribute__((aligned(4096)));

	if (rdma_listen(listener, 1))
		die(NULL, "cannot listen");
	for (;;) {
		struct rdma_conn_param param = { 0 };
		struct rogue_gift gift;
		struct ibv_mr *mr;

		alarm(60);
		if (rdma_get_request(listener, &id))
			die(NULL, "cannot wait for a connection");
		mr = rdma_reg_write(id, memory, sizeof(memory));
		if (!mr)
			die(NULL, "cannot register memory");
		gift = (struct rogue_gift){ (uintptr_t)memory, mr->rkey };
		param.private_data = &gift;
		param.private_data_len = sizeof(gift);
		if (rdma_accept(id, &param))
			die(NULL, "cannot accept a connection");
		/* It lives until this program ends. */
	}
}

struct rdma_cm_id *rogue_connect(const struct sockaddr_in *address, struct rogue_gift *gift)
{
	struct rdma_cm_id *id = endpoint_at(address, 0);
	struct rdma_conn_param param = { .retry_count = 6, .rnr_retry_count = 6 };

	if (rdma_connect(id, &param) || id->event->param.conn.private_data_len < sizeof(*gift))
		die(NULL, "cannot connect to the bystander");
	memcpy(gift, id->event->param.conn.private_data, sizeof(*gift));
	return id;
}

int rogue_write(struct rdma_cm_id *id, uint64_t address, uint32_t rkey)
{
	char *bytes = malloc(WRITE_BYTES);
	struct ibv_mr *mr = bytes ? rdma_reg_msgs(id, bytes, WRITE_BYTES) : NULL;
	struct ibv_wc completion = { 0 };

	if (!mr)
		die(NULL, "cannot register memory");
	memset(bytes, 0x66, WRITE_BYTES);
	if (rdma_post_write(id, NULL, bytes, WRITE_BYTES, mr, 0, address, rkey) ||
	    rdma_get_send_comp(id, &completion) != 1)
		die(NULL, "the write has no completion");
	rdma_dereg_mr(mr);
	rdma_destroy_ep(id);
	free(bytes);
	return completion.status;
}
