/* SPDX-License-Identifier: Apache-2.0 */
/* "host:port" and TCP sockets with deadlines, for the control channel and the TCP transport. */
#ifndef CORE_ADDRESS_H
#define CORE_ADDRESS_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct ramlift_error;

struct address {
	struct sockaddr_storage socket;
	socklen_t length;
	char text[80]; /* for people: "10.0.0.2:7440" */
};

/*
 * Resolve "host:port", "[v6]:port" or, with passive, ":port". -EINVAL: not of that form;
 * -EHOSTUNREACH: the name does not resolve. May block on a name server.
 */
int address_parse(const char *text, int passive, struct address *address,
		  struct ramlift_error *error);

/* The host of the same text, as it is written there; "" where it does not fit, or is none. */
void address_host(const char *text, char *host, size_t size);

void address_set_port(struct address *address, uint16_t port);
uint16_t address_port(const struct address *address);

/* This side's or the other side's address of a connected or bound socket. -errno. */
int address_of_socket(int fd, struct address *address);
int address_of_peer(int fd, struct address *address);

/*
 * Connect with a deadline. interrupt_fd, unless -1, becoming readable ends it with -ECANCELED. The
 * socket is non-blocking.
 */
int address_connect(const struct address *address, uint64_t deadline_ns, int interrupt_fd, int *fd,
		    struct ramlift_error *error);

/* Bind and listen; non-blocking. */
int address_listen(const struct address *address, int *fd, struct ramlift_error *error);

/*
 * Wait for events on fd, or for interrupt_fd (unless -1). 0, -ETIMEDOUT, -ECANCELED, -errno.
 */
int wait_for_fd(int fd, short events, uint64_t deadline_ns, int interrupt_fd);

/* All n bytes over a non-blocking socket. 0, -ECONNRESET at the end of the stream, -ETIMEDOUT,
 * -ECANCELED, -errno. */
int send_all(int fd, const void *data, size_t n, uint64_t deadline_ns, int interrupt_fd);
int receive_all(int fd, void *data, size_t n, uint64_t deadline_ns, int interrupt_fd);

#endif
