/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's description as JSON, and its comparison with the QEMU that waits. */
#include "kvm/qemu/describe.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

#define MIB (1ull << 20)

/* What a peer says, once it has been checked for size and type. */
struct description {
	const char *machine;
	const char *arch;
	const char *cpu;
	unsigned numbers[3];
	unsigned n_cpus;
	bool kvm;
	const json_t *blocks;
};

struct described_block {
	const char *name;
	uint64_t size_bytes;
	uint64_t page_size_bytes;
};

json_t *qemu_describe(const struct qemu_guest *guest)
{
	json_t *blocks = json_array();

	for (unsigned i = 0; i < guest->n_blocks; i++)
		json_array_append_new(
			blocks, json_pack("{s:s, s:I, s:I}", "name", guest->blocks[i].name, "size",
					  (json_int_t)guest->blocks[i].size_bytes, "page_size",
					  (json_int_t)guest->blocks[i].mapping.page_size_bytes));
	if (json_array_size(blocks) != guest->n_blocks) {
		json_decref(blocks);
		return NULL;
	}
	return json_pack("{s:[i,i,i], s:s, s:s, s:s, s:i, s:b, s:o}", "version",
			 (int)guest->numbers[0], (int)guest->numbers[1], (int)guest->numbers[2],
			 "machine", guest->machine, "arch", guest->arch, "cpu", guest->cpu, "cpus",
			 (int)guest->n_cpus, "kvm", guest->kvm, "blocks", blocks);
}

/* A member that may stand in a sentence, or NULL. */
static const char *read_string(const json_t *object, const char *key, size_t room_bytes)
{
	const json_t *value = json_object_get(object, key);
	const char *text = json_string_value(value);

	if (!text || json_string_length(value) >= room_bytes ||
	    json_string_length(value) != strlen(text))
		return NULL;
	for (const char *c = text; *c; c++)
		if (!isprint((unsigned char)*c))
			return NULL;
	return text;
}

static bool read_number(const json_t *value, uint64_t max, uint64_t *number)
{
	json_int_t integer = json_integer_value(value);

	if (!json_is_integer(value) || integer < 0 || (uint64_t)integer > max)
		return false;
	*number = (uint64_t)integer;
	return true;
}

static bool read_block(const json_t *object, struct described_block *block)
{
	block->name = read_string(object, "name", sizeof(((struct qemu_block *)0)->name));
	return block->name && block->name[0] &&
	       read_number(json_object_get(object, "size"), INT64_MAX, &block->size_bytes) &&
	       read_number(json_object_get(object, "page_size"), INT64_MAX,
			   &block->page_size_bytes);
}

static int read_description(const json_t *source, struct description *description,
			    struct ramlift_error *error)
{
	const json_t *version = json_object_get(source, "version");
	const json_t *kvm = json_object_get(source, "kvm");
	struct described_block block;
	bool good = json_array_size(version) == 3 && json_is_boolean(kvm);
	uint64_t number;
	size_t n_blocks;

	for (unsigned i = 0; i < 3 && good; i++) {
		good = read_number(json_array_get(version, i), 9999, &number);
		description->numbers[i] = good ? (unsigned)number : 0;
	}
	good = good && read_number(json_object_get(source, "cpus"), 65536, &number);
	description->n_cpus = good ? (unsigned)number : 0;
	description->kvm = json_is_true(kvm);
	description->machine =
		read_string(source, "machine", sizeof(((struct qemu_guest *)0)->machine));
	description->arch = read_string(source, "arch", sizeof(((struct qemu_guest *)0)->arch));
	description->cpu = read_string(source, "cpu", sizeof(((struct qemu_guest *)0)->cpu));
	description->blocks = json_object_get(source, "blocks");
	n_blocks = json_array_size(description->blocks);
	good = good && description->machine && description->arch && description->cpu && n_blocks &&
	       n_blocks <= RAMLIFT_MAX_REGIONS;
	for (size_t i = 0; i < n_blocks && good; i++)
		good = read_block(json_array_get(description->blocks, i), &block);
	return good ? 0
		    : error_set(error, -EPROTO,
				"the source does not describe its QEMU in a way that is understood "
				"here: use the same version of ramlift on both sides");
}

/* A machine type that stands for one version's hardware has that version in its name. */
static bool is_versioned(const char *machine)
{
	for (const char *dot = strchr(machine, '.'); dot; dot = strchr(dot + 1, '.'))
		if (dot > machine && isdigit((unsigned char)dot[-1]) &&
		    isdigit((unsigned char)dot[1]))
			return true;
	return false;
}

/*
 * QEMU promises that a guest of one versioned machine type moves between versions in both
 * directions (docs/devel/migration/compatibility); without such a type an older QEMU may lack what
 * a newer one saves. Releases within one minor version do not differ in what they save.
 */
static int check_version(const struct description *source, const struct qemu_guest *destination,
			 struct ramlift_error *error)
{
	const unsigned *from = source->numbers, *to = destination->numbers;

	if (from[0] < to[0] || (from[0] == to[0] && from[1] <= to[1]) ||
	    is_versioned(source->machine))
		return 0;
	return error_set(error, -EINVAL,
			 "the source's QEMU %u.%u.%u is newer than the destination's %s, and "
			 "machine type %s has no version that both keep to: install QEMU %u.%u at "
			 "the destination, or start the guest with a versioned -machine",
			 from[0], from[1], from[2], destination->version, source->machine, from[0],
			 from[1]);
}

