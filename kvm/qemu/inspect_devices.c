/* SPDX-License-Identifier: Apache-2.0 */
/* Devices that stand in the way: those that discard the guest's memory, and those that QEMU itself
 * cannot migrate. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "kvm/qemu/inspect_private.h"
#include "kvm/qemu/qmp.h"
#include "kvm/qemu/qom.h"

static int check_balloon(struct inspection *inspection, const char *path,
			 struct ramlift_error *error)
{
	struct qemu_guest *guest = inspection->guest;
	bool reporting, hints;
	int ret;

	ret = qom_get_bool(inspection->qmp, path, "free-page-reporting", &reporting, error);
	if (!ret)
		ret = qom_get_bool(inspection->qmp, path, "free-page-hint", &hints, error);
	if (ret)
		return ret;
	/* An RNIC would go on reading the pages that were there when they were pinned. */
	if (reporting)
		return error_set(error, -EOPNOTSUPP,
				 "the guest's virtio-balloon discards memory at any time, which "
				 "must not happen to pinned memory: start QEMU without "
				 "free-page-reporting=on");
	guest->balloon = true;
	guest->free_page_hints |= hints;
	return 0;
}

static int check_devices(struct inspection *inspection, const char *folder,
			 struct ramlift_error *error)
{
	json_t *devices;
	const json_t *device;
	size_t i;
	int ret;

	ret = qom_list(inspection->qmp, folder, &devices, error);
	if (ret)
		return ret;
	json_array_foreach(devices, i, device)
	{
		const char *name = json_string_value(json_object_get(device, "name"));
		char type[64], path[320];

		if (!name)
			continue;
		/* cppcheck-suppress identicalConditionAfterEarlyExit ; this is a loop */
		if (ret)
			break;
		snprintf(path, sizeof(path), "%s/%s", folder, name);
		if (qom_child_type(device, "virtio-balloon", type, sizeof(type)))
			ret = check_balloon(inspection, path, error);
		else if (qom_child_type(device, "virtio-mem", type, sizeof(type)))
			ret = error_set(error, -EOPNOTSUPP,
					"the guest's %s discards memory, which must not happen to "
					"pinned memory: give it all memory by -m, or by -device "
					"pc-dimm",
					type);
	}
	json_decref(devices);
	return ret;
}

static int check_blockers(struct inspection *inspection, struct ramlift_error *error)
{
	const json_t *reasons, *first;
	json_t *migration;
	const char *text;
	int ret;

	/* A destination need not be fit for being left again. */
	if (!strcmp(inspection->guest->status, "inmigrate"))
		return 0;
	ret = qom_query(inspection->qmp, "query-migrate", &migration, error);
	if (ret)
		return ret;
	reasons = json_object_get(migration, "blocked-reasons");
	first = json_array_get(reasons, 0);
	text = json_string_value(first);
	if (first)
		ret = error_set(error, -EOPNOTSUPP, "QEMU says of this guest: %.300s%s",
				text ? text : "it cannot be migrated",
				json_array_size(reasons) > 1
					? " (and more: see query-migrate's blocked-reasons)"
					: "");
	json_decref(migration);
	return ret;
}

int inspect_devices(struct inspection *inspection, struct ramlift_error *error)
{
	int ret;

	ret = check_blockers(inspection, error);
	if (!ret)
		ret = check_devices(inspection, "/machine/peripheral", error);
	if (!ret)
		ret = check_devices(inspection, "/machine/peripheral-anon", error);
	return ret;
}
