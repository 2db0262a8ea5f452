/* SPDX-License-Identifier: Apache-2.0 */
/* The state's format, written and read; see the header. The reader trusts no byte. */
#include "kvm/state_blob.h"

#include <endian.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

#define STATE_MAGIC   0x4554415453464c52ull /* "RLFSTATE" */
#define STATE_VERSION 1u

struct header {
	uint64_t magic;
	uint32_t version;
	uint32_t n_vcpus;
	uint32_t n_sections;
	uint32_t total_bytes;
};

struct section_header {
	uint16_t kind;
	uint16_t vcpu;
	uint32_t length;
};

/* What a section of each kind may look like. */
static const struct kind_rule {
	const char *name;
	size_t least, most, multiple_of;
	bool of_vcpu, required;
} kind_rules[STATE_KIND_COUNT] = {
#define EXACTLY(type) .least = sizeof(type), .most = sizeof(type), .multiple_of = 1
	[STATE_CLOCK] = { "clock", EXACTLY(struct kvm_clock_data), .of_vcpu = false },
	[STATE_TSC_KHZ] = { "TSC frequency", EXACTLY(uint32_t), .of_vcpu = true },
	[STATE_MP_STATE] = { "MP state", EXACTLY(struct kvm_mp_state), .of_vcpu = true,
			     .required = true },
	[STATE_REGS] = { "registers", EXACTLY(struct kvm_regs), .of_vcpu = true, .required = true },
	[STATE_SREGS] = { "special registers", EXACTLY(struct kvm_sregs), .of_vcpu = true },
	[STATE_SREGS2] = { "special registers", EXACTLY(struct kvm_sregs2), .of_vcpu = true },
	[STATE_XSAVE] = { "XSAVE area", .least = sizeof(struct kvm_xsave), .most = 65536,
			  .multiple_of = 4, .of_vcpu = true, .required = true },
	[STATE_XCRS] = { "extended control registers", EXACTLY(struct kvm_xcrs), .of_vcpu = true },
	[STATE_MSRS] = { "MSRs", .least = 0, .most = 4096 * sizeof(struct kvm_msr_entry),
			 .multiple_of = sizeof(struct kvm_msr_entry), .of_vcpu = true,
			 .required = true },
	[STATE_LAPIC] = { "local APIC", EXACTLY(struct kvm_lapic_state), .of_vcpu = true },
	[STATE_EVENTS] = { "pending events", EXACTLY(struct kvm_vcpu_events), .of_vcpu = true,
			   .required = true },
	[STATE_DEBUGREGS] = { "debug registers", EXACTLY(struct kvm_debugregs), .of_vcpu = true,
			      .required = true },
#undef EXACTLY
};

static void append(struct state_writer *writer, const void *bytes, size_t length)
{
	if (writer->failed || length > STATE_MAX_BYTES - writer->used) {
		writer->failed = true;
		return;
	}
	if (writer->used + length > writer->room) {
		size_t room = 2 * (writer->used + length);
		uint8_t *larger = realloc(writer->bytes, room);

		if (!larger) {
			writer->failed = true;
			return;
		}
		writer->bytes = larger;
		writer->room = room;
	}
	if (length)
		memcpy(writer->bytes + writer->used, bytes, length);
	writer->used += length;
}

void state_writer_init(struct state_writer *writer, unsigned n_vcpus)
{
	struct header header = { 0 };

	*writer = (struct state_writer){ .n_vcpus = n_vcpus };
	append(writer, &header, sizeof(header)); /* filled in by state_writer_finish() */
}

void state_writer_add(struct state_writer *writer, enum state_kind kind, unsigned vcpu,
		      const void *bytes, size_t length)
{
	struct section_header section = {
		.kind = htole16((uint16_t)kind),
		.vcpu = htole16((uint16_t)vcpu),
		.length = htole32((uint32_t)length),
	};

	append(writer, &section, sizeof(section));
	append(writer, bytes, length);
	writer->n_sections++;
}

void state_writer_join(struct state_writer *writer, struct state_writer *part)
{
	writer->failed |= part->failed;
	if (!writer->failed) {
		append(writer, part->bytes + sizeof(struct header),
		       part->used - sizeof(struct header));
		writer->n_sections += part->n_sections;
	}
	state_writer_abandon(part);
}

int state_writer_finish(struct state_writer *writer, void **state, size_t *state_bytes)
{
	struct header header = {
		.magic = htole64(STATE_MAGIC),
		.version = htole32(STATE_VERSION),
		.n_vcpus = htole32(writer->n_vcpus),
		.n_sections = htole32(writer->n_sections),
		.total_bytes = htole32((uint32_t)writer->used),
	};

	if (writer->failed) {
		state_writer_abandon(writer);
		return -ENOMEM;
	}
	memcpy(writer->bytes, &header, sizeof(header));
	*state = writer->bytes;
	*state_bytes = writer->used;
	*writer = (struct state_writer){ 0 };
	return 0;
}

void state_writer_abandon(struct state_writer *writer)
{
	free(writer->bytes);
	*writer = (struct state_writer){ .failed = true };
}

