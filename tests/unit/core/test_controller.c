/* SPDX-License-Identifier: Apache-2.0 */
/* Each decision and its border. */
#include "core/clock.h"
#include "core/controller.h"
#include "tests/support/cmocka_all.h"

#define MIB (1024ull * 1024)

/* 300 ms of downtime allowed; 100 MiB left at 1 GiB/s and 2 ms of fixed cost: about 100 ms. */
static struct decision_input ready(void)
{
	return (struct decision_input){
		.first_pass_done = true,
		.settled = true,
		.dirty_bytes = 100 * MIB,
		.link_rate = 1024 * MIB,
		.fixed_cost_ns = 2 * NS_PER_MS,
		.elapsed_ns = 10 * NS_PER_S,
		.stuck_ns = 0,
		.can_slow_down = true,
		.max_downtime_ns = 300 * NS_PER_MS,
		.max_total_ns = 0,
		.on_divergence = RAMLIFT_DIVERGENCE_THROTTLE,
	};
}

struct row {
	const char *what;
	enum decision decision;
	struct decision_input input;
};

#define ROW(what, decision, ...)                                                                   \
	{                                                                                          \
		what, DECISION_##decision,                                                         \
		{                                                                                  \
			.first_pass_done = true, .settled = true, .dirty_bytes = 100 * MIB,        \
			.link_rate = 1024 * MIB, .max_downtime_ns = 300 * NS_PER_MS,               \
			.can_slow_down = true, .stuck_ns = CONTROLLER_SETTLE_NS, __VA_ARGS__       \
		}                                                                                  \
	}

/* The rest takes seconds: over any downtime that is allowed here. */
#define MUCH	  .dirty_bytes = 4096 * MIB
#define PATIENCE  CONTROLLER_PATIENCE_NS
#define POLICY(p) .on_divergence = RAMLIFT_DIVERGENCE_##p

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winitializer-overrides"
#endif
static const struct row rows[] = {
	ROW("little is left", SWITCH_OVER),
	ROW("nothing is left", SWITCH_OVER, .dirty_bytes = 0),
	ROW("nothing is left, and there was much", SWITCH_OVER, .dirty_bytes = 0),
	ROW("first pass not done", GO_ON, .first_pass_done = false),
	ROW("first pass not done, and nothing dirty", GO_ON, .first_pass_done = false,
	    .dirty_bytes = 0),
	ROW("first pass not done, and stuck", GO_ON, .first_pass_done = false,
	    .stuck_ns = 10 * PATIENCE, MUCH, POLICY(STOP)),

	/* Registration is not for the downtime, but no reason to do nothing. */
	ROW("not settled", GO_ON, .settled = false),
	ROW("not settled, much, stop", SWITCH_OVER, MUCH, POLICY(STOP), .settled = false,
	    .stuck_ns = PATIENCE),
	ROW("not settled, much, throttle", SLOW_DOWN, MUCH, POLICY(THROTTLE), .settled = false,
	    .stuck_ns = PATIENCE),

	/* It still falls, and sending the rest takes longer than the switchover itself. */
	ROW("still falling", GO_ON, .stuck_ns = CONTROLLER_SETTLE_NS - 1),
	ROW("no longer falling", SWITCH_OVER, .stuck_ns = CONTROLLER_SETTLE_NS),
	ROW("still falling, but little to gain", SWITCH_OVER, .stuck_ns = 0,
	    .fixed_cost_ns = 98 * NS_PER_MS),
	ROW("still falling, a little more to gain", GO_ON, .stuck_ns = 0,
	    .fixed_cost_ns = 97 * NS_PER_MS),
	ROW("nothing left, just now", SWITCH_OVER, .dirty_bytes = 0, .stuck_ns = 0),

	/* 1000 bytes at 1000 bytes/s are a second. */
	ROW("prediction at the limit", SWITCH_OVER, .dirty_bytes = 1000, .link_rate = 1000,
	    .max_downtime_ns = NS_PER_S),
	ROW("prediction a little over it", GO_ON, .dirty_bytes = 1000, .link_rate = 1000,
	    .max_downtime_ns = NS_PER_S - 1),
	ROW("fixed cost counts", GO_ON, .dirty_bytes = 1000, .link_rate = 1000,
	    .max_downtime_ns = NS_PER_S, .fixed_cost_ns = 1),
	ROW("fixed cost alone at the limit", SWITCH_OVER, .dirty_bytes = 0,
	    .fixed_cost_ns = 300 * NS_PER_MS),
	ROW("fixed cost alone over it", GO_ON, .dirty_bytes = 0,
	    .fixed_cost_ns = 300 * NS_PER_MS + 1),
	ROW("rate not known", GO_ON, .link_rate = 0),
	ROW("rate not known, nothing left", SWITCH_OVER, .link_rate = 0, .dirty_bytes = 0),

	/* Divergence, after the patience only. */
	ROW("patience, throttle", GO_ON, MUCH, POLICY(THROTTLE), .stuck_ns = PATIENCE - 1),
	ROW("patience, stop", GO_ON, MUCH, POLICY(STOP), .stuck_ns = PATIENCE - 1),
	ROW("patience, abort", GO_ON, MUCH, POLICY(ABORT), .stuck_ns = PATIENCE - 1),
	ROW("throttle", SLOW_DOWN, MUCH, POLICY(THROTTLE), .stuck_ns = PATIENCE),
	ROW("stop", SWITCH_OVER, MUCH, POLICY(STOP), .stuck_ns = PATIENCE),
	ROW("abort", GIVE_UP, MUCH, POLICY(ABORT), .stuck_ns = PATIENCE),
	ROW("throttle that cannot", GO_ON, MUCH, POLICY(THROTTLE), .stuck_ns = PATIENCE,
	    .can_slow_down = false),
	ROW("stop that cannot slow down", SWITCH_OVER, MUCH, POLICY(STOP), .stuck_ns = PATIENCE,
	    .can_slow_down = false),
	ROW("stuck, but little is left", SWITCH_OVER, POLICY(ABORT), .stuck_ns = 10 * PATIENCE),

	/* A switchover that takes too long with nothing left gets no shorter by waiting. */
	ROW("too dear, patience", GO_ON, MUCH, POLICY(THROTTLE), .fixed_cost_ns = NS_PER_S,
	    .stuck_ns = PATIENCE - 1),
	ROW("too dear, throttle", GIVE_UP, MUCH, POLICY(THROTTLE), .fixed_cost_ns = NS_PER_S,
	    .stuck_ns = PATIENCE),
	ROW("too dear, abort", GIVE_UP, MUCH, POLICY(ABORT), .fixed_cost_ns = NS_PER_S,
	    .stuck_ns = PATIENCE),
	ROW("too dear, stop", SWITCH_OVER, MUCH, POLICY(STOP), .fixed_cost_ns = NS_PER_S,
	    .stuck_ns = PATIENCE),
	ROW("just not too dear", SLOW_DOWN, MUCH, POLICY(THROTTLE),
	    .fixed_cost_ns = 300 * NS_PER_MS, .stuck_ns = PATIENCE),

	/* The time limit comes before everything else. */
	ROW("in time", SWITCH_OVER, .max_total_ns = NS_PER_S, .elapsed_ns = NS_PER_S - 1),
	ROW("time is up", GIVE_UP, .max_total_ns = NS_PER_S, .elapsed_ns = NS_PER_S),
	ROW("time is up in the first pass", GIVE_UP, .max_total_ns = NS_PER_S,
	    .elapsed_ns = NS_PER_S, .first_pass_done = false),
	ROW("time is up when stuck", GIVE_UP, MUCH, POLICY(STOP), .stuck_ns = PATIENCE,
	    .max_total_ns = 1, .elapsed_ns = UINT64_MAX),
	ROW("no limit", SWITCH_OVER, .max_total_ns = 0, .elapsed_ns = UINT64_MAX),
};
#pragma GCC diagnostic pop

