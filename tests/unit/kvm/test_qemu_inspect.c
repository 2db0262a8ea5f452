/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made of QEMU 7.2's answers, recorded from Debian 12's. Memory files of this process stand
 * in for the guest's RAM, so that addresses are filled in when a test runs.
 */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/ramlift.h"
#include "fake_qmp.h"
#include "kvm/qemu/inspect.h"
#include "kvm/qemu/monitor_text.h"
#include "kvm/qemu/qmp.h"

#define LENGTH	    ((size_t)2 << 20)
#define MAX_ANSWERS 40u

#define RAMBLOCK_HEAD                                                                              \
	"              Block Name    PSize              Offset               Used              "   \
	"Total\\r\\n"
#define RAMBLOCK_TAIL                                                                              \
	"    /rom@etc/acpi/tables    4 KiB  0x0000000010080000 0x0000000000020000 "                \
	"0x0000000000200000\\r\\n"                                                                 \
	"                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 "                \
	"0x0000000000040000\\r\\n"
/* name of 24 characters */
#define RAMBLOCK(name)                                                                             \
	name "    4 KiB  0x0000000000000000 0x0000000000200000 0x0000000000200000\\r\\n"

static char *texts[MAX_ANSWERS]; /* made for one test */
static struct fake_qmp_answer answers[MAX_ANSWERS];
static unsigned n_answers, n_texts;
static struct fake_qmp_config config;
static struct fake_qmp *fake;
static struct qmp *qmp;
static struct qemu_guest *guest;
static uint8_t *memory[2]; /* of two files of one size */
static int files[2];

/* Later answers give way to earlier ones. */
static void answer(const char *words, const char *body)
{
	assert_true(n_answers < MAX_ANSWERS);
	answers[n_answers++] = (struct fake_qmp_answer){ .words = words, .body = body };
}

__attribute__((format(printf, 2, 3))) static void answer_with(const char *words, const char *format,
							      ...)
{
	va_list list;

	va_start(list, format);
	assert_true(n_texts < MAX_ANSWERS);
	assert_true(vasprintf(&texts[n_texts], format, list) > 0);
	va_end(list);
	answer(words, texts[n_texts++]);
}

/* What any guest of these tests answers, after what a test has added. */
static void answer_as_usual(void)
{
	answer("\"qom-get\" \"/machine\" \"type\"", "\"return\": \"pc-i440fx-7.2-machine\"");
	answer("\"query-target\"", "\"return\": {\"arch\": \"x86_64\"}");
	answer("\"query-name\"", "\"return\": {\"name\": \"db1\"}");
	answer("\"query-status\"", "\"return\": {\"status\": \"running\", \"singlestep\": false, "
				   "\"running\": true}");
	answer("\"query-cpus-fast\"",
	       "\"return\": [{\"thread-id\": 3865, \"qom-path\": "
	       "\"/machine/unattached/device[0]\", \"cpu-index\": 0, \"target\": \"x86_64\"}, "
	       "{\"cpu-index\": 1}]");
	answer("\"/machine/unattached/device[0]\" \"type\"", "\"return\": \"qemu64-x86_64-cpu\"");
	answer("\"query-kvm\"", "\"return\": {\"enabled\": true, \"present\": true}");
	answer("\"query-migrate\"", "\"return\": {}");
	answer("\"/machine/peripheral\"",
	       "\"return\": [{\"name\": \"type\", \"type\": \"string\"}]");
	answer("\"/machine/peripheral-anon\"",
	       "\"return\": [{\"name\": \"type\", \"type\": \"string\"}, "
	       "{\"name\": \"device[0]\", \"type\": \"child<virtio-balloon-pci>\"}]");
	answer("\"free-page-reporting\"", "\"return\": false");
	answer("\"free-page-hint\"", "\"return\": false");
	answer("\"qom-list\" \"/objects\"",
	       "\"return\": [{\"name\": \"type\", \"type\": \"string\"}, "
	       "{\"name\": \"mem1\", \"type\": \"child<memory-backend-memfd>\"}, "
	       "{\"name\": \"iothread0\", \"type\": \"child<iothread>\"}, "
	       "{\"name\": \"mem0\", \"type\": \"child<memory-backend-memfd>\"}]");
	answer("\"x-use-canonical-path-for-ramblock-id\"", "\"return\": false");
	answer("\"size\"", "\"return\": 2097152");
	answer("\"share\"", "\"return\": true");
	answer("info ramblock",
	       "\"return\": \"" RAMBLOCK_HEAD RAMBLOCK("                    mem0")
		       RAMBLOCK("                    mem1") RAMBLOCK("                        ")
			       RAMBLOCK_TAIL "\"");
	answer("info mtree",
	       "\"return\": \"FlatView #0\\r\\n AS \\\"cpu-smm-0\\\", root: memory\\r\\n"
	       " Root memory region: memory\\r\\n"
	       "  0000000000000000-00000000000bffff (prio 0, ram): mem1 KVM\\r\\n\\r\\n"
	       "FlatView #1\\r\\n AS \\\"memory\\\", root: system\\r\\n"
	       " AS \\\"cpu-memory-0\\\", root: system\\r\\n Root memory region: system\\r\\n"
	       "  0000000000000000-00000000000bffff (prio 0, ram): mem0 KVM\\r\\n"
	       "  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom KVM\\r\\n"
	       "  0000000000100000-00000000001fffff (prio 0, ram): mem0 @0000000000100000 "
	       "KVM\\r\\n"
	       "  0000000000200000-00000000002fffff (prio 0, i/o): mem1x\\r\\n"
	       "  0000000000300000-00000000003fffff (prio 0, ram): mem1 @0000000000100000 "
	       "KVM\\r\\n\\r\\n\"");
	answer_with("\"gpa2hva 0x0\"",
		    "\"return\": \"Host virtual address for 0x0 (mem0) is "
		    "%p\\r\\n\"",
		    (void *)memory[0]);
	answer_with("\"gpa2hva 0x300000\"",
		    "\"return\": \"Host virtual address for 0x300000 (mem1) is %p\\r\\n\"",
		    (void *)(memory[1] + 0x100000));
}