/* Read the next section at *at and put it where it belongs. */
static int read_section(struct state_view *view, const uint8_t *state, size_t state_bytes,
			size_t *at, struct ramlift_error *error)
{
	const struct kind_rule *rule;
	struct state_section *place;
	struct section_header section;
	size_t length;
	unsigned kind, vcpu;

	if (state_bytes - *at < sizeof(section))
		return error_set(error, -EINVAL, "the guest's state ends inside a section");
	memcpy(&section, state + *at, sizeof(section));
	*at += sizeof(section);
	kind = le16toh(section.kind);
	vcpu = le16toh(section.vcpu);
	length = le32toh(section.length);

	if (kind >= STATE_KIND_COUNT)
		return error_set(
			error, -EINVAL,
			"the guest's state has a section of kind %u, which this version does "
			"not know",
			kind);
	rule = &kind_rules[kind];
	if (vcpu >= (rule->of_vcpu ? view->n_vcpus : 1))
		return error_set(error, -EINVAL,
				 "the guest's state has the %s of a vCPU %u: it has %u", rule->name,
				 vcpu, view->n_vcpus);
	if (length < rule->least || length > rule->most || length % rule->multiple_of)
		return error_set(error, -EINVAL, "the guest's state has %zu bytes of %s", length,
				 rule->name);
	if (state_bytes - *at < length)
		return error_set(error, -EINVAL, "the guest's state ends inside its %s",
				 rule->name);
	place = rule->of_vcpu ? &view->vcpus[vcpu].sections[kind] : &view->clock;
	if (place->bytes)
		return error_set(error, -EINVAL, "the guest's state has the %s of vCPU %u twice",
				 rule->name, vcpu);
	*place = (struct state_section){ state + *at, length };
	*at += length;
	return 0;
}

static int check_complete(const struct state_view *view, struct ramlift_error *error)
{
	for (unsigned vcpu = 0; vcpu < view->n_vcpus; vcpu++) {
		const struct state_section *sections = view->vcpus[vcpu].sections;

		for (unsigned kind = 0; kind < STATE_KIND_COUNT; kind++) {
			if (kind_rules[kind].required && !sections[kind].bytes)
				return error_set(error, -EINVAL,
						 "the guest's state lacks the %s of vCPU %u",
						 kind_rules[kind].name, vcpu);
		}
		if (!sections[STATE_SREGS].bytes == !sections[STATE_SREGS2].bytes)
			return error_set(
				error, -EINVAL,
				"the guest's state needs the special registers of vCPU %u once",
				vcpu);
	}
	return 0;
}

static int read_header(const void *state, size_t state_bytes, unsigned n_vcpus,
		       uint32_t *n_sections, struct ramlift_error *error)
{
	struct header header;

	if (state_bytes < sizeof(header) || state_bytes > STATE_MAX_BYTES)
		return error_set(error, -EINVAL, "the guest's state has %zu bytes, which cannot be",
				 state_bytes);
	memcpy(&header, state, sizeof(header));
	if (le64toh(header.magic) != STATE_MAGIC)
		return error_set(error, -EINVAL, "the guest's state is not one of this program");
	if (le32toh(header.version) != STATE_VERSION)
		return error_set(
			error, -EINVAL,
			"the guest's state has version %u, this side reads version %u: use the "
			"same release on both sides",
			le32toh(header.version), STATE_VERSION);
	if (le32toh(header.total_bytes) != state_bytes)
		return error_set(error, -EINVAL, "the guest's state has %zu bytes, it says %u",
				 state_bytes, le32toh(header.total_bytes));
	if (n_vcpus > STATE_MAX_VCPUS || le32toh(header.n_vcpus) != n_vcpus)
		return error_set(error, -EINVAL, "the state is of %u vCPUs, the guest has %u",
				 le32toh(header.n_vcpus), n_vcpus);
	*n_sections = le32toh(header.n_sections);
	return 0;
}

int state_view_init(struct state_view *view, const void *state, size_t state_bytes,
		    unsigned n_vcpus, struct ramlift_error *error)
{
	struct state_view made = { .n_vcpus = n_vcpus };
	size_t at = sizeof(struct header);
	uint32_t n_sections = 0;
	int ret = read_header(state, state_bytes, n_vcpus, &n_sections, error);

	if (ret)
		return ret;
	made.vcpus = calloc(n_vcpus ? n_vcpus : 1, sizeof(*made.vcpus));
	if (!made.vcpus)
		return error_set(error, -ENOMEM, "no memory for the guest's state");
	for (uint32_t i = 0; i < n_sections && !ret; i++)
		ret = read_section(&made, state, state_bytes, &at, error);
	if (!ret && at != state_bytes)
		ret = error_set(error, -EINVAL,
				"the guest's state has %zu bytes after its last section",
				state_bytes - at);
	if (!ret)
		ret = check_complete(&made, error);
	if (ret) {
		state_view_fini(&made);
		return ret;
	}
	*view = made;
	return 0;
}

void state_view_fini(struct state_view *view)
{
	free(view->vcpus);
	*view = (struct state_view){ 0 };
}
