/* SPDX-License-Identifier: Apache-2.0 */
/* qom-get and qom-list. A property that another version of QEMU has not is refused by QEMU. */
#include "kvm/qemu/qom.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/ramlift.h"
#include "kvm/qemu/qmp.h"

static int ask(struct qmp *qmp, const char *command, json_t *arguments, json_t **value,
	       struct ramlift_error *error)
{
	int ret;

	*value = NULL;
	ret = qmp_call(qmp, command, arguments, value, error);
	return ret == -EREMOTEIO ? 0 : ret;
}

int qom_query(struct qmp *qmp, const char *command, json_t **value, struct ramlift_error *error)
{
	return ask(qmp, command, NULL, value, error);
}

int qom_get(struct qmp *qmp, const char *path, const char *property, json_t **value,
	    struct ramlift_error *error)
{
	return ask(qmp, "qom-get", json_pack("{s:s, s:s}", "path", path, "property", property),
		   value, error);
}

void qom_copy_string(char *text, size_t text_bytes, const json_t *value)
{
	const char *string = json_string_value(value);

	if (!string || strlen(string) >= text_bytes)
		string = "";
	snprintf(text, text_bytes, "%s", string);
}

int qom_get_string(struct qmp *qmp, const char *path, const char *property, char *text,
		   size_t text_bytes, struct ramlift_error *error)
{
	json_t *value;
	int ret;

	ret = qom_get(qmp, path, property, &value, error);
	if (ret)
		return ret;
	qom_copy_string(text, text_bytes, value);
	json_decref(value);
	return 0;
}

int qom_get_bool(struct qmp *qmp, const char *path, const char *property, bool *result,
		 struct ramlift_error *error)
{
	json_t *value;
	int ret;

	ret = qom_get(qmp, path, property, &value, error);
	if (ret)
		return ret;
	*result = json_is_true(value);
	json_decref(value);
	return 0;
}

int qom_get_size(struct qmp *qmp, const char *path, const char *property, uint64_t *result,
		 struct ramlift_error *error)
{
	json_t *value;
	int ret;

	ret = qom_get(qmp, path, property, &value, error);
	if (ret)
		return ret;
	*result = json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value) : 0;
	json_decref(value);
	return 0;
}

int qom_list(struct qmp *qmp, const char *path, json_t **children, struct ramlift_error *error)
{
	json_t *value;
	int ret;

	ret = ask(qmp, "qom-list", json_pack("{s:s}", "path", path), &value, error);
	if (ret)
		return ret;
	if (!json_is_array(value)) {
		json_decref(value);
		value = json_array();
	}
	*children = value;
	return 0;
}

bool qom_child_type(const json_t *child, const char *prefix, char *type, size_t type_bytes)
{
	const char *text = json_string_value(json_object_get(child, "type"));
	size_t bytes;

	if (!text || strncmp(text, "child<", 6) || strncmp(text + 6, prefix, strlen(prefix)))
		return false;
	bytes = strcspn(text + 6, ">");
	if (bytes >= type_bytes)
		return false;
	memcpy(type, text + 6, bytes);
	type[bytes] = '\0';
	return true;
}