static int check_machine(const struct description *source, const struct qemu_guest *destination,
			 struct ramlift_error *error)
{
	if (strcmp(source->arch, destination->arch))
		return error_set(error, -EINVAL,
				 "the guest is for %s, the QEMU that waits is for %s: start "
				 "qemu-system-%s at the destination",
				 source->arch, destination->arch, source->arch);
	if (strcmp(source->machine, destination->machine))
		return error_set(error, -EINVAL,
				 "the guest has machine type %s, the QEMU that waits %s: start it "
				 "with -machine %s at the destination",
				 source->machine, destination->machine, source->machine);
	if (source->kvm != destination->kvm)
		return error_set(error, -EINVAL,
				 "the guest runs %s KVM, the QEMU that waits %s: start it with "
				 "-accel %s at the destination",
				 source->kvm ? "under" : "without",
				 destination->kvm ? "under it" : "without it",
				 source->kvm ? "kvm" : "tcg");
	if (strcmp(source->cpu, destination->cpu))
		return error_set(error, -EINVAL,
				 "the guest has a CPU of type %s, the QEMU that waits %s: start it "
				 "with the source's -cpu at the destination",
				 source->cpu, destination->cpu);
	if (source->n_cpus != destination->n_cpus)
		return error_set(error, -EINVAL,
				 "the guest has %u vCPUs, the QEMU that waits %u: start it with "
				 "-smp %u at the destination",
				 source->n_cpus, destination->n_cpus, source->n_cpus);
	return check_version(source, destination, error);
}

static int check_block(const struct described_block *source, const struct qemu_guest *destination,
		       struct ramlift_error *error)
{
	const struct qemu_block *block = qemu_guest_block(destination, source->name);
	const char *id = strrchr(source->name, '/');

	id = id ? id + 1 : source->name;
	if (!block)
		return error_set(
			error, -EINVAL,
			"the QEMU that waits has no RAM block %.100s of %llu MiB: start it "
			"with -object memory-backend-memfd,id=%.100s,size=%lluM,share=on "
			"used as at the source%s",
			source->name, (unsigned long long)(source->size_bytes / MIB), id,
			(unsigned long long)(source->size_bytes / MIB),
			qemu_guest_block(destination, id)
				? ",x-use-canonical-path-for-ramblock-id=on"
				: "");
	if (block->size_bytes != source->size_bytes)
		return error_set(error, -EINVAL,
				 "RAM block %.100s has %llu bytes at the source and %llu at the "
				 "destination: give both the same size= of -object and the same -m",
				 source->name, (unsigned long long)source->size_bytes,
				 (unsigned long long)block->size_bytes);
	if (block->mapping.page_size_bytes != source->page_size_bytes)
		return error_set(error, -EINVAL,
				 "RAM block %.100s has pages of %llu KiB at the source and of %llu "
				 "KiB at the destination: give both the same hugetlb= and "
				 "hugetlbsize= of -object, or both files on the same kind of file "
				 "system",
				 source->name, (unsigned long long)(source->page_size_bytes >> 10),
				 (unsigned long long)(block->mapping.page_size_bytes >> 10));
	return 0;
}

static int check_blocks(const json_t *blocks, const struct qemu_guest *destination,
			struct ramlift_error *error)
{
	struct described_block block;
	int ret = 0;

	for (size_t i = 0; i < json_array_size(blocks) && !ret; i++) {
		(void)read_block(json_array_get(blocks, i), &block); /* it was read before */
		for (size_t j = 0; j < i && !ret; j++)
			if (!strcmp(block.name, json_string_value(json_object_get(
							json_array_get(blocks, j), "name"))))
				ret = error_set(error, -EPROTO,
						"the source names RAM block %.100s twice",
						block.name);
		if (!ret)
			ret = check_block(&block, destination, error);
	}
	for (unsigned i = 0; i < destination->n_blocks && !ret; i++) {
		bool known = false;

		for (size_t j = 0; j < json_array_size(blocks) && !known; j++)
			known = !strcmp(destination->blocks[i].name,
					json_string_value(json_object_get(json_array_get(blocks, j),
									  "name")));
		if (!known)
			ret = error_set(error, -EINVAL,
					"the guest has no RAM block %.100s, the QEMU that waits "
					"has: start it without -object %s,id=%s at the destination",
					destination->blocks[i].name, destination->blocks[i].type,
					destination->blocks[i].id);
	}
	return ret;
}

int qemu_check(const json_t *source, const struct qemu_guest *destination,
	       struct ramlift_error *error)
{
	struct description description;
	int ret;

	ret = read_description(source, &description, error);
	if (ret)
		return ret;
	if (strcmp(destination->status, "inmigrate"))
		return error_set(error, -EINVAL,
				 "the QEMU at the destination does not wait for a guest (it is "
				 "\"%s\"): start it with -incoming defer",
				 destination->status);
	ret = check_machine(&description, destination, error);
	if (!ret)
		ret = check_blocks(description.blocks, destination, error);
	return ret;
}
