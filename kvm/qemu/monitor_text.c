/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's tables: "info ramblock", "info mtree -f", "gpa2hva". */
#include "kvm/qemu/monitor_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The end of the line at text, and by *next where the following one begins. */
static const char *line_end(const char *text, const char **next)
{
	const char *end = text + strcspn(text, "\r\n");

	*next = end + strspn(end, "\r\n");
	return end;
}

/* "NAME    4 KiB  0xOFFSET 0xUSED 0xTOTAL [0xHVA rw]", the name flush right and perhaps empty. */
static bool parse_ramblock(const char *line, const char *end, struct monitor_ramblock *block)
{
	const char *unit = NULL, *name_end;
	uint64_t used, hva = 0;
	size_t bytes;

	for (const char *at = line; at + 5 < end; at++)
		if (!strncmp(at, "B  0x", 5))
			unit = at;
	/* %*[ ] and not a space, which would go on into the next line. */
	if (!unit ||
	    sscanf(unit, "B%*[ ]0x%*x%*[ ]0x%" SCNx64 "%*[ ]0x%*x%*[ ]0x%" SCNx64, &used, &hva) < 1)
		return false;
	/* Back over "Ki", "Mi", "Gi" or nothing, the number, and the gaps beside it. */
	name_end = unit;
	while (name_end > line && name_end[-1] != ' ')
		name_end--;
	while (name_end > line && name_end[-1] == ' ')
		name_end--;
	while (name_end > line && name_end[-1] != ' ')
		name_end--;
	while (name_end > line && name_end[-1] == ' ')
		name_end--;
	line += strspn(line, " ");
	bytes = name_end > line ? (size_t)(name_end - line) : 0;
	if (bytes >= sizeof(block->name))
		return false;
	memcpy(block->name, line, bytes);
	block->name[bytes] = '\0';
	block->size_bytes = used;
	block->hva = hva;
	return true;
}

bool monitor_next_ramblock(const char **text, struct monitor_ramblock *block)
{
	while (**text) {
		const char *line = *text;
		const char *end = line_end(line, text);

		if (parse_ramblock(line, end, block))
			return true;
	}
	return false;
}

/* "  BEGIN-END (prio 0, ram): NAME[ @OFFSET][ KVM]" */
static bool is_range(const char *line, const char *end, const char *region, uint64_t *gpa,
		     uint64_t *offset_bytes)
{
	size_t bytes = strlen(region);
	const char *name;

	if (sscanf(line, " %" SCNx64 "-", gpa) != 1)
		return false;
	name = memmem(line, (size_t)(end - line), "): ", 3);
	if (!name || (size_t)(end - name) < 3 + bytes || memcmp(name + 3, region, bytes))
		return false;
	name += 3 + bytes;
	if (name != end && *name != ' ')
		return false;
	*offset_bytes = 0;
	(void)sscanf(name, " @%" SCNx64, offset_bytes);
	return true;
}

bool monitor_find_region(const char *text, const char *region, uint64_t *gpa,
			 uint64_t *offset_bytes)
{
	bool system = false;

	/* Other address spaces, as that of the system management mode, see other things. */
	while (*text) {
		const char *line = text;
		const char *end = line_end(line, &text);

		if (!strncmp(line, "FlatView #", 10))
			system = false;
		else if (!strncmp(line, " AS \"memory\",", 13))
			system = true;
		else if (system && is_range(line, end, region, gpa, offset_bytes))
			return true;
	}
	return false;
}

bool monitor_read_hva(const char *text, const char *region, uint64_t *hva)
{
	char found[256];

	return sscanf(text, "Host virtual address for 0x%*x (%255[^)]) is 0x%" SCNx64, found,
		      hva) == 2 &&
	       !strcmp(found, region);
}