static int inspect(struct ramlift_error *error)
{
	answer_as_usual();
	config = (struct fake_qmp_config){ .greeting = FAKE_QMP_GREETING,
					   .answers = answers,
					   .n_answers = n_answers };
	fake = fake_qmp_start(&config);
	assert_non_null(fake);
	assert_int_equal(qmp_open(fake_qmp_path(fake), &qmp, NULL), 0);
	return qemu_inspect(qmp, 0, &guest, error);
}

static void expect_refusal(int code, const char *first, const char *second)
{
	struct ramlift_error error = { 0 };

	assert_int_equal(inspect(&error), code);
	assert_non_null(strstr(error.text, first));
	assert_non_null(strstr(error.text, second));
	assert_null(guest);
}

static int set_up(void **state)
{
	(void)state;
	n_answers = n_texts = 0;
	fake = NULL;
	qmp = NULL;
	guest = NULL;
	for (unsigned i = 0; i < 2; i++) {
		files[i] = memfd_create("memory-backend-memfd", MFD_CLOEXEC);
		if (files[i] < 0 || ftruncate(files[i], LENGTH))
			return -1;
		memory[i] = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, files[i], 0);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	qemu_guest_free(guest);
	qmp_close(qmp);
	if (fake)
		fake_qmp_stop(fake);
	for (unsigned i = 0; i < 2; i++) {
		munmap(memory[i], LENGTH);
		close(files[i]);
	}
	while (n_texts)
		free(texts[--n_texts]);
	return 0;
}

static void expect_block(const char *name, const char *id, const uint8_t *hva)
{
	const struct qemu_block *block = qemu_guest_block(guest, name);

	assert_non_null(block);
	assert_string_equal(block->id, id);
	assert_int_equal(block->size_bytes, LENGTH);
	assert_true(block->shared);
	assert_int_equal(block->mapping.hva, (uintptr_t)hva);
	assert_int_equal(block->mapping.size_bytes, LENGTH);
	assert_int_equal(block->mapping.file_offset, 0);
}

/* Two backends of one size; the address space of the system management mode lies. */
static void test_guest(void **unused)
{
	(void)unused;
	assert_int_equal(inspect(NULL), 0);
	assert_int_equal(guest->pid, getpid());
	assert_string_equal(guest->version, "7.2.22");
	assert_int_equal(guest->numbers[0], 7);
	assert_string_equal(guest->name, "db1");
	assert_string_equal(guest->machine, "pc-i440fx-7.2");
	assert_string_equal(guest->arch, "x86_64");
	assert_string_equal(guest->cpu, "qemu64-x86_64-cpu");
	assert_int_equal(guest->n_cpus, 2);
	assert_true(guest->kvm);
	assert_true(guest->running);
	assert_true(guest->balloon);
	assert_false(guest->free_page_hints);
	assert_int_equal(guest->n_blocks, 2);
	expect_block("mem0", "mem0", memory[0]);
	expect_block("mem1", "mem1", memory[1]);
	assert_string_equal(guest->blocks[0].name, "mem0");
	assert_null(qemu_guest_block(guest, "mem"));
}

