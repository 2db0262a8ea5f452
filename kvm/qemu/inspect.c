/* SPDX-License-Identifier: Apache-2.0 */
/* Look at a QEMU: first who it is, then its memory, then its devices. */
#include "kvm/qemu/inspect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "kvm/qemu/inspect_private.h"
#include "kvm/qemu/qmp.h"
#include "kvm/qemu/qom.h"

/* A member of what a query returns, as text. */
static int query_string(struct qmp *qmp, const char *command, const char *key, char *text,
			size_t text_bytes, struct ramlift_error *error)
{
	json_t *answer;
	int ret;

	ret = qom_query(qmp, command, &answer, error);
	if (ret)
		return ret;
	qom_copy_string(text, text_bytes, json_object_get(answer, key));
	json_decref(answer);
	return 0;
}

static int look_at_machine(struct qmp *qmp, struct qemu_guest *guest, struct ramlift_error *error)
{
	size_t bytes;
	int ret;

	ret = qom_get_string(qmp, "/machine", "type", guest->machine, sizeof(guest->machine),
			     error);
	if (!ret)
		ret = query_string(qmp, "query-target", "arch", guest->arch, sizeof(guest->arch),
				   error);
	if (!ret)
		ret = query_string(qmp, "query-name", "name", guest->name, sizeof(guest->name),
				   error);
	if (!ret)
		ret = query_string(qmp, "query-status", "status", guest->status,
				   sizeof(guest->status), error);
	if (ret)
		return ret;
	guest->running = !strcmp(guest->status, "running");
	bytes = strlen(guest->machine);
	if (bytes > 8 && !strcmp(guest->machine + bytes - 8, "-machine"))
		guest->machine[bytes - 8] = '\0';
	if (!guest->machine[0] || !guest->arch[0] || !guest->status[0])
		return error_set(error, -EOPNOTSUPP,
				 "QEMU %s does not say what machine it is; Ramlift needs 4.2 or "
				 "later",
				 guest->version);
	return 0;
}

static int look_at_cpus(struct qmp *qmp, struct qemu_guest *guest, struct ramlift_error *error)
{
	json_t *cpus, *kvm = NULL;
	const char *path;
	int ret;

	ret = qom_query(qmp, "query-cpus-fast", &cpus, error);
	if (ret)
		return ret;
	guest->n_cpus = (unsigned)json_array_size(cpus);
	path = json_string_value(json_object_get(json_array_get(cpus, 0), "qom-path"));
	if (path)
		ret = qom_get_string(qmp, path, "type", guest->cpu, sizeof(guest->cpu), error);
	json_decref(cpus);
	if (!ret)
		ret = qom_query(qmp, "query-kvm", &kvm, error);
	guest->kvm = json_is_true(json_object_get(kvm, "enabled"));
	json_decref(kvm);
	return ret;
}

static int by_name(const void *a, const void *b)
{
	const struct qemu_block *left = a, *right = b;

	return strcmp(left->name, right->name);
}

static int look(struct inspection *inspection, pid_t pid, struct ramlift_error *error)
{
	struct qemu_guest *guest = inspection->guest;
	struct qmp *qmp = inspection->qmp;
	int ret;

	guest->pid = pid ? pid : qmp_pid(qmp);
	if (guest->pid <= 0)
		return error_set(error, -ESRCH,
				 "QEMU's process cannot be told from its monitor (it is in "
				 "another PID namespace): name it by --pid");
	snprintf(guest->version, sizeof(guest->version), "%s", qmp_version(qmp));
	qmp_version_numbers(qmp, guest->numbers);
	ret = look_at_machine(qmp, guest, error);
	if (!ret)
		ret = look_at_cpus(qmp, guest, error);
	if (!ret)
		ret = inspect_backends(inspection, error);
	if (!ret)
		ret = inspect_devices(inspection, error);
	if (!ret)
		ret = inspect_mappings(inspection, error);
	/* QEMU lists its objects in no order; two sides should see the same one. */
	qsort(guest->blocks, guest->n_blocks, sizeof(guest->blocks[0]), by_name);
	return ret;
}

int qemu_inspect(struct qmp *qmp, pid_t pid, struct qemu_guest **guest, struct ramlift_error *error)
{
	struct inspection *inspection = calloc(1, sizeof(*inspection));
	int ret;

	if (inspection)
		inspection->guest = calloc(1, sizeof(*inspection->guest));
	if (!inspection || !inspection->guest) {
		free(inspection);
		return error_set(error, -ENOMEM, "no memory for a picture of QEMU");
	}
	inspection->qmp = qmp;
	ret = look(inspection, pid, error);
	if (ret)
		qemu_guest_free(inspection->guest);
	else
		*guest = inspection->guest;
	free(inspection);
	return ret;
}

void qemu_guest_free(struct qemu_guest *guest)
{
	free(guest);
}

const struct qemu_block *qemu_guest_block(const struct qemu_guest *guest, const char *name)
{
	for (unsigned i = 0; i < guest->n_blocks; i++)
		if (!strcmp(guest->blocks[i].name, name))
			return &guest->blocks[i];
	return NULL;
}
