/* SPDX-License-Identifier: Apache-2.0 */
/* The table of phases against one that is written out here from the rules of the protocol. */
#include <string.h>

#include "core/phase.h"
#include "tests/support/cmocka_all.h"

#define N_PHASES RAMLIFT_PHASE_COUNT

/* One letter a phase, in the order of the enum. */
static const char letters[N_PHASES + 1] = "IPRSCHMDFX";
static const char *const names[N_PHASES] = { "idle",	      "preflight", "prepare",	"stream",
					     "stop-and-copy", "hand-over", "committed", "done",
					     "failed",	      "in-doubt" };

/* Row: from; the letters that may follow. */
static const char *const followers[N_PHASES] = {
	[RAMLIFT_PHASE_IDLE] = "PF",
	[RAMLIFT_PHASE_PREFLIGHT] = "RF",
	[RAMLIFT_PHASE_PREPARE] = "SF",
	[RAMLIFT_PHASE_STREAM] = "CHF", /* the destination goes from STREAM to HAND_OVER */
	[RAMLIFT_PHASE_STOP_AND_COPY] = "HF",
	[RAMLIFT_PHASE_HAND_OVER] = "MF",
	[RAMLIFT_PHASE_COMMITTED] = "DFX",
	[RAMLIFT_PHASE_DONE] = "",
	[RAMLIFT_PHASE_FAILED] = "",
	[RAMLIFT_PHASE_IN_DOUBT] = "DF",
};

static void test_every_transition(void **unused)
{
	(void)unused;
	for (unsigned from = 0; from < N_PHASES; from++) {
		for (unsigned to = 0; to < N_PHASES; to++) {
			bool expected = strchr(followers[from], letters[to]) != NULL;

			if (phase_may_follow(from, to) != expected)
				fail_msg("%s -> %s is %s", names[from], names[to],
					 expected ? "missing" : "allowed");
		}
	}
}

/* May `to` be reached from `from` by any way? */
static bool reachable(unsigned from, unsigned to)
{
	bool seen[N_PHASES] = { false };
	bool grown = true;

	seen[from] = true;
	while (grown) {
		grown = false;
		for (unsigned i = 0; i < N_PHASES; i++) {
			for (unsigned j = 0; j < N_PHASES; j++) {
				if (seen[i] && !seen[j] && phase_may_follow(i, j)) {
					seen[j] = true;
					grown = true;
				}
			}
		}
	}
	return from != to && seen[to];
}

static void test_ends_are_ends(void **unused)
{
	(void)unused;
	for (unsigned to = 0; to < N_PHASES; to++) {
		assert_false(reachable(RAMLIFT_PHASE_DONE, to));
		assert_false(reachable(RAMLIFT_PHASE_FAILED, to));
		assert_int_equal(reachable(RAMLIFT_PHASE_IN_DOUBT, to),
				 to == RAMLIFT_PHASE_DONE || to == RAMLIFT_PHASE_FAILED);
	}
	for (unsigned from = 0; from < RAMLIFT_PHASE_DONE; from++) {
		assert_true(reachable(from, RAMLIFT_PHASE_DONE));
		assert_true(reachable(from, RAMLIFT_PHASE_FAILED));
		assert_false(reachable(from, RAMLIFT_PHASE_IDLE));
	}
}

/* Rule 7: DONE and IN_DOUBT only by way of COMMITTED, and COMMITTED only by HAND_OVER; and a guest
 * in doubt never goes back to a phase in which a failure alone would resume it. */
static void test_no_way_around_the_commit(void **unused)
{
	(void)unused;
	for (unsigned from = 0; from < N_PHASES; from++) {
		if (from != RAMLIFT_PHASE_COMMITTED) {
			assert_int_equal(phase_may_follow(from, RAMLIFT_PHASE_DONE),
					 from == RAMLIFT_PHASE_IN_DOUBT);
			assert_false(phase_may_follow(from, RAMLIFT_PHASE_IN_DOUBT));
		}
		if (from != RAMLIFT_PHASE_HAND_OVER)
			assert_false(phase_may_follow(from, RAMLIFT_PHASE_COMMITTED));
	}
}

#define MSG(type) (1u << MESSAGE_##type)

static const unsigned accepted[N_PHASES][2] = {
	[RAMLIFT_PHASE_PREFLIGHT] = { MSG(ACCEPT) | MSG(ABORT),
				      MSG(OFFER) | MSG(ASK) | MSG(ABORT) },
	[RAMLIFT_PHASE_PREPARE] = { MSG(SLICE_KEY) | MSG(ABORT), MSG(ABORT) },
	[RAMLIFT_PHASE_STREAM] = { MSG(SLICE_KEY) | MSG(LANE_FENCED) | MSG(STREAM) | MSG(ABORT),
				   MSG(REGISTER) | MSG(RETIRE) | MSG(LANE_LOST) | MSG(FINAL) |
					   MSG(STREAM) | MSG(ABORT) },
	/* A page that was first written just now may need a slice that nobody needed so far. */
	[RAMLIFT_PHASE_STOP_AND_COPY] = { MSG(SLICE_KEY) | MSG(STREAM) | MSG(ABORT), 0 },
	[RAMLIFT_PHASE_HAND_OVER] = { MSG(PREPARED) | MSG(STREAM) | MSG(ABORT),
				      MSG(COMMIT) | MSG(STREAM) | MSG(ABORT) },
	[RAMLIFT_PHASE_COMMITTED] = { MSG(STARTED) | MSG(STREAM) | MSG(ABORT), 0 },
	[RAMLIFT_PHASE_IN_DOUBT] = { MSG(ANSWER) | MSG(ABORT), 0 },
};

static void test_every_message_in_every_phase(void **unused)
{
	(void)unused;
	for (unsigned phase = 0; phase < N_PHASES; phase++) {
		for (unsigned side = 0; side < 2; side++) {
			for (unsigned type = 0; type < MESSAGE_TYPE_COUNT; type++) {
				bool expected = accepted[phase][side] >> type & 1;

				if (phase_accepts(phase, side, type) != expected)
					fail_msg("%s in %s at the %s: %s", message_name(type),
						 names[phase], side ? "destination" : "source",
						 expected ? "refused" : "accepted");
			}
		}
	}
}

static void test_names(void **unused)
{
	(void)unused;
	for (unsigned i = 0; i < N_PHASES; i++)
		assert_string_equal(ramlift_phase_name(i), names[i]);
	assert_string_equal(ramlift_phase_name(N_PHASES), "unknown");
	assert_string_equal(ramlift_phase_name((enum ramlift_phase) - 1), "unknown");
	assert_string_equal(ramlift_phase_name((enum ramlift_phase)1000000), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_transition),
		cmocka_unit_test(test_ends_are_ends),
		cmocka_unit_test(test_no_way_around_the_commit),
		cmocka_unit_test(test_every_message_in_every_phase),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
