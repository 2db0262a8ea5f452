/* SPDX-License-Identifier: Apache-2.0 */
#include "lanes_rig.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/cmocka_all.h"

const uint64_t rig_region_pages[RIG_REGIONS] = { RIG_PAGES_0, RIG_PAGES_1, RIG_PAGES_2 };
struct rig_seen seen;
static struct ramlift_transport wrapped;

static void record(unsigned lane, const struct transport_write *write)
{
	const struct ram *ram = &seen.rig->ram;
	const struct slice *slice = &ram->slices[write->slice];
	unsigned region = ram_region_of_slice(ram, write->slice);
	uint64_t first;

	if (!write->length_bytes || write->length_bytes > TRANSPORT_MAX_WRITE_BYTES ||
	    write->offset_bytes + write->length_bytes > slice->size_bytes) {
		atomic_fetch_add(&seen.outside, 1);
		return;
	}
	first = ram->first_stripe[region] * STRIPE_PAGES +
		((write->slice - ram->first_slice[region]) * RIG_SLICE_BYTES +
		 write->offset_bytes) /
			PAGE;
	for (uint64_t p = first; p < first + write->length_bytes / PAGE; p++) {
		unsigned char nobody = 0;

		if (atomic_compare_exchange_strong(&seen.owner[p], &nobody, lane + 1) ||
		    nobody == lane + 1)
			continue;
		if (!atomic_load(&seen.fenced[nobody - 1]))
			atomic_fetch_add(&seen.on_two_lanes, 1);
		atomic_store(&seen.owner[p], lane + 1);
	}
}

static int wrapped_post(struct endpoint *endpoint, unsigned lane,
			const struct transport_write *writes, unsigned n_writes,
			struct ramlift_error *error)
{
	atomic_fetch_add(&seen.posts, 1);
	if (atomic_load(&seen.has_token[lane]))
		atomic_fetch_add(&seen.after_token, 1);
	if (!n_writes || n_writes > TRANSPORT_MAX_BATCH)
		atomic_fetch_add(&seen.outside, 1);
	for (unsigned i = 0; i < n_writes; i++)
		record(lane, &writes[i]);
	while (atomic_load(&seen.block) && !atomic_load(&seen.aborted))
		usleep(1000);
	if (seen.fail_silently)
		return seen.fail_silently;
	return memory_transport()->post(endpoint, lane, writes, n_writes, error);
}

static int wrapped_register(struct endpoint *endpoint, unsigned slice, unsigned rails,
			    struct slice_key *key, struct ramlift_error *error)
{
	while (atomic_load(&seen.block_registering))
		usleep(1000);
	return memory_transport()->register_slice(endpoint, slice, rails, key, error);
}

static int wrapped_token(struct endpoint *endpoint, unsigned lane, uint64_t token,
			 struct ramlift_error *error)
{
	atomic_store(&seen.has_token[lane], true);
	atomic_fetch_add(&seen.tokens, 1);
	return memory_transport()->token(endpoint, lane, token, error);
}

static void wrapped_abort(struct endpoint *endpoint)
{
	atomic_store(&seen.aborted, true);
	memory_transport()->abort(endpoint);
}

