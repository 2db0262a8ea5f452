/* SPDX-License-Identifier: Apache-2.0 */
/* The asking side of a control socket: connect to a guest's process, send a request, read lines. */
#ifndef KVM_VMM_CONTROL_CLIENT_H
#define KVM_VMM_CONTROL_CLIENT_H

#include <stddef.h>

#include <jansson.h>

struct ramlift_error;
struct control_client;

/* -ENOENT: no such guest runs here. */
int control_client_open(const char *name, struct control_client **client,
			struct ramlift_error *error);
void control_client_close(struct control_client *client);

/* For poll(2), which says that control_client_read() may find more. */
int control_client_fd(const struct control_client *client);

/* Send the request and free it, NULL included. */
int control_client_send(struct control_client *client, json_t *request,
			struct ramlift_error *error);

/*
 * The next message, which the caller frees. Waits up to timeout_ms, -1: for ever. -EAGAIN: nothing
 * yet; -ECONNRESET: the process has ended or closed the connection; -EPROTO.
 */
int control_client_read(struct control_client *client, int timeout_ms, json_t **message,
			struct ramlift_error *error);

/*
 * Open, send, read the one answer. -EREMOTEIO and the process's sentence if it refused. answer may
 * be NULL.
 */
int control_client_ask(const char *name, json_t *request, int timeout_ms, json_t **answer,
		       struct ramlift_error *error);

/* Set error to what a message of event "refused" says, and return -EREMOTEIO; 0 for others. */
int control_client_refusal(const json_t *message, struct ramlift_error *error);

#endif
