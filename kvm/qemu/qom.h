/* SPDX-License-Identifier: Apache-2.0 */
/* Properties of QEMU's objects, by QMP. What a QEMU does not know is absent, not a failure. */
#ifndef KVM_QEMU_QOM_H
#define KVM_QEMU_QOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

struct qmp;
struct ramlift_error;

/* A property, or the answer to a command without arguments; *value is NULL if QEMU has none. */
int qom_get(struct qmp *qmp, const char *path, const char *property, json_t **value,
	    struct ramlift_error *error);
int qom_query(struct qmp *qmp, const char *command, json_t **value, struct ramlift_error *error);

/* What is absent, too long, or of another type is "", false or 0. */
int qom_get_string(struct qmp *qmp, const char *path, const char *property, char *text,
		   size_t text_bytes, struct ramlift_error *error);
int qom_get_bool(struct qmp *qmp, const char *path, const char *property, bool *value,
		 struct ramlift_error *error);
int qom_get_size(struct qmp *qmp, const char *path, const char *property, uint64_t *value,
		 struct ramlift_error *error);

/* The children of an object: an array of objects with "name" and "type"; empty if it has none. */
int qom_list(struct qmp *qmp, const char *path, json_t **children, struct ramlift_error *error);

/* The type in "child<TYPE>" if it begins with prefix. */
bool qom_child_type(const json_t *child, const char *prefix, char *type, size_t type_bytes);

void qom_copy_string(char *text, size_t text_bytes, const json_t *value);

#endif
