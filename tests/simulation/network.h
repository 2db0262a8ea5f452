/* SPDX-License-Identifier: Apache-2.0 */
/* The network's inside: what network.c, which moves bytes between hosts, frames.c, which looks at
 * what they are, and sockets.c, where the engine's calls come in, share. */
#ifndef TESTS_SIMULATION_NETWORK_H
#define TESTS_SIMULATION_NETWORK_H

#include "host.h"

#define BACKLOG 8u

enum segment_kind { SEGMENT_DATA, SEGMENT_FIN, SEGMENT_RESET, SEGMENT_CONNECT, SEGMENT_CONNECTED };

/* One end of a connection, or a socket that is none yet; kept until the world ends. */
struct socket {
	struct socket *next; /* of all */
	struct host *host;
	struct process *process; /* NULL once it is closed, or in a backlog */
	struct socket *peer;	 /* NULL until it is connected */
	unsigned connection;	 /* a number for both ends */
	struct sockaddr_in local, remote;
	bool connecting, connected, shut_wr, shut_rd, fin_received;
	bool fin_sent, lost; /* lost: nothing that is sent arrives, for ever */
	int error;
	uint8_t *received;
	size_t n_received, room_received;
	uint8_t *part; /* of a frame that is being sent */
	size_t n_part;
	uint8_t *frame; /* the last whole one */
	bool raw;	/* it does not speak the protocol */
	size_t in_flight;
	uint64_t last_arrival_ns;

	/* a listener */
	bool listening;
	struct socket *next_listener;
	struct socket *backlog[BACKLOG];
	unsigned n_backlog;
};

struct socket *socket_new(struct host *host);
/* Whoever polls it looks again. */
void socket_changed(struct socket *socket);
/* How much more may be sent. */
size_t socket_room(const struct socket *socket);

/* Put something on its way; data stays in order unless it is given a delay of its own. */
void transmit(struct socket *from, struct socket *to, enum segment_kind kind, const void *bytes,
	      size_t n, uint64_t extra_ns);

/* When a partition of the two ends, NEVER_NS if it does not. */
uint64_t network_open_ns(const struct host *a, const struct host *b);
struct host *host_of(struct in_addr address);
struct socket *find_listener(const struct host *host, in_port_t port);
uint16_t network_free_port(void);

/* What a process has sent, put together to frames; and bytes as they are. */
void frames_send(struct socket *socket);
void send_bytes(struct socket *socket, const uint8_t *bytes, size_t n, uint64_t extra_ns);

#endif
