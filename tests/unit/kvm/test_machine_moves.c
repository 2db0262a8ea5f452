/* SPDX-License-Identifier: Apache-2.0 */
/* State from one machine to another on the real /dev/kvm, and that the guest sees any damage. */
#include "machine_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "kvm/vmm/guest/layout.h"
#include "kvm/vmm/machine_description.h"
#include "kvm/vmm/machine_private.h"

#define MSR_MTRR_DEF_TYPE 0x2ffu

/* A machine at `to` like the one at `from`, without its memory and state. */
static void create_like(struct machine_place *from, struct machine_place *to)
{
	unsigned n_regions;
	const struct ramlift_region *source;
	struct ramlift_region offered[RAMLIFT_MAX_REGIONS] = { 0 };
	struct ramlift_region made[RAMLIFT_MAX_REGIONS] = { 0 };
	struct ramlift_guest_offer offer = { .name = "moved", .regions = offered };
	void *description;

	source = machine_regions(from->machine, &n_regions);
	for (unsigned i = 0; i < n_regions; i++) {
		offered[i].gpa = made[i].gpa = source[i].gpa;
		offered[i].size_bytes = made[i].size_bytes = source[i].size_bytes;
		offered[i].page_size_bytes = made[i].page_size_bytes = source[i].page_size_bytes;
	}
	assert_ok(machine_describe(from->machine, &description, &offer.machine_bytes, &error));
	assert_true(offer.machine_bytes <= 65536);
	offer.machine = description;
	offer.n_regions = n_regions;
	assert_ok(machine_guest_ops.create(to, &offer, made, &error));
	assert_int_equal(machine_guest_ops.create(to, &offer, made, &error), -EEXIST);
	free(description);
}

static void copy_memory(struct machine_place *from, struct machine_place *to)
{
	unsigned n_source, n_made;
	const struct ramlift_region *source = machine_regions(from->machine, &n_source);
	const struct ramlift_region *made = machine_regions(to->machine, &n_made);

	assert_int_equal(n_source, n_made);
	for (unsigned i = 0; i < n_source; i++)
		memcpy(made[i].hva, source[i].hva, source[i].size_bytes);
}

static void copy_state(struct machine_place *from, struct machine_place *to)
{
	size_t state_bytes;
	void *state;

	assert_ok(machine_guest_ops.save_state(from, &state, &state_bytes, &error));
	assert_true(state_bytes <= 16 * MIB);
	assert_ok(machine_guest_ops.load_state(to, state, state_bytes, &error));
	free(state);
}

/* The machine's own part of a migration, without an engine: what moves RAM here is memcpy(). */
static void move(struct machine_place *from, struct machine_place *to)
{
	create_like(from, to);
	assert_ok(machine_guest_ops.pause(from, &error));
	copy_memory(from, to);
	copy_state(from, to);
}

static void test_state_moves(void **state)
{
	struct machine_place from = { 0 }, to = { 0 };
	struct machine_report before, after;
	struct machine_config config;

	(void)state;
	for (unsigned mode = MACHINE_DIRTY_RING; mode <= MACHINE_DIRTY_LOG; mode++) {
		if (mode == MACHINE_DIRTY_RING && no_rings())
			continue;
		config_usual(&config, (enum machine_dirty_mode)mode);
		assert_ok(machine_new(&config, &from.machine, &error));
		assert_ok(machine_resume(from.machine, &error));
		wait_sweeps(from.machine, 1);
		for (unsigned hop = 0; hop < 4; hop++) {
			move(&from, &to);
			before = report_of(from.machine);
			after = report_of(to.machine);
			assert_false(after.running);
			assert_int_equal(after.pages_written, before.pages_written);
			assert_int_equal(after.pages_verified, before.pages_verified);
			machine_guest_ops.discard(&from);
			assert_null(from.machine);
			assert_ok(machine_guest_ops.resume(&to, &error));
			wait_written(to.machine, 1000);
			wait_sweeps(to.machine, 1);
			assert_true(report_of(to.machine).sweeps > before.sweeps);
			assert_healthy(to.machine);
			from = to;
			to = (struct machine_place){ 0 };
		}
		machine_guest_ops.discard(&from);
	}
}

