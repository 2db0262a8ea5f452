/* SPDX-License-Identifier: Apache-2.0 */
/* What the inlet turns away, which sentence a broken stream gets, and that it can be stopped
 * wherever it is. */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/wire.h"
#include "inlet_fixture.h"

static unsigned count_threads(void)
{
	DIR *folder = opendir("/proc/self/task");
	unsigned n = 0;

	assert_non_null(folder);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

/* A joined thread may still be listed for a moment. */
static bool threads_are_gone(void *context)
{
	return count_threads() <= *(unsigned *)context;
}

static bool threads_are_there(void *context)
{
	return count_threads() >= *(unsigned *)context;
}

static int no_region(void *context, const struct stream_block *block)
{
	(void)context;
	(void)block;
	return -1;
}

/* Connect, write, and wait to be turned away. */
static void stranger_run(uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char byte;

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    send(fd, "QEVM", 4, MSG_NOSIGNAL) != 4)
		_exit(1);
	_exit(recv(fd, &byte, 1, 0) > 0);
}

static void test_another_process_is_turned_away(void **unused)
{
	struct bytes main = { 0 };
	struct bench bench;
	int status;
	pid_t pid;

	(void)unused;
	put_beginning(&main);
	bench_open(&bench);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		stranger_run(inlet_port(bench.inlet));
	bench_start(&bench);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	/* It did not take the main connection's place. */
	bench_send_all(bench_connect(&bench), &main);
	bench_await_bytes(&bench, 0, main.used);
	bench_assert_bytes(&bench, 0, main.data, main.used);
	assert_int_equal(inlet_check(bench.inlet, &bench.error), 0);
	bench_fini(&bench);
	free_bytes(&main);
}

/* QEMU is another process: this one is the stranger. */
static void test_all_but_qemu_are_turned_away(void **unused)
{
	struct bench bench;

	(void)unused;
	bench_open(&bench);
	assert_int_equal(
		inlet_start(bench.inlet, getppid(), &bench.source, no_region, NULL, &bench.error),
		0);
	for (unsigned i = 0; i < 3; i++)
		bench_await_turned_away(bench_connect(&bench));
	assert_int_equal(inlet_write(bench.inlet, "words", 5, &bench.error), -EPROTO);
	bench_fini(&bench);
}

