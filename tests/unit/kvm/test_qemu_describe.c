/* SPDX-License-Identifier: Apache-2.0 */
/* Does the guest that is described fit into the QEMU that waits? Descriptions may be hostile. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ramlift.h"
#include "kvm/qemu/describe.h"

static struct qemu_guest *source, *destination;

static void fill(struct qemu_guest *guest)
{
	*guest = (struct qemu_guest){
		.version = "7.2.22",
		.numbers = { 7, 2, 22 },
		.name = "db1",
		.machine = "pc-q35-7.2",
		.arch = "x86_64",
		.cpu = "host-x86_64-cpu",
		.n_cpus = 4,
		.kvm = true,
		.status = "inmigrate",
		.n_blocks = 2,
	};
	for (unsigned i = 0; i < 2; i++) {
		snprintf(guest->blocks[i].name, sizeof(guest->blocks[i].name), "mem%u", i);
		snprintf(guest->blocks[i].id, sizeof(guest->blocks[i].id), "mem%u", i);
		strcpy(guest->blocks[i].type, "memory-backend-memfd");
		guest->blocks[i].size_bytes = (uint64_t)(i + 1) << 30;
		guest->blocks[i].shared = true;
		guest->blocks[i].mapping.page_size_bytes = RAMLIFT_PAGE_BYTES;
	}
}

static int set_up(void **state)
{
	(void)state;
	source = malloc(sizeof(*source));
	destination = malloc(sizeof(*destination));
	if (!source || !destination)
		return -1;
	fill(source);
	fill(destination);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(source);
	free(destination);
	return 0;
}

/* Over the wire and back. */
static int check(struct ramlift_error *error)
{
	json_t *described = qemu_describe(source), *read;
	char *text = json_dumps(described, JSON_COMPACT);
	int ret;

	assert_non_null(text);
	read = json_loads(text, 0, NULL);
	ret = qemu_check(read, destination, error);
	free(text);
	json_decref(described);
	json_decref(read);
	return ret;
}

static void expect_refusal(const char *first, const char *second)
{
	struct ramlift_error error;

	assert_int_equal(check(&error), -EINVAL);
	assert_non_null(strstr(error.text, first));
	assert_non_null(strstr(error.text, second));
	fill(source);
	fill(destination);
}

static void test_fits(void **unused)
{
	(void)unused;
	assert_int_equal(check(NULL), 0);
	strcpy(source->status, "running");
	assert_int_equal(check(NULL), 0);
}

static void test_misfits(void **unused)
{
	(void)unused;
	strcpy(destination->status, "running");
	expect_refusal("\"running\"", "-incoming defer");
	strcpy(source->machine, "pc-i440fx-7.2");
	expect_refusal("machine type pc-i440fx-7.2", "-machine pc-i440fx-7.2");
	strcpy(source->arch, "aarch64");
	expect_refusal("for aarch64", "qemu-system-aarch64");
	strcpy(source->cpu, "EPYC-x86_64-cpu");
	expect_refusal("EPYC", "-cpu");
	source->n_cpus = 8;
	expect_refusal("8 vCPUs", "-smp 8");
	destination->kvm = false;
	expect_refusal("under KVM", "-accel kvm");
}

static void test_block_misfits(void **unused)
{
	(void)unused;
	destination->n_blocks = 1;
	expect_refusal("no RAM block mem1", "id=mem1,size=2048M,share=on");
	source->n_blocks = 1;
	expect_refusal("RAM block mem1", "without -object memory-backend-memfd,id=mem1");
	destination->blocks[0].size_bytes -= RAMLIFT_PAGE_BYTES;
	expect_refusal("RAM block mem0", "size=");
	destination->blocks[1].mapping.page_size_bytes = 2 << 20;
	expect_refusal("2048 KiB", "hugetlb=");
	strcpy(source->blocks[0].name, "/objects/mem0");
	expect_refusal("no RAM block /objects/mem0", "x-use-canonical-path-for-ramblock-id=on");
}

static int check_versions(unsigned major, unsigned minor, unsigned micro)
{
	memcpy(source->numbers, (unsigned[]){ 8, 2, 5 }, sizeof(source->numbers));
	memcpy(destination->numbers, (unsigned[]){ major, minor, micro },
	       sizeof(destination->numbers));
	return check(NULL);
}