/* The value of an MSR in a state: this is how KVM lays out its entries. */
static void *msr_in(void *state, size_t state_bytes, uint32_t index)
{
	const uint32_t head[2] = { index, 0 };

	for (size_t at = 0; at + 2 * sizeof(head) <= state_bytes; at += sizeof(index)) {
		if (!memcmp((uint8_t *)state + at, head, sizeof(head)))
			return (uint8_t *)state + at + sizeof(head);
	}
	fail_msg("MSR 0x%x is not in the state", index);
	return NULL;
}

/* MSRs that KVM does not list move as well; one that it refuses ends the load with its index. */
static void test_msrs(void **unused)
{
	static const uint64_t on = 0xc06, wrong = UINT64_MAX;
	struct machine_place from = { 0 }, to = { 0 };
	struct machine_config config;
	size_t state_bytes;
	void *state;

	(void)unused;
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.n_vcpus = 1;
	assert_ok(machine_new(&config, &from.machine, &error));
	create_like(&from, &to);
	assert_ok(machine_guest_ops.save_state(&from, &state, &state_bytes, &error));
	memcpy(msr_in(state, state_bytes, MSR_MTRR_DEF_TYPE), &on, sizeof(on));
	assert_ok(machine_guest_ops.load_state(&to, state, state_bytes, &error));
	free(state);
	assert_ok(machine_guest_ops.save_state(&to, &state, &state_bytes, &error));
	assert_memory_equal(msr_in(state, state_bytes, MSR_MTRR_DEF_TYPE), &on, sizeof(on));
	memcpy(msr_in(state, state_bytes, MSR_MTRR_DEF_TYPE), &wrong, sizeof(wrong));
	assert_int_equal(machine_guest_ops.load_state(&to, state, state_bytes, &error), -EINVAL);
	assert_non_null(strstr(error.text, "MSR 0x2ff"));
	free(state);
	machine_guest_ops.discard(&from);
	machine_guest_ops.discard(&to);
}

/* A host that can neither run nor scale to the guest's TSC frequency
 * says so before memory moves. */
static void test_tsc_frequency(void **unused)
{
	static const unsigned per_mille[] = { 1000, 995, 500 };
	struct machine_description *description = calloc(1, sizeof(*description));
	struct ramlift_region made[RAMLIFT_MAX_REGIONS] = { 0 };
	struct machine_place from = { 0 }, to = { 0 };
	struct ramlift_guest_offer offer = { .name = "moved" };
	struct machine_config config;
	void *bytes;

	(void)unused;
	assert_non_null(description);
	config_usual(&config, MACHINE_DIRTY_LOG);
	assert_ok(machine_new(&config, &from.machine, &error));
	offer.regions = machine_regions(from.machine, &offer.n_regions);
	for (unsigned i = 0; i < 3; i++) {
		int ret;

		assert_ok(machine_describe(from.machine, &bytes, &offer.machine_bytes, &error));
		assert_ok(machine_description_decode(bytes, offer.machine_bytes, description,
						     &error));
		free(bytes);
		description->tsc_khz = description->tsc_khz / 1000 * per_mille[i];
		assert_int_equal(
			machine_description_encode(description, &bytes, &offer.machine_bytes), 0);
		offer.machine = bytes;
		ret = machine_guest_ops.create(&to, &offer, made, &error);
		free(bytes);
		if (per_mille[i] < 990 && ret == -EINVAL)
			assert_non_null(strstr(error.text, "kHz"));
		else /* near enough, or this CPU scales */
			assert_int_equal(ret, 0);
		machine_guest_ops.discard(&to);
	}
	machine_guest_ops.discard(&from);
	free(description);
}

/* Memory that is split over nodes is split in the same way at the destination, on the nodes that
 * the map says; a map to nowhere is refused, and nodes that are not here are left open. */
