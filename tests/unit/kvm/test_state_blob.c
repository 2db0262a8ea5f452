/* SPDX-License-Identifier: Apache-2.0 */
/* The state's format: what is written is read, and no damaged state gets further than it should. */
#include "unit.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "core/ramlift.h"
#include "kvm/state_blob.h"

#define VCPUS 3u

static const struct {
	enum state_kind kind;
	size_t length;
} parts[] = {
	{ STATE_MP_STATE, sizeof(struct kvm_mp_state) },
	{ STATE_REGS, sizeof(struct kvm_regs) },
	{ STATE_SREGS2, sizeof(struct kvm_sregs2) },
	{ STATE_XSAVE, sizeof(struct kvm_xsave) },
	{ STATE_MSRS, 5 * sizeof(struct kvm_msr_entry) },
	{ STATE_EVENTS, sizeof(struct kvm_vcpu_events) },
	{ STATE_DEBUGREGS, sizeof(struct kvm_debugregs) },
	{ STATE_LAPIC, sizeof(struct kvm_lapic_state) },
};

#define N_PARTS (sizeof(parts) / sizeof(parts[0]))

/* All parts but one, and one of them twice; N_PARTS: none. */
static void make(void **state, size_t *bytes, size_t without, size_t twice)
{
	struct kvm_clock_data clock = { .clock = 12345 };
	uint8_t content[sizeof(struct kvm_xsave)];
	struct state_writer writer;

	state_writer_init(&writer, VCPUS);
	state_writer_add(&writer, STATE_CLOCK, 0, &clock, sizeof(clock));
	for (unsigned vcpu = 0; vcpu < VCPUS; vcpu++) {
		for (size_t i = 0; i < N_PARTS; i++) {
			memset(content, (int)(vcpu * 16 + i + 1), sizeof(content));
			for (unsigned n = (i != without) + (i == twice); n; n--)
				state_writer_add(&writer, parts[i].kind, vcpu, content,
						 parts[i].length);
		}
	}
	assert_int_equal(state_writer_finish(&writer, state, bytes), 0);
}

static void test_round_trip(void **unused)
{
	struct kvm_clock_data clock;
	struct state_view view;
	void *state;
	size_t bytes;

	(void)unused;
	make(&state, &bytes, N_PARTS, N_PARTS);
	assert_int_equal(state_view_init(&view, state, bytes, VCPUS, NULL), 0);
	assert_int_equal(view.n_vcpus, VCPUS);
	memcpy(&clock, view.clock.bytes, sizeof(clock));
	assert_int_equal(clock.clock, 12345);
	for (unsigned vcpu = 0; vcpu < VCPUS; vcpu++) {
		for (size_t i = 0; i < N_PARTS; i++) {
			const struct state_section *section =
				&view.vcpus[vcpu].sections[parts[i].kind];

			assert_int_equal(section->length, parts[i].length);
			assert_int_equal(section->bytes[0], vcpu * 16 + i + 1);
			assert_int_equal(section->bytes[section->length - 1], vcpu * 16 + i + 1);
		}
		assert_null(view.vcpus[vcpu].sections[STATE_XCRS].bytes);
	}
	state_view_fini(&view);
	free(state);
}

/* An allocation of exactly these bytes, so that a sanitizer sees any read past its end. */
static int try(const void *state, size_t bytes, unsigned n_vcpus, struct ramlift_error *error)
{
	struct state_view view;
	void *copy = malloc(bytes ? bytes : 1);
	int ret;

	assert_non_null(copy);
	memcpy(copy, state, bytes);
	ret = state_view_init(&view, copy, bytes, n_vcpus, error);
	if (!ret)
		state_view_fini(&view);
	free(copy);
	return ret;
}

static void test_truncated(void **unused)
{
	struct ramlift_error error;
	void *state;
	size_t bytes;

	(void)unused;
	make(&state, &bytes, N_PARTS, N_PARTS);
	for (size_t length = 0; length < bytes; length++) {
		if (length >= 24) { /* so that more than the total length is checked */
			uint32_t total = (uint32_t)length;

			memcpy((uint8_t *)state + 20, &total, sizeof(total));
		}
		error.text[0] = '\0';
		assert_int_equal(try(state, length, VCPUS, &error), -EINVAL);
		assert_true(error.text[0] != '\0');
	}
	free(state);
}

