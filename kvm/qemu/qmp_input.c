/* SPDX-License-Identifier: Apache-2.0 */
/* Finds where an object ends by counting braces outside strings; jansson does the rest. */
#include "kvm/qemu/qmp_input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

#define ROOM_BYTES ((size_t)16 << 10)

int qmp_input_room(struct qmp_input *input, char **room, size_t *n_bytes,
		   struct ramlift_error *error)
{
	if (input->used >= QMP_MAX_MESSAGE_BYTES)
		return error_set(error, -EPROTO,
				 "QEMU's monitor sends a message of more than %zu MiB",
				 QMP_MAX_MESSAGE_BYTES >> 20);
	if (input->capacity - input->used < ROOM_BYTES) {
		size_t capacity = input->capacity * 2 + ROOM_BYTES;
		char *bytes = realloc(input->bytes, capacity);

		if (!bytes)
			return error_set(error, -ENOMEM, "no memory for what QEMU's monitor says");
		input->bytes = bytes;
		input->capacity = capacity;
	}
	*room = input->bytes + input->used;
	*n_bytes = ROOM_BYTES;
	return 0;
}

static void drop(struct qmp_input *input, size_t n_bytes)
{
	input->used -= n_bytes;
	memmove(input->bytes, input->bytes + n_bytes, input->used);
	input->scanned = 0;
}

/* White space between messages. */
static void drop_space(struct qmp_input *input)
{
	size_t n = 0;

	while (n < input->used && input->bytes[n] && strchr(" \t\r\n", input->bytes[n]))
		n++;
	if (n)
		drop(input, n);
}

/* Go on with one byte; true after the last one of an object. */
static bool scan(struct qmp_input *input, char byte)
{
	if (input->escaped) {
		input->escaped = false;
	} else if (input->in_string) {
		input->escaped = byte == '\\';
		input->in_string = byte != '"';
	} else if (byte == '"') {
		input->in_string = true;
	} else if (byte == '{' || byte == '[') {
		input->depth++;
	} else if (byte == '}' || byte == ']') {
		return !--input->depth;
	}
	return false;
}

static json_t *parse(const char *bytes, size_t n_bytes)
{
	json_error_t why;
	json_t *message = json_loadb(bytes, n_bytes, 0, &why);

	/* QEMU's numbers are of 64 bits without a sign, jansson's with one. */
	if (!message && json_error_code(&why) == json_error_numeric_overflow)
		message = json_loadb(bytes, n_bytes, JSON_DECODE_INT_AS_REAL, &why);
	return message;
}

int qmp_input_take(struct qmp_input *input, json_t **message, struct ramlift_error *error)
{
	json_t *object;
	bool whole = false;

	if (!input->scanned)
		drop_space(input);
	if (input->used && input->bytes[0] != '{')
		goto not_qmp;
	while (!whole && input->scanned < input->used)
		whole = scan(input, input->bytes[input->scanned++]);
	if (!whole)
		return -EAGAIN;
	object = parse(input->bytes, input->scanned);
	drop(input, input->scanned);
	if (!json_is_object(object)) {
		json_decref(object);
		goto not_qmp;
	}
	*message = object;
	return 0;

not_qmp:
	return error_set(error, -EPROTO,
			 "what the monitor says is not QMP: name the socket of -qmp "
			 "unix:PATH,server=on,wait=off, not that of -monitor");
}

void qmp_input_fini(struct qmp_input *input)
{
	free(input->bytes);
	*input = (struct qmp_input){ 0 };
}