static void test_numa_nodes(void **unused)
{
	struct machine_place from = { 0 }, to = { 0 };
	struct ramlift_region made[RAMLIFT_MAX_REGIONS] = { 0 };
	struct ramlift_guest_offer offer = { .name = "moved" };
	const struct ramlift_region *regions;
	struct machine_config config;
	void *description;
	unsigned n;

	(void)unused;
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.n_numa_nodes = 2;
	config.numa_nodes[0] = some_numa_node();
	config.numa_nodes[1] = -1;
	if (config.numa_nodes[0] < 0)
		skip();
	assert_ok(machine_new(&config, &from.machine, &error));
	offer.regions = machine_regions(from.machine, &offer.n_regions);
	assert_int_equal(offer.n_regions, 2);
	assert_ok(machine_describe(from.machine, &description, &offer.machine_bytes, &error));
	offer.machine = description;

	to.numa_map = (struct machine_numa_map){ 1, { 0 }, { 1000 } };
	assert_int_equal(machine_guest_ops.create(&to, &offer, made, &error), -EINVAL);
	assert_non_null(strstr(error.text, "--numa-map leads to NUMA node 1000"));
	assert_null(to.machine);

	to.numa_map = (struct machine_numa_map){ 1, { -1 }, { config.numa_nodes[0] } };
	assert_ok(machine_guest_ops.create(&to, &offer, made, &error));
	regions = machine_regions(to.machine, &n);
	assert_int_equal(n, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(regions[i].numa_node, config.numa_nodes[0]);
		assert_int_equal(made[i].numa_node, config.numa_nodes[0]);
	}
	machine_guest_ops.discard(&to);
	free(description);

	from.machine->config.numa_nodes[1] = 999; /* a node of a larger source */
	assert_ok(machine_describe(from.machine, &description, &offer.machine_bytes, &error));
	offer.machine = description;
	to.numa_map.n = 0;
	assert_ok(machine_guest_ops.create(&to, &offer, made, &error));
	regions = machine_regions(to.machine, &n);
	assert_int_equal(regions[0].numa_node, config.numa_nodes[0]);
	assert_int_equal(regions[1].numa_node, -1);
	machine_guest_ops.discard(&to);
	machine_guest_ops.discard(&from);
	free(description);
}

/* Moved while it still stamps its pages for the first time. */
static void test_moves_early(void **state)
{
	struct machine_place from = { 0 }, to = { 0 };
	struct machine_config config;

	(void)state;
	config_usual(&config, MACHINE_DIRTY_LOG);
	config.memory_bytes = 256 * MIB;
	assert_ok(machine_new(&config, &from.machine, &error));
	assert_ok(machine_resume(from.machine, &error));
	wait_written(from.machine, 100);
	move(&from, &to);
	machine_guest_ops.discard(&from);
	assert_ok(machine_guest_ops.resume(&to, &error));
	wait_sweeps(to.machine, 1);
	assert_healthy(to.machine);
	machine_guest_ops.discard(&to);
}

/*
 * As if the last harvest had been lost: memory of one moment, registers of a later one. A guest
 * that is paused in the middle of its writes must see that too, whichever its next step is.
 */
static void test_lost_harvest_is_found(void **state)
{
	struct machine_place from, to;
	struct machine_config config;
	uint64_t until_ns, copied;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		from = to = (struct machine_place){ 0 };
		config_usual(&config, MACHINE_DIRTY_LOG);
		config.n_vcpus = 1;
		config.workload.hot_bytes = 20 * MIB;
		config.workload.pages_per_second = 0;
		assert_ok(machine_new(&config, &from.machine, &error));
		assert_ok(machine_resume(from.machine, &error));
		wait_sweeps(from.machine, 1);
		create_like(&from, &to);
		assert_ok(machine_guest_ops.pause(&from, &error));
		copied = report_of(from.machine).pages_written;
		copy_memory(&from, &to);
		assert_ok(machine_guest_ops.resume(&from, &error));
		wait_written(from.machine, 1);
		assert_ok(machine_guest_ops.pause(&from, &error));
		assert_true(report_of(from.machine).pages_written > copied);
		copy_state(&from, &to);
		assert_int_equal(report_of(to.machine).pages_written, copied);
		assert_ok(machine_guest_ops.resume(&to, &error));
		until_ns = clock_now_ns() + PATIENCE_NS;
		while (!report_of(to.machine).failures && clock_now_ns() < until_ns)
			clock_sleep_until(clock_now_ns() + NS_PER_MS);
		assert_true(report_of(to.machine).failures > 0);
		machine_guest_ops.discard(&from);
		machine_guest_ops.discard(&to);
	}
}

