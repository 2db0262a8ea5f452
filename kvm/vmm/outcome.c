/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/vmm/outcome.h"

#include <stdio.h>
#include <string.h>

#include "kvm/vmm/report_json.h"
#include "kvm/vmm/report_read.h"
#include "kvm/vmm/report_table.h"

static void print_table(const json_t *result)
{
	if (!strcmp(read_text(result, "outcome"), "done"))
		printf("guest %s %s at %s now\n\n", read_text(result, "guest"),
		       read_flag(result, "arrived_paused") ? "is" : "runs",
		       read_text(result, "to"));
	report_table_migration(stdout, result);
}

int outcome_tell(const json_t *result, const char *command, bool json)
{
	const char *sentence = read_text(json_object_get(result, "error"), "message");

	if (json) {
		json_dumpf(result, stdout, JSON_INDENT(2));
		printf("\n");
	} else {
		print_table(result);
	}
	fflush(stdout);
	if (sentence[0])
		fprintf(stderr, "ramlift %s: %s\n", command, sentence);
	return report_outcome_status(read_text(result, "outcome"));
}
