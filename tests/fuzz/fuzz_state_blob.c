/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's state from the peer. The first byte is the number of vCPUs that the guest has; by the
 * second the rest is the state itself, or a list of sections to make one of. What is taken has all
 * its sections inside the bytes, complete, and not over each other.
 */
#include <errno.h>

#include "core/ramlift.h"
#include "kvm/state_blob.h"
#include "tests/fuzz/fuzz.h"

static size_t check_section(const struct state_section *section, const uint8_t *state, size_t size)
{
	if (!section->bytes)
		return 0;
	CHECK(section->bytes >= state && section->bytes <= state + size);
	CHECK(section->length <= (size_t)(state + size - section->bytes));
	return section->length;
}

static void check_view(const struct state_view *view, unsigned n_vcpus, const uint8_t *state,
		       size_t size)
{
	static const enum state_kind required[] = { STATE_MP_STATE, STATE_REGS,	  STATE_XSAVE,
						    STATE_MSRS,	    STATE_EVENTS, STATE_DEBUGREGS };
	size_t total = check_section(&view->clock, state, size);

	CHECK(view->n_vcpus == n_vcpus);
	for (unsigned i = 0; i < n_vcpus; i++) {
		const struct state_section *sections = view->vcpus[i].sections;

		for (unsigned kind = 0; kind < STATE_KIND_COUNT; kind++)
			total += check_section(&sections[kind], state, size);
		for (unsigned r = 0; r < sizeof(required) / sizeof(required[0]); r++)
			CHECK(sections[required[r]].bytes);
		CHECK(!sections[STATE_SREGS].bytes != !sections[STATE_SREGS2].bytes);
	}
	CHECK(total <= size);
}

static void try_state(const uint8_t *state, size_t size, unsigned n_vcpus)
{
	struct ramlift_error error = { 0 };
	struct state_view view;
	int ret = state_view_init(&view, state, size, n_vcpus, &error);

	if (ret) {
		CHECK(ret == -EINVAL && error.code == ret && error.text[0]);
		return;
	}
	check_view(&view, n_vcpus, state, size);
	state_view_fini(&view);
}

/* Sections that are well-formed one by one, in any number, order and length: kind, vCPU, length. */
static void try_sections(const uint8_t *data, size_t size, unsigned n_vcpus)
{
	static const uint8_t zeros[65536];
	struct state_writer writer;
	size_t state_bytes;
	void *state;

	state_writer_init(&writer, n_vcpus);
	for (unsigned i = 0; size >= 4 && i < 256; i++, data += 4, size -= 4)
		state_writer_add(&writer, data[0] % (STATE_KIND_COUNT + 1), data[1], zeros,
				 data[2] * 256u + data[3]);
	if (!state_writer_finish(&writer, &state, &state_bytes)) {
		try_state(state, state_bytes, n_vcpus);
		free(state);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *state;

	if (size < 2)
		return 0;
	if (data[1] % 2) {
		try_sections(data + 2, size - 2, data[0]);
		return 0;
	}
	state = malloc(size - 2 ? size - 2 : 1); /* of its own: bounds are bounds */
	CHECK(state);
	memcpy(state, data + 2, size - 2);
	try_state(state, size - 2, data[0]);
	free(state);
	return 0;
}
