/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest says of itself. The counters are in guest memory, so they move with it; reading
 * them disturbs nobody. They may be a moment old, and of one vCPU more so than of another.
 */
#include <stdio.h>
#include <string.h>

#include "kvm/vmm/machine_private.h"

static const struct guest_report *report_of(const struct machine *machine, unsigned vcpu)
{
	return machine_memory_at(&machine->memory, GUEST_REPORTS_GPA + vcpu * GUEST_PAGE_BYTES);
}

static void tell_failure(const struct guest_report *guest, unsigned vcpu,
			 struct machine_report *report)
{
	unsigned long long page = guest->failure_page, expected = guest->failure_expected,
			   found = guest->failure_found, word = guest->failure_word,
			   generation = guest->failure_generation;
	char *words = report->first_failure;
	size_t room = sizeof(report->first_failure);

	if (guest->failure_kind == GUEST_FAILURE_PAGE)
		snprintf(words, room,
			 "vCPU %u: page %llu (gpa 0x%llx), generation %llu, word %llu: expected "
			 "0x%llx, found "
			 "0x%llx",
			 vcpu, page, (unsigned long long)guest_page_gpa(page), generation, word,
			 expected, found);
	else
		snprintf(words, room,
			 "vCPU %u: its register counted %llu pages written, its report page %llu: "
			 "one is older",
			 vcpu, expected, found);
}

/* vCPUs that died have failed, too. */
static void add_dead(struct machine *machine, struct machine_report *report)
{
	pthread_mutex_lock(&machine->vcpus.lock);
	report->running = !machine->vcpus.paused;
	for (unsigned i = 0; i < machine->vcpus.n; i++) {
		const struct vcpu *vcpu = &machine->vcpus.list[i];

		if (!vcpu->dead)
			continue;
		report->failures++;
		if (!report->first_failure[0])
			snprintf(report->first_failure, sizeof(report->first_failure), "%s",
				 vcpu->last_words);
	}
	pthread_mutex_unlock(&machine->vcpus.lock);
}

void machine_report(struct machine *machine, struct machine_report *report_out)
{
	uint64_t heard = atomic_load(&machine->vcpus.failures_heard);
	struct machine_report report = { .sweeps = UINT64_MAX };

	for (unsigned i = 0; i < machine->config.n_vcpus; i++) {
		const struct guest_report *guest = report_of(machine, i);

		report.pages_written += guest->pages_written;
		report.pages_verified += guest->pages_verified;
		report.failures += guest->failures;
		if (guest->sweeps < report.sweeps)
			report.sweeps = guest->sweeps;
		if (guest->failures && !report.first_failure[0])
			tell_failure(guest, i, &report);
	}
	/* A report page may itself be what was lost; what was told
	 * through the port still counts. */
	if (heard > report.failures)
		report.failures = heard;
	add_dead(machine, &report);
	*report_out = report;
}
