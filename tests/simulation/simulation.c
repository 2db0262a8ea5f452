/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole sessions of the real engine, both sides, in a simulated world where things go wrong as a
 * seed says:
 *
 *   simulation --seeds FIRST COUNT    run so many, in --jobs N processes
 *   simulation --seed N --trace       one, telling everything that happens
 *   simulation --twice FIRST COUNT    each twice, which must be the same to the last step
 *
 * The exit status is 0 if everything held that has to hold in all of them.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "scenario.h"

struct totals {
	unsigned long n, failures, outcomes[3], settled, recovered, lost;
	unsigned long long steps, virtual_s;
};

static uint64_t seed_in_progress;
static unsigned max_failures = 5;

static void on_crash(int signal_number)
{
	char text[120];
	int n = snprintf(text, sizeof(text),
			 "signal %d in seed %llu; see it again with: simulation --seed %llu "
			 "--trace\n",
			 signal_number, (unsigned long long)seed_in_progress,
			 (unsigned long long)seed_in_progress);
	ssize_t written = write(STDERR_FILENO, text, (size_t)n);

	(void)written;
	_exit(1);
}

static void catch_crashes(void)
{
	static char stack[64 << 10];
	stack_t alternative = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_handler = on_crash, .sa_flags = SA_ONSTACK };

	sigaltstack(&alternative, NULL);
	sigaction(SIGABRT, &action, NULL);
#if !defined(__SANITIZE_ADDRESS__)
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
#endif
}

static void tell_failure(uint64_t seed, const struct run *run)
{
	fprintf(stderr, "seed %llu: %s\n    see it again with: simulation --seed %llu --trace\n",
		(unsigned long long)seed, run->failure, (unsigned long long)seed);
}

static void run_seeds(uint64_t first, uint64_t count, uint64_t stride, struct totals *totals)
{
	for (uint64_t seed = first; seed < first + count; seed += stride) {
		struct run run;

		seed_in_progress = seed;
		scenario_run(seed, false, false, NULL, &run);
		totals->n++;
		for (unsigned i = 0; i < 3; i++)
			totals->outcomes[i] += run.outcomes[i];
		totals->lost += run.lost;
		totals->settled += run.settled;
		totals->recovered += run.recovered;
		totals->steps += run.steps;
		totals->virtual_s += run.virtual_ns / 1000000000;
		if (!run.failed)
			continue;
		tell_failure(seed, &run);
		if (++totals->failures >= max_failures)
			return;
	}
}

static int in_processes(uint64_t first, uint64_t count, unsigned jobs, struct totals *sum)
{
	int fds[16][2], status, failed = 0;

	for (unsigned i = 0; i < jobs; i++) {
		struct totals totals = { 0 };

		if (pipe(fds[i]))
			return 1;
		fflush(NULL);
		switch (fork()) {
		case -1:
			return 1;
		case 0:
			run_seeds(first + i, count - i, jobs, &totals);
			if (write(fds[i][1], &totals, sizeof(totals)) != sizeof(totals))
				_exit(1);
			exit(totals.failures ? 1 : 0);
		}
		close(fds[i][1]);
	}
	for (unsigned i = 0; i < jobs; i++) {
		struct totals totals;

		if (read(fds[i][0], &totals, sizeof(totals)) == sizeof(totals)) {
			sum->n += totals.n;
			sum->failures += totals.failures;
			sum->lost += totals.lost;
			sum->settled += totals.settled;
			sum->recovered += totals.recovered;
			sum->steps += totals.steps;
			sum->virtual_s += totals.virtual_s;
			for (unsigned j = 0; j < 3; j++)
				sum->outcomes[j] += totals.outcomes[j];
		}
		if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
			failed = 1;
	}
	return failed;
}

static int many(uint64_t first, uint64_t count, unsigned jobs)
{
	struct timespec begin, end;
	struct totals totals = { 0 };
	int failed;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	failed = in_processes(first, count, jobs, &totals);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%lu seeds in %.1f s: %lu attempts moved the guest, %lu failed, %lu were left in "
	       "doubt; "
	       "%lu doubts were settled by the source, %lu times its journal had to say; %lu runs "
	       "lost the guest with its process; %llu steps, %llu s of simulated time; %lu "
	       "violations\n",
	       totals.n,
	       (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9,
	       totals.outcomes[0], totals.outcomes[1], totals.outcomes[2], totals.settled,
	       totals.recovered, totals.lost, totals.steps, totals.virtual_s, totals.failures);
	/* Where nothing works nothing is violated either. */
	if (count >= 100 && totals.outcomes[0] < count / 2) {
		fprintf(stderr, "too few guests were moved\n");
		failed = 1;
	}
	return failed || totals.n != count || totals.failures;
}

static int one(uint64_t seed, bool tracing)
{
	struct run run;

	seed_in_progress = seed;
	scenario_run(seed, tracing, false, NULL, &run);
	printf("seed %llu: %s; hash %016llx, %llu steps, %.1f s of simulated time\n",
	       (unsigned long long)seed, run.failed ? run.failure : "all held",
	       (unsigned long long)run.hash, (unsigned long long)run.steps,
	       (double)run.virtual_ns / 1e9);
	return run.failed;
}

static int twice(uint64_t first, uint64_t count)
{
	unsigned long differ = 0;

	for (uint64_t seed = first; seed < first + count; seed++) {
		struct run a, b;

		seed_in_progress = seed;
		scenario_run(seed, false, false, NULL, &a);
		scenario_run(seed, false, false, NULL, &b);
		if (a.hash == b.hash && a.steps == b.steps)
			continue;
		fprintf(stderr, "seed %llu is not the same twice\n", (unsigned long long)seed);
		differ++;
	}
	printf("%llu seeds run twice, %lu of them differ\n", (unsigned long long)count, differ);
	return differ != 0;
}

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long n = text ? strtoull(text, &end, 10) : 0;

	if (!text || *end || end == text) {
		fprintf(stderr, "usage: simulation [--jobs N] --seeds FIRST COUNT | --seed N "
				"[--trace] | --twice FIRST COUNT\n");
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	unsigned jobs = 1;
	int i = 1;

	(void)argc;
	catch_crashes();
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argv[i] && !strcmp(argv[i], "--jobs")) {
		jobs = (unsigned)number(argv[i + 1]);
		if (!jobs || jobs > 16)
			number(NULL);
		i += 2;
	}
	if (argv[i] && !strcmp(argv[i], "--seeds") && argv[i + 1])
		return many(number(argv[i + 1]), number(argv[i + 2]), jobs);
	if (argv[i] && !strcmp(argv[i], "--twice") && argv[i + 1])
		return twice(number(argv[i + 1]), number(argv[i + 2]));
	if (argv[i] && !strcmp(argv[i], "--seed"))
		return one(number(argv[i + 1]), argv[i + 2] && !strcmp(argv[i + 2], "--trace"));
	number(NULL);
	return 2;
}
