/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's pace: the right number of pages over time, in bounded batches. */
#include "unit.h"

#include "core/clock.h"
#include "kvm/vmm/vcpu_pace.h"

/* Follow a pace for ten seconds of a clock of its own. */
static uint64_t writes_in_10s(uint64_t rate, uint64_t step_ns, uint64_t *verified)
{
	struct vcpu_pace pace;
	uint64_t now_ns = 5 * NS_PER_S, writes = 0, end_ns = now_ns + 10 * NS_PER_S;

	vcpu_pace_init(&pace, 100, rate, 4000);
	assert_int_equal(vcpu_pace_due_ns(&pace), 0);
	*verified = 0;
	while (now_ns < end_ns) {
		uint32_t batch = vcpu_pace_batch(&pace, now_ns);

		writes += batch & 0xffff;
		*verified += batch >> 16;
		assert_true((batch & 0xffff) <= 16384 && batch >> 16 <= 512);
		now_ns += step_ns;
		if (now_ns < vcpu_pace_due_ns(&pace))
			now_ns = vcpu_pace_due_ns(&pace);
	}
	return writes;
}

static void test_rate_is_kept(void **state)
{
	static const uint64_t rates[] = { 1, 7, 1000, 12345, 1000000 };
	uint64_t verified;

	(void)state;
	for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		uint64_t writes = writes_in_10s(rates[i], 100, &verified);

		assert_in_range(writes, rates[i] * 9.9 - 1, rates[i] * 10);
		assert_in_range(verified, 19800, 20020); /* all 4,000 in 2 s */
		writes = writes_in_10s(rates[i] > 12345 ? 12345 : rates[i], 20 * NS_PER_MS,
				       &verified);
		assert_in_range(writes, (rates[i] > 12345 ? 12345 : rates[i]) * 9.8 - 1,
				rates[i] * 10);
	}
}

static void test_lost_time_is_forgotten(void **state)
{
	struct vcpu_pace pace;

	(void)state;
	vcpu_pace_init(&pace, 100, 1000, 4000);
	(void)vcpu_pace_batch(&pace, NS_PER_S);
	assert_int_equal(vcpu_pace_batch(&pace, 100 * NS_PER_S) & 0xffff, 50);
}

static void test_idle_and_flat_out(void **state)
{
	struct vcpu_pace pace;

	(void)state;
	vcpu_pace_init(&pace, 0, 0, 4000);
	(void)vcpu_pace_batch(&pace, NS_PER_S);
	assert_int_equal(vcpu_pace_batch(&pace, 2 * NS_PER_S) & 0xffff, 0);
	vcpu_pace_init(&pace, 100, 0, 4000);
	assert_true((vcpu_pace_batch(&pace, NS_PER_S) & 0xffff) > 0);
	assert_int_equal(vcpu_pace_due_ns(&pace), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate_is_kept),
		cmocka_unit_test(test_lost_time_is_forgotten),
		cmocka_unit_test(test_idle_and_flat_out),
	};

	return cmocka_run_group_tests_name("vcpu_pace", tests, NULL, NULL);
}
