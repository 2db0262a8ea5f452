/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real QEMU, emulated and paused: its memory is found by QMP and /proc, and what is written to
 * the mapping here is what QEMU's monitor reads at the guest's address. Skipped without QEMU.
 */
#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/ramlift.h"
#include "kvm/qemu/describe.h"
#include "kvm/qemu/inspect.h"
#include "kvm/qemu/qmp.h"

#define QEMU	 "qemu-system-x86_64"
#define MIB	 ((uint64_t)1 << 20)
#define MAX_ARGS 40u

struct process {
	pid_t pid;
	struct qmp *qmp;
	char path[64];
};

static char folder[32];

static void start(struct process *process, const char *name, char *const *more)
{
	uint64_t deadline_ns = clock_now_ns() + 60 * NS_PER_S;
	char monitor[128];
	char *args[MAX_ARGS] = {
		(char[]){ QEMU },	   (char[]){ "-accel" },   (char[]){ "tcg" },
		(char[]){ "-S" },	   (char[]){ "-display" }, (char[]){ "none" },
		(char[]){ "-nodefaults" }, (char[]){ "-qmp" },	   monitor
	};
	unsigned n = 9;
	int ret;

	snprintf(process->path, sizeof(process->path), "%s/%s", folder, name);
	snprintf(monitor, sizeof(monitor), "unix:%s,server=on,wait=off", process->path);
	for (; *more; more++) {
		assert_true(n < MAX_ARGS - 1);
		args[n++] = *more;
	}
	process->pid = fork();
	assert_true(process->pid >= 0);
	if (!process->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp(QEMU, args);
		_exit(127);
	}
	do {
		ret = qmp_open(process->path, &process->qmp, NULL);
		if (ret)
			usleep(20000);
	} while ((ret == -ENOENT || ret == -ECONNREFUSED) && clock_now_ns() < deadline_ns &&
		 !waitpid(process->pid, NULL, WNOHANG));
	assert_int_equal(ret, 0);
}

static void stop(struct process *process)
{
	qmp_close(process->qmp);
	kill(process->pid, SIGKILL);
	waitpid(process->pid, NULL, 0);
	unlink(process->path);
}

/* What QEMU reads in the guest's memory. */
static uint64_t peek(struct process *process, uint64_t gpa)
{
	char line[64], *text;
	unsigned long long value = 0;

	snprintf(line, sizeof(line), "xp /1gx 0x%llx", (unsigned long long)gpa);
	assert_int_equal(qmp_monitor_command(process->qmp, line, &text, NULL), 0);
	assert_int_equal(sscanf(text, "%*x: 0x%llx", &value), 1);
	free(text);
	return value;
}

static void expect_same_ram(struct process *process, const struct qemu_guest *guest,
			    const char *name, uint64_t gpa, uint64_t offset)
{
	const uint64_t pattern = UINT64_C(0x1122334455667788) ^ gpa;
	const struct qemu_block *block = qemu_guest_block(guest, name);
	struct ramlift_region region = { 0 };
	int fd;

	assert_non_null(block);
	assert_int_equal(memory_open(guest->pid, &block->mapping, &fd, NULL), 0);
	assert_int_equal(memory_map(fd, &block->mapping, &region, NULL), 0);
	assert_int_equal(region.size_bytes, block->size_bytes);
	memcpy((char *)region.hva + offset, &pattern, sizeof(pattern));
	assert_true(peek(process, gpa) == pattern);
	assert_int_equal(memory_clear(&region, NULL), 0);
	assert_true(peek(process, gpa) == 0);
	memory_unmap(&region);
}

static struct qemu_guest *look(struct process *process)
{
	struct ramlift_error error = { 0 };
	struct qemu_guest *guest = NULL;

	if (qemu_inspect(process->qmp, 0, &guest, &error))
		fail_msg("%s", error.text);
	assert_int_equal(guest->pid, process->pid);
	assert_true(guest->n_cpus >= 1);
	assert_non_null(strstr(guest->cpu, "-x86_64-cpu"));
	return guest;
}

static void expect_one(const char *machine, const char *object, const char *block, const char *type)
{
	char *args[] = { (char[]){ "-m" },
			 (char[]){ "32M" },
			 (char[]){ "-machine" },
			 strdup(machine),
			 (char[]){ "-object" },
			 strdup(object),
			 NULL };
	struct qemu_guest *guest;
	struct process process;

	start(&process, "one", args);
	guest = look(&process);
	assert_int_equal(guest->n_blocks, 1);
	assert_non_null(strstr(machine, guest->machine));
	assert_string_equal(guest->blocks[0].type, type);
	expect_same_ram(&process, guest, block, 4 * MIB, 4 * MIB);
	expect_same_ram(&process, guest, block, 32 * MIB - 8, 32 * MIB - 8);
	qemu_guest_free(guest);
	stop(&process);
	free(args[3]);
	free(args[5]);
}

