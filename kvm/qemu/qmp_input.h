/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes from a QMP monitor, cut into JSON objects. Pure: no sockets. */
#ifndef KVM_QEMU_QMP_INPUT_H
#define KVM_QEMU_QMP_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

struct ramlift_error;

#define QMP_MAX_MESSAGE_BYTES ((size_t)4 << 20)

/* Starts as zeros. */
struct qmp_input {
	char *bytes;
	size_t capacity;
	size_t used;
	size_t scanned; /* of them, what the three below stand for */
	unsigned depth; /* of braces and brackets */
	bool in_string;
	bool escaped;
};

/* Room for more bytes: add as many to input->used as were written there. -EPROTO, -ENOMEM. */
int qmp_input_room(struct qmp_input *input, char **room, size_t *n_bytes,
		   struct ramlift_error *error);

/*
 * The first object, taken out and the caller's to free. It may stretch over lines, as that of
 * -qmp-pretty. -EAGAIN: there is no whole one yet, error untouched; -EPROTO: no JSON object.
 */
int qmp_input_take(struct qmp_input *input, json_t **message, struct ramlift_error *error);

void qmp_input_fini(struct qmp_input *input);

#endif