/* QEMU 8.0 and later say the address in the table. The names are those of old machine types, and
 * of a device on a bus. */
static void test_addresses_in_table(void **unused)
{
	(void)unused;
	answer("\"x-use-canonical-path-for-ramblock-id\"", "\"return\": true");
	answer_with("info ramblock",
		    "\"return\": \"" RAMBLOCK_HEAD
		    "           /objects/mem0    4 KiB  0x0000000000000000 0x0000000000200000 "
		    "0x0000000000200000 0x%016lx  rw\\r\\n"
		    "0000:00:03.0//objects/mem1    4 KiB  0x0000000000000000 0x0000000000200000 "
		    "0x0000000000200000 0x%016lx  rw\\r\\n" RAMBLOCK_TAIL "\"",
		    (unsigned long)(uintptr_t)memory[1], (unsigned long)(uintptr_t)memory[0]);
	assert_int_equal(inspect(NULL), 0);
	assert_int_equal(guest->n_blocks, 2);
	expect_block("/objects/mem0", "mem0", memory[1]);
	expect_block("0000:00:03.0//objects/mem1", "mem1", memory[0]);
}

/* A backend without a name in the table is not the guest's; the other one is still found. */
static void test_unused_backend(void **unused)
{
	(void)unused;
	answer("info ramblock", "\"return\": \"" RAMBLOCK_HEAD RAMBLOCK("                    mem1")
					RAMBLOCK("                        ") RAMBLOCK_TAIL "\"");
	assert_int_equal(inspect(NULL), 0);
	assert_int_equal(guest->n_blocks, 1);
	expect_block("mem1", "mem1", memory[1]);
}

/* Without an address two files of one size are one too many; one alone is enough. */
static void test_by_size(void **unused)
{
	(void)unused;
	answer("info mtree", "\"return\": \"\"");
	expect_refusal(-EOPNOTSUPP, "cannot be told", "memory-backend-file");
}

static void test_by_size_alone(void **unused)
{
	void *second_view;

	(void)unused;
	answer("info mtree", "\"return\": \"\"");
	answer("info ramblock",
	       "\"return\": \"" RAMBLOCK_HEAD RAMBLOCK("                    mem1") "\"");
	munmap(memory[0], LENGTH);
	memory[0] = mmap(NULL, LENGTH, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	second_view = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, files[1], 0);
	assert_int_equal(inspect(NULL), 0);
	assert_int_equal(guest->n_blocks, 1);
	assert_true(guest->blocks[0].mapping.hva == (uintptr_t)memory[1] ||
		    guest->blocks[0].mapping.hva == (uintptr_t)second_view);
	munmap(second_view, LENGTH);
}

/* The monitor's socket was made by another process than QEMU. */
static void test_other_process(void **unused)
{
	static uint8_t elsewhere[16];

	(void)unused;
	answer_with("\"gpa2hva 0x0\"",
		    "\"return\": \"Host virtual address for 0x0 (mem0) is %p\\r\\n\"",
		    (void *)elsewhere);
	expect_refusal(-ESRCH, "mem0", "--pid");
}

static void test_same_file_twice(void **unused)
{
	(void)unused;
	answer_with("\"gpa2hva 0x300000\"",
		    "\"return\": \"Host virtual address for 0x300000 (mem1) is %p\\r\\n\"",
		    (void *)(memory[0] + 0x100000));
	expect_refusal(-EOPNOTSUPP, "share a file", "mem-path");
}

static void test_no_backend(void **unused)
{
	(void)unused;
	answer("\"qom-list\" \"/objects\"",
	       "\"return\": [{\"name\": \"type\", \"type\": \"string\"}, {\"name\": 7}, 7]");
	expect_refusal(-EOPNOTSUPP, "-object memory-backend-memfd,", "memory-backend=mem0");
}

static void test_default_ram(void **unused)
{
	(void)unused;
	answer("\"qom-list\" \"/objects\"",
	       "\"return\": [{\"name\": \"pc.ram\", \"type\": \"child<memory-backend-ram>\"}]");
	answer("info ramblock", "\"return\": \"" RAMBLOCK_HEAD RAMBLOCK("                  pc.ram")
					RAMBLOCK_TAIL "\"");
	answer("\"share\"", "\"return\": false");
	expect_refusal(-EOPNOTSUPP, "share=on -machine memory-backend=mem0", "pc.ram");
}