#ifdef __SANITIZE_THREAD__
/* A guest that writes while its pages are read, and a page that is looked at while it lands: races
 * that live migration is made of. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:rig_write\nrace:deliver_first\n";
}
#endif

static void map_regions(struct ramlift_region *regions)
{
	for (unsigned i = 0; i < RIG_REGIONS; i++) {
		regions[i] = (struct ramlift_region){ .gpa = (uint64_t)i << 32,
						      .size_bytes = rig_region_pages[i] * PAGE,
						      .memfd = -1,
						      .numa_node = -1 };
		regions[i].hva = mmap(NULL, regions[i].size_bytes, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_ptr_not_equal(regions[i].hva, MAP_FAILED);
	}
}

static struct transport_params params_of(const struct rig *rig, const struct ram *ram)
{
	return (struct transport_params){
		.session_id = "lanes",
		.n_rails = rig->n_rails,
		.n_lanes = rig->n_lanes,
		.slices = ram->slices,
		.n_slices = ram->n_slices,
		.interrupt_fd = -1,
		.io_timeout_ns = 60 * NS_PER_S,
	};
}

void rig_init(struct rig *rig, unsigned n_lanes)
{
	rig_init_with_rails(rig, 1, n_lanes, (unsigned[RIG_REGIONS]){ 1, 1, 1 });
}

void rig_init_with_rails(struct rig *rig, unsigned n_rails, unsigned n_lanes,
			 const unsigned region_rails[RIG_REGIONS])
{
	const struct ramlift_transport *memory = memory_transport();
	struct sockaddr_storage addresses[RAMLIFT_MAX_RAILS];
	struct transport_params params;

	memset(rig, 0, sizeof(*rig));
	memset(&seen, 0, sizeof(seen));
	seen.rig = rig;
	wrapped = *memory;
	wrapped.post = wrapped_post;
	wrapped.register_slice = wrapped_register;
	wrapped.token = wrapped_token;
	wrapped.abort = wrapped_abort;
	map_regions(rig->source);
	map_regions(rig->destination);
	assert_int_equal(ram_init(&rig->ram, rig->source, RIG_REGIONS, RIG_SLICE_BYTES), 0);
	assert_int_equal(ram_init(&rig->there, rig->destination, RIG_REGIONS, RIG_SLICE_BYTES), 0);
	assert_int_equal(rig->ram.n_stripes, RIG_STRIPES);
	assert_int_equal(dirty_set_init(&rig->set, &rig->ram), 0);
	rig->n_rails = n_rails;
	rig->n_lanes = n_lanes;
	memcpy(rig->region_rails, region_rails, sizeof(rig->region_rails));
	params = params_of(rig, &rig->there);
	assert_int_equal(memory->listen(&params, NULL, &rig->to, addresses, NULL), 0);
	params = params_of(rig, &rig->ram);
	assert_int_equal(memory->connect(&params, NULL, LONG_NS, &rig->from, NULL), 0);
}

static void wake(void *context)
{
	struct rig *rig = ((struct far_side *)context)->context;

	lanes_wake(rig->lanes);
}

void rig_start(struct rig *rig, const struct lanes_config *extra)
{
	struct pins_config pins = {
		.ram = &rig->ram,
		.transport = &wrapped,
		.endpoint = rig->from,
		.region_rails = rig->region_rails,
		.n_threads = 2,
		.budget_bytes = rig->budget_bytes,
		.ask = far_side_ask,
		.retire = far_side_retire,
		.usable = wake,
		.context = &rig->far,
	};
	struct lanes_config config = *extra;

	far_side_start(&rig->far, rig->from, rig->to);
	rig->far.context = rig;
	assert_int_equal(pins_start(&pins, &rig->pins, NULL), 0);
	rig->far.pins = rig->pins;
	config.ram = &rig->ram;
	config.set = &rig->set;
	config.pins = rig->pins;
	config.transport = &wrapped;
	config.endpoint = rig->from;
	config.n_rails = rig->n_rails;
	config.n_lanes = rig->n_lanes;
	config.region_rails = rig->region_rails;
	/* No slice is usable before there are lanes to be woken. */
	far_side_hold(&rig->far, true);
	assert_int_equal(lanes_start(&config, &rig->lanes, NULL), 0);
	far_side_hold(&rig->far, rig->far_is_silent);
}

void rig_fini(struct rig *rig)
{
	atomic_store(&seen.block_registering, false);
	if (rig->lanes) {
		lanes_stop(rig->lanes);
		far_side_stop(&rig->far);
		pins_free(rig->pins);
		lanes_free(rig->lanes);
	}
	memory_transport()->close(rig->from);
	memory_transport()->close(rig->to);
	dirty_set_fini(&rig->set);
	ram_fini(&rig->ram);
	ram_fini(&rig->there);
	for (unsigned i = 0; i < RIG_REGIONS; i++) {
		munmap(rig->source[i].hva, rig->source[i].size_bytes);
		munmap(rig->destination[i].hva, rig->destination[i].size_bytes);
	}
	memory_transport_set_faults(NULL);
	assert_int_equal(memory_transport_open_endpoints(), 0);
	assert_int_equal(atomic_load(&seen.on_two_lanes), 0);
	assert_int_equal(atomic_load(&seen.outside), 0);
	assert_int_equal(atomic_load(&seen.after_token), 0);
}

void rig_write(struct rig *rig, unsigned region, uint64_t page, unsigned value)
{
	memset((char *)rig->source[region].hva + page * PAGE, (int)value, PAGE);
}