static void test_too_many_connections(void **unused)
{
	struct bench bench;
	unsigned n = 0;
	int fds[WIRE_MAX_STREAMS + 1];

	(void)unused;
	bench_init(&bench);
	for (n = 0; n < WIRE_MAX_STREAMS + 1; n++) {
		fds[n] = bench_connect(&bench);
		bench.n_fds = 0;
	}
	assert_int_equal(bench_await_failure(&bench, "cannot take QEMU's connection"), -EMFILE);
	bench_await_turned_away(fds[WIRE_MAX_STREAMS]);
	bench_fini(&bench);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

/* How a migration breaks. Of `main` and `channel` so much is sent; then the connection is closed,
 * or not. */
struct breakage {
	const char *words;
	int code;
	void (*make)(struct bytes *main, struct bytes *channel);
	bool close_main, close_channel;
};

static void make_garbage(struct bytes *main, struct bytes *channel)
{
	(void)channel;
	put_bytes(main, "GET / HTTP/1.0\r\n\r\n", 18);
}

static void make_short(struct bytes *main, struct bytes *channel)
{
	(void)channel;
	put_beginning(main);
}

/* It dies between its memory and its devices. */
static void make_no_devices(struct bytes *main, struct bytes *channel)
{
	(void)channel;
	put_beginning(main);
	put_ending(main);
}

static void make_none_shared(struct bytes *main, struct bytes *channel)
{
	(void)channel;
	put_header(main, "pc-i440fx-9.0");
	put_section(main, 0x01, "ram", 0, 4);
	put_number(main, 0x10000 | 0x04, 8);
	put_table_entry(main, "rom", 0x10000);
}

static void make_no_hello(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	put_packet(channel, 1, "", 0, 0, 0);
	channel->data[0] = 0;
}

static void make_no_packet(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	put_hello(channel, 0);
	put_hello(channel, 0);
	for (unsigned i = 0; i < 10; i++)
		put_bytes(channel, "not a packet, but as long as one", 32);
	channel->data[MULTIFD_HELLO_BYTES] = 0;
}

static void make_unknown_block(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	put_hello(channel, 0);
	put_packet(channel, 0, "video", 0, 1, 0);
}

static void make_outside(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	put_hello(channel, 0);
	put_packet(channel, 0, "ram", 256, 1, 0);
}

static void make_outside_passed(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	put_hello(channel, 0);
	put_packet(channel, 0, "rom", 16, 1, 0);
}

static void cut(struct bytes *channel, size_t n_bytes)
{
	put_hello(channel, 0);
	put_packet(channel, 0, "ram", 0, 2, 0);
	channel->used = MULTIFD_HELLO_BYTES + n_bytes;
}

static void make_cut_header(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	cut(channel, 100);
}

static void make_cut_offsets(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	cut(channel, MULTIFD_HEADER_BYTES + 100);
}

static void make_cut_pages(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	cut(channel, PACKET_BYTES + 5000);
}

static void make_cut_passed_pages(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	put_hello(channel, 0);
	put_packet(channel, 0, "rom", 0, 2, 0);
	channel->used -= 1;
}

static void make_cut_hello(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	put_hello(channel, 0);
	channel->used -= 1;
}

/* The channel misses the second of two synchronisations. */
static void make_no_sync(struct bytes *main, struct bytes *channel)
{
	put_beginning(main);
	put_ending(main);
	put_number(main, 0, 1);
	put_hello(channel, 0);
	put_packet(channel, 1, "", 0, 0, 0);
}

static const struct breakage breakages[] = {
	{ "QEMU's", -EPROTO, make_garbage, false, false },
	{ "before all memory was sent", -ECONNRESET, make_short, true, false },
	{ "before its devices were sent", -ECONNRESET, make_no_devices, true, false },
	{ "none of the guest's shared memory", -ENOENT, make_none_shared, false, false },
	{ "multifd", -EPROTO, make_no_hello, false, false },
	{ "multifd", -EPROTO, make_no_packet, false, false },
	{ "of block video, which it has not announced", -EPROTO, make_unknown_block, false, false },
	{ "outside its block 'ram'", -EPROTO, make_outside, false, false },
	{ "outside its block 'rom'", -EPROTO, make_outside_passed, false, false },
	{ "multifd connection 1: Connection reset", -ECONNRESET, make_cut_hello, false, true },
	{ "multifd connection 1: Connection reset", -ECONNRESET, make_cut_header, false, true },
	{ "multifd connection 1: Connection reset", -ECONNRESET, make_cut_offsets, false, true },
	{ "multifd connection 1: Connection reset", -ECONNRESET, make_cut_pages, false, true },
	{ "multifd connection 1: Connection reset", -ECONNRESET, make_cut_passed_pages, false,
	  true },
	{ "multifd connection 1 before its last pages", -ECONNRESET, make_no_sync, false, true },
};

static void break_it(const struct breakage *breakage)
{
	struct bytes main = { 0 }, channel = { 0 };
	unsigned n_threads = count_threads();
	struct ramlift_error again = { 0 };
	struct bench bench;

	breakage->make(&main, &channel);
	bench_init(&bench);
	bench_connect(&bench);
	bench_connect(&bench);
	/* A connection that is closed at once belongs to nobody: wait until both were found to be
	 * QEMU's. */
	n_threads += 3;
	fake_carried_await(threads_are_there, &n_threads, "the connections are taken");
	bench_send_all(bench.fds[0], &main);
	if (breakage->close_main)
		bench_disconnect(&bench, 0);
	bench_send_all(bench.fds[1], &channel);
	if (breakage->close_channel)
		bench_disconnect(&bench, 1);
	assert_int_equal(bench_await_failure(&bench, breakage->words), breakage->code);
	assert_false(bench_complete(&bench) && !breakage->close_main);
	/* It is the first failure that counts, for ever. */
	inlet_stop(bench.inlet);
	assert_int_equal(inlet_check(bench.inlet, &again), breakage->code);
	assert_string_equal(again.text, bench.error.text);
	assert_null(strchr(again.text, '\n'));
	assert_false(inlet_ended(bench.inlet));
	assert_int_equal(fake_carried_ends(&bench.source.carried, 0), 0);
	bench_fini(&bench);
	free_bytes(&main);
	free_bytes(&channel);
}

static void test_broken_migrations(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof(breakages) / sizeof(breakages[0]); i++)
		break_it(&breakages[i]);
}