/* An older destination is as good with a versioned machine type, and only with one. */
static void test_versions(void **unused)
{
	(void)unused;
	assert_int_equal(check_versions(7, 2, 22), 0);
	strcpy(source->machine, "microvm");
	strcpy(destination->machine, "microvm");
	assert_int_equal(check_versions(8, 2, 5), 0);
	assert_int_equal(check_versions(8, 2, 0), 0);
	assert_int_equal(check_versions(8, 3, 0), 0);
	assert_int_equal(check_versions(10, 0, 0), 0);
	assert_int_equal(check_versions(8, 1, 9), -EINVAL);
	assert_int_equal(check_versions(7, 9, 9), -EINVAL);
}

static void test_many_blocks(void **unused)
{
	(void)unused;
	source->n_blocks = destination->n_blocks = RAMLIFT_MAX_REGIONS;
	for (unsigned i = 2; i < RAMLIFT_MAX_REGIONS; i++) {
		source->blocks[i] = source->blocks[1];
		snprintf(source->blocks[i].name, sizeof(source->blocks[i].name), "mem%u", i);
		destination->blocks[i] = source->blocks[i];
	}
	assert_int_equal(check(NULL), 0);
}

static void test_block_named_twice(void **unused)
{
	(void)unused;
	strcpy(source->blocks[1].name, "mem0");
	source->blocks[1].size_bytes = source->blocks[0].size_bytes;
	assert_int_equal(check(NULL), -EPROTO);
}

/* Every member of the description, replaced by everything that it should not be. */
static void test_hostile(void **unused)
{
	static const char *const values[] = {
		"null",
		"true",
		"-1",
		"1e300",
		"[]",
		"{}",
		"\"\"",
		"\"line\\nbreak\"",
		"\"\\u001b[31m\"",
		"[7,2]",
		"[7,2,-1]",
		"[7,2,99999]",
		"[\"7\",2,2]",
		"[1]",
		"[{}]",
		"[{\"name\":\"mem0\"}]",
		"[{\"name\":\"mem0\",\"size\":-4096,\"page_size\":4096}]",
		"[{\"name\":\"\",\"size\":4096,\"page_size\":4096}]",
		"[{\"name\":[],\"size\":4096,\"page_size\":4096}]",
		"[{\"name\":\"a\",\"size\":4096,\"page_size\":\"x\"}]",
		"9223372036854775807",
	};
	static const char *const keys[] = { "version", "machine", "arch",  "cpu",
					    "cpus",    "kvm",	  "blocks" };

	(void)unused;
	for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
		for (size_t v = 0; v <= sizeof(values) / sizeof(values[0]); v++) {
			struct ramlift_error error = { 0 };
			json_t *described = qemu_describe(source);
			int ret;

			if (v == sizeof(values) / sizeof(values[0]))
				json_object_del(described, keys[k]);
			else
				json_object_set_new(described, keys[k],
						    json_loads(values[v], JSON_DECODE_ANY, NULL));
			ret = qemu_check(described, destination, &error);
			/* "kvm": true is what it was. */
			assert_true(ret == -EPROTO || ret == -EINVAL ||
				    (!ret && !strcmp(keys[k], "kvm")));
			for (const char *c = error.text; *c; c++)
				assert_true(*c >= ' ');
			json_decref(described);
		}
	}
	assert_int_equal(qemu_check(NULL, destination, NULL), -EPROTO);
}

static void test_too_much(void **unused)
{
	json_t *described = qemu_describe(source), *blocks = json_array();
	char name[300];

	(void)unused;
	for (unsigned i = 0; i <= RAMLIFT_MAX_REGIONS; i++)
		json_array_append_new(blocks, json_pack("{s:s, s:i, s:i}", "name", "mem", "size",
							4096, "page_size", 4096));
	json_object_set_new(described, "blocks", blocks);
	assert_int_equal(qemu_check(described, destination, NULL), -EPROTO);
	json_decref(described);
	described = qemu_describe(source);
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	json_object_set_new(described, "machine", json_string(name));
	assert_int_equal(qemu_check(described, destination, NULL), -EPROTO);
	json_decref(described);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_fits),     TEST(test_misfits),     TEST(test_block_misfits),
		TEST(test_versions), TEST(test_many_blocks), TEST(test_block_named_twice),
		TEST(test_hostile),  TEST(test_too_much),
	};

	return cmocka_run_group_tests_name("qemu_describe", tests, NULL, NULL);
}