/* Any bit may be wrong: the reader does not crash, and never takes another number of vCPUs. */
static void test_flipped_bits(void **unused)
{
	uint8_t *bytes_of;
	void *state;
	size_t bytes;

	(void)unused;
	make(&state, &bytes, N_PARTS, N_PARTS);
	bytes_of = state;
	for (size_t at = 0; at < bytes; at++) {
		if (at > 600 && at % 37)
			continue;
		for (unsigned bit = 0; bit < 8; bit++) {
			int ret;

			bytes_of[at] ^= 1u << bit;
			ret = try(state, bytes, VCPUS, NULL);
			assert_true(ret == 0 || ret == -EINVAL);
			assert_true(at >= 24 || ret == -EINVAL); /* the header has no spare bits */
			bytes_of[at] ^= 1u << bit;
		}
	}
	free(state);
}

static void test_random_bytes(void **unused)
{
	uint64_t random = 42;
	void *state;
	size_t bytes;

	(void)unused;
	make(&state, &bytes, N_PARTS, N_PARTS);
	for (unsigned i = 0; i < 2000; i++) {
		for (unsigned n = 0; n < 8; n++) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			((uint8_t *)state)[24 + (random >> 33) % (bytes - 24)] =
				(uint8_t)(random >> 24);
		}
		(void)try(state, bytes, VCPUS, NULL);
	}
	free(state);
}

static void test_missing_and_double_parts(void **unused)
{
	struct ramlift_error error;
	void *state;
	size_t bytes;

	(void)unused;
	for (size_t i = 0; i < N_PARTS; i++) {
		make(&state, &bytes, i, N_PARTS);
		assert_int_equal(try(state, bytes, VCPUS, &error),
				 parts[i].kind == STATE_LAPIC ? 0 : -EINVAL);
		free(state);
		make(&state, &bytes, N_PARTS, i);
		assert_int_equal(try(state, bytes, VCPUS, &error), -EINVAL);
		assert_non_null(strstr(error.text, "twice"));
		free(state);
	}
}

static void test_wrong_number_of_vcpus(void **unused)
{
	struct ramlift_error error;
	void *state;
	size_t bytes;

	(void)unused;
	make(&state, &bytes, N_PARTS, N_PARTS);
	assert_int_equal(try(state, bytes, VCPUS - 1, &error), -EINVAL);
	assert_int_equal(try(state, bytes, VCPUS + 1, &error), -EINVAL);
	assert_int_equal(try(state, bytes, 1u << 30, &error), -EINVAL);
	free(state);
}

/* Parts that were written apart make the same state as one writer; one that failed spoils it. */
static void test_joined_parts(void **unused)
{
	struct state_writer writer, part[2];
	void *state, *expected;
	size_t bytes, expected_bytes;

	(void)unused;
	state_writer_init(&writer, 2);
	for (unsigned vcpu = 0; vcpu < 2; vcpu++) {
		state_writer_add(&writer, STATE_REGS, vcpu, "registers", 9);
		state_writer_add(&writer, STATE_XSAVE, vcpu, "area", 4);
	}
	assert_int_equal(state_writer_finish(&writer, &expected, &expected_bytes), 0);
	for (int fail = 0; fail < 2; fail++) {
		state_writer_init(&writer, 2);
		for (unsigned vcpu = 0; vcpu < 2; vcpu++) {
			state_writer_init(&part[vcpu], 2);
			state_writer_add(&part[vcpu], STATE_REGS, vcpu, "registers", 9);
			state_writer_add(&part[vcpu], STATE_XSAVE, vcpu, "area", 4);
		}
		part[0].failed |= fail;
		for (unsigned vcpu = 0; vcpu < 2; vcpu++) {
			state_writer_join(&writer, &part[vcpu]);
			assert_null(part[vcpu].bytes);
		}
		assert_int_equal(state_writer_finish(&writer, &state, &bytes), fail ? -ENOMEM : 0);
	}
	assert_int_equal(bytes, expected_bytes);
	assert_memory_equal(state, expected, bytes);
	free(state);
	free(expected);
}

static void test_too_much_is_refused(void **unused)
{
	static uint8_t much[1 << 20];
	struct state_writer writer;
	void *state = NULL;
	size_t bytes;

	(void)unused;
	state_writer_init(&writer, 1);
	for (unsigned i = 0; i < 17; i++)
		state_writer_add(&writer, STATE_XSAVE, 0, much, sizeof(much));
	assert_int_equal(state_writer_finish(&writer, &state, &bytes), -ENOMEM);
	assert_null(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_random_bytes),
		cmocka_unit_test(test_missing_and_double_parts),
		cmocka_unit_test(test_wrong_number_of_vcpus),
		cmocka_unit_test(test_joined_parts),
		cmocka_unit_test(test_too_much_is_refused),
	};

	return cmocka_run_group_tests_name("state_blob", tests, NULL, NULL);
}