static uint8_t *stamped_page(struct machine *machine, uint64_t number)
{
	uint64_t n_pages = machine_config(machine)->memory_bytes / 4096;
	unsigned n_regions;
	const struct ramlift_region *regions = machine_regions(machine, &n_regions);

	return (uint8_t *)regions[0].hva + (guest_first_page(n_pages) + number) * 4096;
}

/* Damage some memory of a paused guest and expect that it tells. */
static void expect_failure(void (*damage)(struct machine *machine), const char *words)
{
	uint64_t until_ns = clock_now_ns() + PATIENCE_NS;
	struct machine_config config;
	struct machine *machine;

	config_usual(&config, MACHINE_DIRTY_LOG);
	config.workload.hot_bytes = 1 * MIB;
	assert_ok(machine_new(&config, &machine, &error));
	assert_ok(machine_resume(machine, &error));
	wait_sweeps(machine, 1);
	assert_healthy(machine);
	assert_ok(machine_pause(machine, &error));
	damage(machine);
	assert_ok(machine_resume(machine, &error));
	while (!report_of(machine).failures && clock_now_ns() < until_ns)
		clock_sleep_until(clock_now_ns() + NS_PER_MS);
	assert_true(report_of(machine).failures > 0);
	print_message("%s\n", report_of(machine).first_failure);
	assert_non_null(strstr(report_of(machine).first_failure, words));
	machine_free(machine);
}

static void lose_page(struct machine *machine)
{
	memset(stamped_page(machine, 1000), 0, 4096);
}

static void tear_page(struct machine *machine)
{
	memcpy(stamped_page(machine, 1000) + 2048, stamped_page(machine, 1001) + 2048, 2048);
}

static void tear_last_line(struct machine *machine)
{
	stamped_page(machine, 1000)[63 * 64] ^= 1;
}

/* As if an older copy had won: stamp and checksum are right, but for the generation. */
static void stale_table(struct machine *machine)
{
	unsigned n_regions;
	const struct ramlift_region *regions = machine_regions(machine, &n_regions);
	uint64_t page = guest_first_page(32 * MIB / 4096) + 1000;

	((uint32_t *)((uint8_t *)regions[0].hva + GUEST_TABLE_GPA))[page]--;
}

static void stale_report(struct machine *machine)
{
	unsigned n_regions;
	const struct ramlift_region *regions = machine_regions(machine, &n_regions);
	struct guest_report *report =
		(struct guest_report *)((uint8_t *)regions[0].hva + GUEST_REPORTS_GPA);

	report->pages_written -= 7;
}

static void wreck_program(struct machine *machine)
{
	unsigned n_regions;
	const struct ramlift_region *regions = machine_regions(machine, &n_regions);

	memset((uint8_t *)regions[0].hva + GUEST_PROGRAM_GPA, 0xff, GUEST_PROGRAM_BYTES);
}

static void test_damage_is_found(void **state)
{
	(void)state;
	expect_failure(lose_page, "found 0x0");
	expect_failure(tear_page, "word 256");
	expect_failure(tear_last_line, "word 504");
	expect_failure(stale_table, "page 1");
	expect_failure(stale_report, "register counted");
	expect_failure(wreck_program, "stopped");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_state_moves),
		cmocka_unit_test(test_msrs),
		cmocka_unit_test(test_tsc_frequency),
		cmocka_unit_test(test_numa_nodes),
		cmocka_unit_test(test_moves_early),
		cmocka_unit_test(test_lost_harvest_is_found),
		cmocka_unit_test(test_damage_is_found),
	};

	return run_on_kvm("machine_moves", tests);
}
