/* SPDX-License-Identifier: Apache-2.0 */
/* Reading figures back out of JSON from another process: the wrong type reads as 0, "" or false. */
#ifndef KVM_VMM_REPORT_READ_H
#define KVM_VMM_REPORT_READ_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

static inline uint64_t read_number(const json_t *object, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(object, key));

	return value > 0 ? (uint64_t)value : 0;
}

static inline const char *read_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static inline bool read_flag(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

#endif