static void test_each_decision(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum decision decision = controller_decide(&rows[i].input);

		if (decision != rows[i].decision)
			fail_msg("%s: decision %d, not %d", rows[i].what, decision,
				 rows[i].decision);
	}
}

static void test_prediction(void **unused)
{
	struct decision_input input = ready();

	(void)unused;
	assert_in_range(controller_predict_downtime_ns(&input), 99 * NS_PER_MS, 100 * NS_PER_MS);
	input.dirty_bytes = 0;
	assert_int_equal(controller_predict_downtime_ns(&input), 2 * NS_PER_MS);
	input.link_rate = 0;
	assert_int_equal(controller_predict_downtime_ns(&input), 2 * NS_PER_MS);
	input.dirty_bytes = 1;
	assert_int_equal(controller_predict_downtime_ns(&input), UINT64_MAX);
	input.link_rate = UINT64_MAX;
	assert_int_equal(controller_predict_downtime_ns(&input), 2 * NS_PER_MS);
	/* 1 TiB at 100 GiB/s. */
	input.dirty_bytes = 1ull << 40;
	input.link_rate = 100ull << 30;
	assert_in_range(controller_predict_downtime_ns(&input), 10240 * NS_PER_MS,
			10243 * NS_PER_MS);
}

static void test_more_never_takes_less(void **unused)
{
	struct decision_input input = ready();
	uint64_t last_ns = 0;

	(void)unused;
	for (input.dirty_bytes = 1; input.dirty_bytes < 1ull << 44; input.dirty_bytes *= 3) {
		assert_true(controller_predict_downtime_ns(&input) >= last_ns);
		last_ns = controller_predict_downtime_ns(&input);
	}
	for (input.link_rate = 1ull << 40; input.link_rate > 1ull << 16; input.link_rate /= 3) {
		assert_true(controller_predict_downtime_ns(&input) >= last_ns ||
			    input.link_rate > 1024 * MIB);
		last_ns = controller_predict_downtime_ns(&input);
	}
}

/* A link that all but stands still, and much memory: seconds by the billion are not few. */
static void test_prediction_does_not_overflow(void **unused)
{
	struct decision_input input = ready();

	(void)unused;
	input.link_rate = 1;
	for (unsigned bits = 20; bits <= 60; bits++) {
		input.dirty_bytes = 1ull << bits;
		assert_true(controller_predict_downtime_ns(&input) >= 1000000 * NS_PER_S);
		assert_int_equal(controller_decide(&input), DECISION_GO_ON);
	}
	input.dirty_bytes = 1ull << 34; /* the sum with the fixed cost, too */
	input.fixed_cost_ns = UINT64_MAX - NS_PER_S;
	assert_true(controller_predict_downtime_ns(&input) >= 1000000 * NS_PER_S);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_decision),
		cmocka_unit_test(test_prediction),
		cmocka_unit_test(test_more_never_takes_less),
		cmocka_unit_test(test_prediction_does_not_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