void rig_fill(struct rig *rig)
{
	for (unsigned i = 0; i < RIG_REGIONS; i++) {
		for (uint64_t page = 0; page < rig_region_pages[i]; page++)
			rig_write(rig, i, page, 1 + (unsigned)page % 255);
	}
	dirty_set_mark_present(&rig->set, false);
}

void rig_dirty_all(struct rig *rig)
{
	memset(rig->source[2].hva, 0x33, rig->source[2].size_bytes);
	dirty_set_mark_present(&rig->set, false);
}

void rig_write_for_a_while(struct rig *rig, unsigned n_writes)
{
	uint64_t random = 0x2545f4914f6cdd1dull + rig->n_lanes;

	for (unsigned i = 0; i < n_writes; i++) {
		unsigned region;
		uint64_t page;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		region = (unsigned)(random >> 50) % RIG_REGIONS;
		page = (random >> 8) % rig_region_pages[region] >> random % 7;
		rig_write(rig, region, page, (unsigned)(random >> 3) | 1);
		ramlift_dirty_mark(&rig->set, region, page, 1);
		if (i % 100 == 99) {
			dirty_set_fold(&rig->set);
			lanes_wake(rig->lanes);
			if (rig->replaces)
				assert_int_equal(rig_replace(rig, NULL), 0);
		}
	}
	dirty_set_fold(&rig->set);
}

void rig_await_lost(struct rig *rig, unsigned n)
{
	uint64_t end_ns = LONG_NS;
	unsigned lost;

	do {
		lost = 0;
		for (unsigned i = 0; i < rig->n_lanes; i++)
			lost += lanes_loss(rig->lanes, i, NULL) != 0;
		usleep(1000);
		assert_true(clock_now_ns() < end_ns);
	} while (lost < n);
}

int rig_replace(struct rig *rig, struct ramlift_error *error)
{
	uint64_t lost = lanes_lost(rig->lanes);
	int ret = 0;

	for (unsigned lane; !ret && bit_next(&lost, &lane);) {
		memory_transport()->drop_lane(rig->from, lane);
		assert_int_equal(memory_transport()->fence_lane(rig->to, lane, NULL), 0);
		atomic_store(&seen.fenced[lane], true);
		ret = lanes_adopt(rig->lanes, lane, error);
	}
	return ret;
}

void rig_tell_finish(struct rig *rig)
{
	for (unsigned i = 0; i < rig->n_lanes; i++)
		rig->tokens[i] = RIG_TOKEN + i;
	lanes_finish(rig->lanes, rig->tokens);
}

void rig_assert_same_memory(const struct rig *rig)
{
	for (unsigned i = 0; i < RIG_REGIONS; i++)
		assert_memory_equal(rig->source[i].hva, rig->destination[i].hva,
				    rig->source[i].size_bytes);
}

void rig_finish(struct rig *rig)
{
	struct ramlift_error error = { 0 };
	unsigned n_lost = 0;

	rig_tell_finish(rig);
	for (unsigned i = 0; i < rig->n_lanes; i++) {
		n_lost += lanes_loss(rig->lanes, i, NULL) != 0;
		assert_int_equal(!rig->tokens[i], lanes_loss(rig->lanes, i, NULL) != 0);
	}
	if (lanes_wait(rig->lanes, LONG_NS, &error))
		fail_msg("%s", error.text);
	assert_int_equal(lanes_check(rig->lanes, &error), 0);
	assert_int_equal(pins_check(rig->pins, 60 * NS_PER_S, &error), 0);
	assert_int_equal(atomic_load(&seen.tokens), rig->n_lanes - n_lost);
	assert_int_equal(memory_transport()->await_tokens(rig->to, rig->tokens, LONG_NS, NULL), 0);
	assert_int_equal(dirty_bitmap_count(&rig->set.dirty), 0);
	assert_int_equal(lanes_in_flight_bytes(rig->lanes), 0);
	assert_int_equal(lanes_done_bytes(rig->lanes), dirty_set_added_bytes(&rig->set));
	rig_assert_same_memory(rig);
}

void rig_sum_stats(struct rig *rig, struct ramlift_lane_stats *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < rig->n_lanes; i++) {
		struct ramlift_lane_stats stats;

		lanes_stats(rig->lanes, i, &stats);
		sum->bytes_sent += stats.bytes_sent;
		sum->writes += stats.writes;
		sum->zero_pages += stats.zero_pages;
	}
}
