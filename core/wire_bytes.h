/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads of the control channel byte by byte: a writer that grows, and a reader that trusts
 * nothing. For wire.c only.
 */
#ifndef CORE_WIRE_BYTES_H
#define CORE_WIRE_BYTES_H

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Writes into memory that grows; failed once there is none. */
struct writer {
	uint8_t *data;
	size_t used, size;
	bool failed;
};

static inline void put(struct writer *writer, const void *data, size_t n)
{
	if (!n || writer->failed)
		return;
	if (writer->size - writer->used < n) {
		size_t size = (writer->used + n) * 2 + 64;
		uint8_t *grown = realloc(writer->data, size);

		if (!grown) {
			writer->failed = true;
			return;
		}
		writer->data = grown;
		writer->size = size;
	}
	memcpy(writer->data + writer->used, data, n);
	writer->used += n;
}

static inline void put_u8(struct writer *writer, uint8_t value)
{
	put(writer, &value, sizeof(value));
}

static inline void put_u16(struct writer *writer, uint16_t value)
{
	value = htobe16(value);
	put(writer, &value, sizeof(value));
}

static inline void put_u32(struct writer *writer, uint32_t value)
{
	value = htobe32(value);
	put(writer, &value, sizeof(value));
}

static inline void put_u64(struct writer *writer, uint64_t value)
{
	value = htobe64(value);
	put(writer, &value, sizeof(value));
}

static inline void put_string(struct writer *writer, const char *string)
{
	size_t length = strlen(string);

	put_u16(writer, (uint16_t)length);
	put(writer, string, length);
}

static inline void *finish_writing(struct writer *writer, uint32_t *length_bytes)
{
	if (writer->failed) {
		free(writer->data);
		return NULL;
	}
	*length_bytes = (uint32_t)writer->used;
	return writer->data;
}

/* Reads from a payload; once something is missing or out of bounds, failed, and every further value
 * is 0. */
struct reader {
	const uint8_t *data;
	size_t left;
	bool failed;
};

static inline const void *get(struct reader *reader, size_t n)
{
	const void *data = reader->data;

	if (reader->failed || reader->left < n) {
		reader->failed = true;
		return NULL;
	}
	reader->data += n;
	reader->left -= n;
	return data;
}

static inline void get_bytes(struct reader *reader, void *to, size_t n)
{
	const void *from = get(reader, n);

	if (from)
		memcpy(to, from, n);
	else
		memset(to, 0, n);
}

static inline uint8_t get_u8(struct reader *reader)
{
	uint8_t value;

	get_bytes(reader, &value, sizeof(value));
	return value;
}

static inline uint16_t get_u16(struct reader *reader)
{
	uint16_t value;

	get_bytes(reader, &value, sizeof(value));
	return be16toh(value);
}

static inline uint32_t get_u32(struct reader *reader)
{
	uint32_t value;

	get_bytes(reader, &value, sizeof(value));
	return be32toh(value);
}

static inline uint64_t get_u64(struct reader *reader)
{
	uint64_t value;

	get_bytes(reader, &value, sizeof(value));
	return be64toh(value);
}

static inline bool get_bool(struct reader *reader)
{
	uint8_t value = get_u8(reader);

	if (value > 1)
		reader->failed = true;
	return value == 1;
}

/* A string of at most size - 1 printable characters; others could do harm on a terminal. */
static inline void get_string(struct reader *reader, char *string, size_t size)
{
	uint16_t length = get_u16(reader);
	const char *from;

	string[0] = '\0';
	if (length >= size) {
		reader->failed = true;
		return;
	}
	from = get(reader, length);
	if (!from)
		return;
	for (uint16_t i = 0; i < length; i++) {
		if (from[i] < ' ' || from[i] > '~')
			reader->failed = true;
	}
	memcpy(string, from, length);
	string[length] = '\0';
}

static inline const void *get_blob(struct reader *reader, uint32_t max_bytes,
				   uint32_t *length_bytes)
{
	uint32_t length = get_u32(reader);

	if (length > max_bytes)
		reader->failed = true;
	*length_bytes = length;
	return get(reader, length);
}

static inline int finish_reading(const struct reader *reader)
{
	return reader->failed || reader->left ? -EPROTO : 0;
}

#endif