static void test_not_shared(void **unused)
{
	(void)unused;
	answer("\"/objects/mem0\" \"share\"", "\"return\": false");
	expect_refusal(-EOPNOTSUPP, "mem0 is not shared", "share=on");
}

static void test_read_only(void **unused)
{
	(void)unused;
	answer("\"/objects/mem1\" \"readonly\"", "\"return\": true");
	expect_refusal(-EOPNOTSUPP, "mem1", "readonly");
}

static void test_free_page_reporting(void **unused)
{
	(void)unused;
	answer("\"/machine/peripheral-anon/device[0]\" \"free-page-reporting\"",
	       "\"return\": true");
	expect_refusal(-EOPNOTSUPP, "virtio-balloon", "free-page-reporting=on");
}

static void test_virtio_mem(void **unused)
{
	(void)unused;
	answer("\"/machine/peripheral\"",
	       "\"return\": [{\"name\": \"vm0\", \"type\": \"child<virtio-mem-pci>\"}]");
	expect_refusal(-EOPNOTSUPP, "virtio-mem-pci", "pc-dimm");
}

static void test_blocked(void **unused)
{
	(void)unused;
	answer("\"query-migrate\"",
	       "\"return\": {\"blocked-reasons\": [\"Migration is disabled when using feature "
	       "'peer mode' in device 'ivshmem'\"]}");
	expect_refusal(-EOPNOTSUPP, "'peer mode' in device 'ivshmem'", "QEMU says");
}

/* Who waits for a guest need not be fit to be moved. */
static void test_blocked_destination(void **unused)
{
	(void)unused;
	answer("\"query-status\"", "\"return\": {\"status\": \"inmigrate\"}");
	answer("\"query-migrate\"", "\"return\": {\"blocked-reasons\": [\"x\"]}");
	assert_int_equal(inspect(NULL), 0);
	assert_string_equal(guest->status, "inmigrate");
	assert_false(guest->running);
}

static void test_no_machine(void **unused)
{
	(void)unused;
	answer("\"query-target\"", "\"return\": [1, 2]");
	expect_refusal(-EOPNOTSUPP, "7.2.22", "machine");
}

static void test_monitor_text(void **unused)
{
	struct monitor_ramblock block;
	uint64_t gpa, offset, hva = 1;
	const char *text = "Block Name PSize\r\n"
			   "a name with gaps    1 GiB  0x0000000000000000 0x0000000040000000 "
			   "0x0000000080000000 0x00007f12ebe00000  rw\r\n"
			   "  no numbers    4 KiB  0x\r\n"
			   "  cut    4 KiB  0x0000000000000000\r\n"
			   "0x1 2 3\r\n"
			   "    2 MiB  0x0 0x200000 0x200000";

	(void)unused;
	assert_true(monitor_next_ramblock(&text, &block));
	assert_string_equal(block.name, "a name with gaps");
	assert_int_equal(block.size_bytes, 0x40000000);
	assert_int_equal(block.hva, 0x7f12ebe00000);
	assert_true(monitor_next_ramblock(&text, &block));
	assert_string_equal(block.name, "");
	assert_int_equal(block.hva, 0);
	assert_false(monitor_next_ramblock(&text, &block));
	assert_false(monitor_find_region("", "mem0", &gpa, &offset));
	assert_false(monitor_find_region(" AS \"memory\",\r\n  10-20 (prio 0, ram): mem00", "mem0",
					 &gpa, &offset));
	assert_true(monitor_find_region(" AS \"memory\",\r\n  10-20 (prio 0, ram): mem0", "mem0",
					&gpa, &offset));
	assert_int_equal(gpa, 0x10);
	assert_int_equal(offset, 0);
	assert_false(monitor_read_hva("No memory is mapped at address 0x10", "mem0", &hva));
	assert_false(
		monitor_read_hva("Host virtual address for 0x10 (mem1) is 0x7f", "mem0", &hva));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_guest),
		TEST(test_addresses_in_table),
		TEST(test_unused_backend),
		TEST(test_by_size),
		TEST(test_by_size_alone),
		TEST(test_other_process),
		TEST(test_same_file_twice),
		TEST(test_no_backend),
		TEST(test_default_ram),
		TEST(test_not_shared),
		TEST(test_read_only),
		TEST(test_free_page_reporting),
		TEST(test_virtio_mem),
		TEST(test_blocked),
		TEST(test_blocked_destination),
		TEST(test_no_machine),
		cmocka_unit_test(test_monitor_text),
	};

	return cmocka_run_group_tests_name("qemu_inspect", tests, NULL, NULL);
}