/* The session's channel is dead: the connections of QEMU end with it, each for itself. */
static void test_the_session_fails(void **unused)
{
	struct bytes main = { 0 };
	struct bench bench;

	(void)unused;
	put_beginning(&main);
	bench_init(&bench);
	fake_carried_fail(&bench.source.carried, -EPIPE);
	bench_send_all(bench_connect(&bench), &main);
	assert_int_equal(bench_await_failure(&bench, "the session is over"), -EPIPE);
	assert_true(atomic_load(&bench.source.carried.hastens));
	bench_fini(&bench);
	free_bytes(&main);
}

/* States in which an inlet is stopped. */
static void nothing_came(struct bench *bench)
{
	(void)bench;
}

static void main_is_silent(struct bench *bench)
{
	bench_connect(bench);
}

static void channels_wait_for_the_table(struct bench *bench)
{
	struct bytes channel = { 0 };

	put_hello(&channel, 0);
	put_packet(&channel, 0, "ram", 0, 1, 0);
	for (unsigned i = 0; i < 3; i++)
		bench_connect(bench);
	bench_send_all(bench->fds[1], &channel);
	bench_await_bytes(bench, 1, MULTIFD_HELLO_BYTES);
	free_bytes(&channel);
}

static void a_page_is_half_there(struct bench *bench)
{
	struct bytes main = { 0 }, channel = { 0 };

	make_cut_pages(&main, &channel);
	bench_send_all(bench_connect(bench), &main);
	bench_send_all(bench_connect(bench), &channel);
	bench_await_named(bench, 2);
	free_bytes(&main);
	free_bytes(&channel);
}

static void devices_wait_for_the_release(struct bench *bench)
{
	struct bytes main = { 0 };

	put_beginning(&main);
	put_ending(&main);
	put_bytes(&main, "devices", 7);
	bench_send_all(bench_connect(bench), &main);
	bench_await_complete(bench);
	free_bytes(&main);
}

static void lanes_are_behind(struct bench *bench)
{
	struct bytes main = { 0 }, channel = { 0 };

	atomic_store(&bench->source.carried.backlog_bytes, 1ull << 40);
	put_beginning(&main);
	put_hello(&channel, 0);
	put_packet(&channel, 0, "ram", 0, 1, 0);
	bench_send_all(bench_connect(bench), &main);
	bench_send_all(bench_connect(bench), &channel);
	bench_await_named(bench, 1);
	bench_await_looks(bench);
	free_bytes(&main);
	free_bytes(&channel);
}

static void it_has_ended(struct bench *bench)
{
	devices_wait_for_the_release(bench);
	inlet_release(bench->inlet);
	bench_disconnect(bench, 0);
	bench_await_end(bench, 0);
}

static void test_stop_in_every_state(void **unused)
{
	static void (*const states[])(struct bench * bench) = {
		nothing_came,
		main_is_silent,
		channels_wait_for_the_table,
		a_page_is_half_there,
		devices_wait_for_the_release,
		lanes_are_behind,
		it_has_ended,
	};
	unsigned n_threads = count_threads();

	(void)unused;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		struct bench bench;

		bench_init(&bench);
		states[i](&bench);
		inlet_stop(bench.inlet);
		fake_carried_await(threads_are_gone, &n_threads, "the inlet's threads end");
		/* Stopping is no failure of QEMU's. */
		assert_int_equal(inlet_check(bench.inlet, &bench.error), 0);
		inlet_stop(bench.inlet);
		inlet_close(bench.inlet);
		bench.inlet = NULL;
		for (unsigned j = 0; j < bench.n_fds; j++) {
			if (bench.fds[j] >= 0)
				bench_await_turned_away(bench.fds[j]);
		}
		bench_fini(&bench);
	}
	/* Before it was started, and not at all. */
	for (unsigned i = 0; i < 2; i++) {
		struct bench bench;

		bench_open(&bench);
		if (i)
			bench_connect(&bench);
		bench_fini(&bench);
	}
	inlet_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_another_process_is_turned_away),
		cmocka_unit_test(test_all_but_qemu_are_turned_away),
		cmocka_unit_test(test_too_many_connections),
		cmocka_unit_test(test_broken_migrations),
		cmocka_unit_test(test_the_session_fails),
		cmocka_unit_test(test_stop_in_every_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
