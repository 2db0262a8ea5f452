/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serving side of a control socket: <runtime directory>/<guest>.sock, one JSON object a line
 * each way. A thread of its own polls; whatever a client does, it can delay neither the guest nor
 * other clients. Knows nothing of guests or requests.
 */
#ifndef KVM_VMM_CONTROL_SOCKET_H
#define KVM_VMM_CONTROL_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <jansson.h>

struct ramlift_error;
struct control_server;

/* A line, with its newline. */
#define CONTROL_MAX_LINE_BYTES (64u * 1024)

#define CONTROL_MAX_CLIENTS 16u

/* What may wait for a client that does not read; beyond this it is dropped. */
#define CONTROL_MAX_OUTPUT_BYTES (256u * 1024)

/* A client that has asked for nothing for so long is dropped. */
#define CONTROL_IDLE_NS (10ull * 1000 * 1000 * 1000)

struct control_config {
	const char *name; /* the guest's, checked by the caller */
	uint64_t idle_ns; /* 0: CONTROL_IDLE_NS */
	/*
	 * One request, on the control thread. client is never 0 and never used twice. Must not
	 * block for long and must not close the server. Answers by control_server_send().
	 */
	void (*request)(void *context, uint64_t client, const json_t *request);
	/* Somebody was turned away who is neither this process's user nor root. On the control
	 * thread; may be NULL. */
	void (*turned_away)(void *context, const struct ucred *who);
	void *context;
};

/*
 * Bind, listen, start the thread. -EEXIST: a live process serves this name (the sentence has its
 * number). A socket file that nobody serves is replaced.
 */
int control_server_open(const struct control_config *config, struct control_server **server,
			struct ramlift_error *error);

/*
 * Queue a message for a client; any thread, never blocks. -ENOENT: the client has gone. -EMSGSIZE:
 * over a line.
 */
int control_server_send(struct control_server *server, uint64_t client, const json_t *message);

/* The same, but left out while earlier messages are still waiting: for progress. */
void control_server_send_lossy(struct control_server *server, uint64_t client,
			       const json_t *message);

/* The client waits for a later answer: it may stay idle until it goes. Any thread. */
void control_server_hold(struct control_server *server, uint64_t client);

/* Who a client is, as SO_PEERCRED tells. Any thread. False: it has gone. */
bool control_server_who(struct control_server *server, uint64_t client, struct ucred *who);

/* Give clients up to a second to take what is queued, end the thread, remove the file. NULL is
 * fine. Not on the control thread. */
void control_server_close(struct control_server *server);

/* The address of a guest's socket; makes the runtime directory. */
int control_address(const char *name, struct sockaddr_un *address, struct ramlift_error *error);

#endif