static void test_memfd(void **unused)
{
	(void)unused;
	expect_one("pc-i440fx-7.2,memory-backend=mem0",
		   "memory-backend-memfd,id=mem0,size=32M,share=on", "mem0",
		   "memory-backend-memfd");
	expect_one("pc-q35-7.2,memory-backend=ram-1",
		   "memory-backend-memfd,id=ram-1,size=32M,share=on", "ram-1",
		   "memory-backend-memfd");
}

/* A file, a folder for one without a name, and the names of old machine types. */
static void test_file(void **unused)
{
	char object[128], path[64];

	(void)unused;
	snprintf(path, sizeof(path), "%s/ram", folder);
	snprintf(object, sizeof(object),
		 "memory-backend-file,id=mem0,size=32M,share=on,mem-path=%s", path);
	expect_one("pc-q35-7.2,memory-backend=mem0", object, "mem0", "memory-backend-file");
	unlink(path);
	snprintf(object, sizeof(object),
		 "memory-backend-file,id=mem0,size=32M,share=on,mem-path=%s", folder);
	expect_one("pc-i440fx-2.12,memory-backend=mem0", object, "/objects/mem0",
		   "memory-backend-file");
}

/* Two backends of the same size, and a third one that the guest does not use. */
static void test_nodes(void **unused)
{
	char *args[] = {
		(char[]){ "-m" },
		(char[]){ "64M" },
		(char[]){ "-machine" },
		(char[]){ "q35" },
		(char[]){ "-smp" },
		(char[]){ "2" },
		(char[]){ "-object" },
		(char[]){ "memory-backend-memfd,id=mem0,size=32M,share=on" },
		(char[]){ "-object" },
		(char[]){ "memory-backend-memfd,id=other,size=32M,share=on" },
		(char[]){ "-object" },
		(char[]){ "memory-backend-memfd,id=mem1,size=32M,share=on" },
		(char[]){ "-numa" },
		(char[]){ "node,memdev=mem0" },
		(char[]){ "-numa" },
		(char[]){ "node,memdev=mem1" },
		NULL,
	};
	struct qemu_guest *guest;
	struct process process;

	(void)unused;
	start(&process, "nodes", args);
	guest = look(&process);
	assert_int_equal(guest->n_blocks, 2);
	assert_int_equal(guest->n_cpus, 2);
	expect_same_ram(&process, guest, "mem0", 4 * MIB, 4 * MIB);
	expect_same_ram(&process, guest, "mem1", 36 * MIB, 4 * MIB);
	qemu_guest_free(guest);
	stop(&process);
}

static void test_refusal(void **unused)
{
	char *args[] = { (char[]){ "-m" }, (char[]){ "32M" }, NULL };
	struct ramlift_error error = { 0 };
	struct qemu_guest *guest;
	struct process process;

	(void)unused;
	start(&process, "plain", args);
	assert_int_equal(qemu_inspect(process.qmp, 0, &guest, &error), -EOPNOTSUPP);
	assert_non_null(strstr(error.text, "memory-backend=mem0"));
	stop(&process);
}

/* A source and the destination that waits for it. */
static void test_pair(void **unused)
{
	char *args[] = { (char[]){ "-m" },
			 (char[]){ "32M" },
			 (char[]){ "-machine" },
			 (char[]){ "pc,memory-backend=mem0" },
			 (char[]){ "-object" },
			 (char[]){ "memory-backend-memfd,id=mem0,size=32M,share=on" },
			 (char[]){ "-incoming" },
			 (char[]){ "defer" },
			 NULL };
	struct qemu_guest *there, *here;
	struct process from, to;
	json_t *description;

	(void)unused;
	start(&to, "to", args);
	args[6] = NULL;
	start(&from, "from", args);
	there = look(&to);
	here = look(&from);
	assert_string_equal(there->status, "inmigrate");
	description = qemu_describe(here);
	assert_int_equal(qemu_check(description, there, NULL), 0);
	assert_int_equal(qemu_check(description, here, NULL), -EINVAL);
	json_decref(description);
	qemu_guest_free(here);
	qemu_guest_free(there);
	stop(&from);
	stop(&to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memfd), cmocka_unit_test(test_file),
		cmocka_unit_test(test_nodes), cmocka_unit_test(test_refusal),
		cmocka_unit_test(test_pair),
	};
	int ret;

	if (system(QEMU " --version >/dev/null 2>&1")) {
		printf("skipped: " QEMU " is not installed\n");
		return 77;
	}
	strcpy(folder, "/dev/shm/ramlift-XXXXXX");
	if (!mkdtemp(folder)) {
		printf("skipped: no folder in /dev/shm\n");
		return 77;
	}
	ret = cmocka_run_group_tests_name("qemu_process", tests, NULL, NULL);
	rmdir(folder);
	return ret;
}
