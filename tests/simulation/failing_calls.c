/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of the system or of the C library fails, for every call of a whole migration, on either
 * side; and then that call and some that follow, so that cleaning up fails as well. The guest runs,
 * once; nothing leaks; it ends; and a later attempt moves the guest.
 *
 *   failing_calls                                  all calls of a few sessions
 *   failing_calls --seed N --call N --calls N      some, telling everything that happens
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "scenario.h"
#include "scheduler.h"

#define N_SESSIONS   3u
#define MAX_FAILURES 10u

static unsigned long n_calls, failing_call, n_failing;
static const char *failed_name;

static int count_call(const char *name, int plausible_errno)
{
	const char *process = world.current->process->name;

	/* What the operator does is no part of it. */
	if (strcmp(process, "source") != 0 && strcmp(process, "destination") != 0)
		return 0;
	if (++n_calls < failing_call || n_calls >= failing_call + n_failing)
		return 0;
	if (!failed_name)
		failed_name = name;
	happened(n_calls, "%s fails", name);
	return plausible_errno;
}

static void hook(void)
{
	n_calls = 0;
	failed_name = NULL;
	call_hook = count_call;
}

static const char *run_with(uint64_t seed, unsigned long call, bool tracing, struct run *run)
{
	failing_call = call;
	scenario_run(seed, tracing, true, hook, run);
	if (run->failed)
		return run->failure;
	/* After COMMIT the source cannot know, and asks. */
	if (run->outcomes[0] != 1)
		return "the guest was not moved by a later attempt";
	return NULL;
}

static unsigned fail_each(uint64_t seed, unsigned long in_a_row, unsigned long *n)
{
	const char *wrong;
	unsigned failures = 0;
	struct run run;

	n_failing = 0;
	wrong = run_with(seed, 0, false, &run);
	if (wrong) {
		fprintf(stderr, "seed %llu, no call fails: %s\n", (unsigned long long)seed, wrong);
		return 1;
	}
	*n = n_calls;
	n_failing = in_a_row;
	for (unsigned long call = 1; call <= *n && failures < MAX_FAILURES; call++) {
		wrong = run_with(seed, call, false, &run);
		if (!wrong && failed_name)
			continue;
		fprintf(stderr,
			"%s, call %lu: %s\n    see it again with: failing_calls --seed %llu "
			"--call %lu --calls %lu\n",
			failed_name ? failed_name : "nothing", call,
			wrong ? wrong : "it was not reached", (unsigned long long)seed, call,
			in_a_row);
		failures++;
	}
	return failures;
}

int main(int argc, char **argv)
{
	unsigned failures = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 7 && !strcmp(argv[1], "--seed") && !strcmp(argv[3], "--call") &&
	    !strcmp(argv[5], "--calls")) {
		struct run run;
		const char *wrong;

		n_failing = strtoul(argv[6], NULL, 10);
		wrong = run_with(strtoull(argv[2], NULL, 10), strtoul(argv[4], NULL, 10), true,
				 &run);

		printf("%s\n", wrong ? wrong : "all held");
		return wrong != NULL;
	}
	for (uint64_t seed = 1; seed <= N_SESSIONS; seed++) {
		static const unsigned long in_a_row[] = { 1, 5 };
		unsigned long n = 0;

		for (unsigned i = 0; i < sizeof(in_a_row) / sizeof(in_a_row[0]); i++)
			failures += fail_each(seed, in_a_row[i], &n);
		printf("session %llu: each of %lu calls has failed, alone and with those after "
		       "it\n",
		       (unsigned long long)seed, n);
	}
	return failures != 0;
}
