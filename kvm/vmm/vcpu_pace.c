/* SPDX-License-Identifier: Apache-2.0 */
/* Rates to batches; see the header. Each batch is bounded, so that a slow CPU is not drowned. */
#include "kvm/vmm/vcpu_pace.h"

#include "core/clock.h"

#define PERIOD_NS	  (2 * NS_PER_MS)
#define CATCH_UP_NS	  (50 * NS_PER_MS) /* more lost time than this is forgotten */
#define SWEEP_SECONDS	  2u
#define MOST_WRITES	  16384u
#define MOST_VERIFIES	  512u
#define FLAT_OUT_WRITES	  512u
#define FLAT_OUT_VERIFIES 32u
#define MOST_PER_SECOND	  100000000ull /* keeps products in 64 bits */

void vcpu_pace_init(struct vcpu_pace *pace, uint64_t hot_pages, uint64_t pages_per_second,
		    uint64_t all_pages)
{
	*pace = (struct vcpu_pace){
		.flat_out = hot_pages && !pages_per_second,
		.writes_per_second = !hot_pages				  ? 0
				     : pages_per_second < MOST_PER_SECOND ? pages_per_second
									  : MOST_PER_SECOND,
		.verifies_per_second = all_pages / SWEEP_SECONDS + 1,
	};
	if (pace->verifies_per_second > MOST_PER_SECOND)
		pace->verifies_per_second = MOST_PER_SECOND;
}

uint64_t vcpu_pace_due_ns(const struct vcpu_pace *pace)
{
	return pace->flat_out || !pace->last_ns ? 0 : pace->last_ns + PERIOD_NS;
}

/* Whole pages out of a credit that has grown for a while; never more than `most`. */
static uint32_t spend(uint64_t *credit, uint64_t per_second, uint64_t elapsed_ns, uint32_t most)
{
	uint64_t pages;

	*credit += per_second * elapsed_ns;
	pages = *credit / NS_PER_S;
	*credit %= NS_PER_S;
	return pages < most ? (uint32_t)pages : most;
}

uint32_t vcpu_pace_batch(struct vcpu_pace *pace, uint64_t now_ns)
{
	uint64_t elapsed_ns = pace->last_ns ? now_ns - pace->last_ns : 0;
	uint32_t writes, verifies;

	if (pace->flat_out)
		return FLAT_OUT_WRITES | FLAT_OUT_VERIFIES << 16;
	if (elapsed_ns > CATCH_UP_NS)
		elapsed_ns = CATCH_UP_NS;
	pace->last_ns = now_ns;
	writes = spend(&pace->write_credit, pace->writes_per_second, elapsed_ns, MOST_WRITES);
	verifies =
		spend(&pace->verify_credit, pace->verifies_per_second, elapsed_ns, MOST_VERIFIES);
	return writes | verifies << 16;
}
