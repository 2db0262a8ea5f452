/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inlet against captured migrations of QEMU 7.2 and packets made by hand: which pages it names,
 * what it passes on, when all is there, and that it reads no faster than lanes get through.
 */
#include "unit.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "inlet_fixture.h"

/* Long enough for what must not happen; a slow machine only makes the test milder. */
#define SETTLE_US 20000

static atomic_bool hold_connections;

int __real_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	if (atomic_load(&hold_connections)) {
		errno = EAGAIN;
		return -1;
	}
	return __real_accept4(fd, address, length, flags);
}

/* What the parser makes of a main channel; tested for itself. */
static void parse_main(const struct bytes *bytes, struct record *record)
{
	struct qemu_stream *stream;

	*record = (struct record){ .carried = "ram" };
	assert_int_equal(qemu_stream_new(&record_sink, record, &stream, NULL), 0);
	assert_int_equal(feed(stream, bytes, bytes->used, NULL), 0);
	record->blocks = NULL; /* goes with the stream */
	qemu_stream_free(stream);
}

/* What is to be left of a channel: no pages of "ram", all of the others. *last: where its last
 * packet begins. */
static void parse_channel(const struct bytes *bytes, struct bytes *expected, size_t *last)
{
	struct multifd_packet packet;
	size_t at = MULTIFD_HELLO_BYTES;

	memset(expected, 0, sizeof(*expected));
	put_bytes(expected, bytes->data, at);
	while (at < bytes->used) {
		size_t size;
		bool shared;

		assert_int_equal(multifd_header_decode(bytes->data + at, &packet, NULL), 0);
		size = PACKET_BYTES + packet.data_bytes;
		shared = packet.n_normal && !strcmp(packet.block, "ram");
		*last = at;
		if (!shared)
			put_bytes(expected, bytes->data + at, size);
		else if (multifd_is_sync(&packet))
			fail_msg("the capture has changed: a synchronisation with pages");
		at += size;
	}
}

/* The guest of the captures has 512 pages, of which 10 are not zeros: 37 i + 3. */
static void assert_named_once(struct bench *bench)
{
	for (unsigned i = 0; i < 512; i++) {
		bool zeros = i % 37 != 3 || i > 37 * 9 + 3;

		assert_int_equal(bench->source.carried.named[0][i], 1);
		assert_int_equal(bench->source.carried.zeros[0][i], zeros);
	}
	assert_int_equal(bench->source.carried.n_named, 512);
	assert_true(atomic_load(&bench->source.carried.wakes));
}

static bool has_ended(void *context)
{
	struct bench *bench = context;

	return inlet_ended(bench->inlet);
}

/* Nothing behind the RAM section has been passed; then it is, and QEMU hangs up. */
static void release_and_end(struct bench *bench, const struct record *record)
{
	bench_await_complete(bench);
	bench_await_bytes(bench, 0, record->passed_at_end);
	usleep(SETTLE_US);
	bench_assert_bytes(bench, 0, record->passed.data, record->passed_at_end);
	assert_false(inlet_ended(bench->inlet));
	inlet_release(bench->inlet);
	bench_disconnect(bench, 0);
	fake_carried_await(has_ended, bench, "QEMU's end");
	bench_await_end(bench, 0);
	bench_assert_bytes(bench, 0, record->passed.data, record->passed.used);
	assert_true(bench_complete(bench));
}

static void test_captured_main(void **unused)
{
	struct record record;
	struct bench bench;
	struct bytes bytes;

	(void)unused;
	load_stream(&bytes, "qemu-7.2-plain-main");
	parse_main(&bytes, &record);
	bench_init(&bench);
	bench_send_all(bench_connect(&bench), &bytes);
	release_and_end(&bench, &record);
	inlet_stop(bench.inlet);
	assert_int_equal(inlet_check(bench.inlet, &bench.error), 0);
	assert_named_once(&bench);
	assert_int_equal(bench.source.carried.streams[0].n_ends, 1);
	bench_fini(&bench);
	free_record(&record);
	free_bytes(&bytes);
}

/* In small pieces, after a look at the beginning. */
static void test_captured_main_after_a_peek(void **unused)
{
	struct stream_block blocks[STREAM_MAX_BLOCKS];
	struct record record;
	struct bench bench;
	struct bytes bytes;
	unsigned n_blocks;
	pid_t pid = 0;
	int fd;

	(void)unused;
	load_stream(&bytes, "qemu-7.2-plain-main");
	parse_main(&bytes, &record);
	bench_open(&bench);
	fd = bench_connect(&bench);
	bench_send(fd, &bytes, 0, 1000);
	assert_int_equal(inlet_peek(bench.inlet, -1, &pid, blocks, &n_blocks, &bench.error), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(n_blocks, 6);
	bench_start(&bench);
	for (size_t at = 1000; at < bytes.used; at += 3333)
		bench_send(fd, &bytes, at, bytes.used - at < 3333 ? bytes.used - at : 3333);
	release_and_end(&bench, &record);
	assert_named_once(&bench);
	bench_fini(&bench);
	free_record(&record);
	free_bytes(&bytes);
}

/* One channel comes before the table of blocks, the other one's end after all of the main one. */
static void test_captured_multifd(void **unused)
{
	struct bytes main, channels[2], expected[2];
	struct record record;
	struct bench bench;
	size_t last[2];

	(void)unused;
	load_stream(&main, "qemu-7.2-multifd-main");
	parse_main(&main, &record);
	load_stream(&channels[0], "qemu-7.2-multifd-channel0");
	load_stream(&channels[1], "qemu-7.2-multifd-channel1");
	parse_channel(&channels[0], &expected[0], &last[0]);
	parse_channel(&channels[1], &expected[1], &last[1]);
	bench_init(&bench);
	for (unsigned i = 0; i < 3; i++)
		bench_connect(&bench);
	bench_send_all(bench.fds[1], &channels[0]);
	bench_await_bytes(&bench, 1, MULTIFD_HELLO_BYTES);
	bench_send_all(bench.fds[0], &main);
	bench_send(bench.fds[2], &channels[1], 0, last[1]);
	bench_await_bytes(&bench, 0, record.passed_at_end);
	bench_await_bytes(&bench, 1, expected[0].used);
	bench_await_bytes(&bench, 2, expected[1].used - PACKET_BYTES);
	bench_await_named(&bench, 512);
	usleep(SETTLE_US);
	assert_false(bench_complete(&bench));
	/* Half of a packet is not enough. */
	bench_send(bench.fds[2], &channels[1], last[1], 100);
	usleep(SETTLE_US);
	assert_false(bench_complete(&bench));
	bench_send(bench.fds[2], &channels[1], last[1] + 100, channels[1].used - last[1] - 100);
	release_and_end(&bench, &record);
	for (unsigned i = 0; i < 2; i++) {
		bench_disconnect(&bench, i + 1);
		bench_await_end(&bench, i + 1);
		bench_assert_bytes(&bench, i + 1, expected[i].data, expected[i].used);
		free_bytes(&channels[i]);
		free_bytes(&expected[i]);
	}
	inlet_stop(bench.inlet);
	assert_int_equal(inlet_check(bench.inlet, &bench.error), 0);
	assert_named_once(&bench);
	bench_fini(&bench);
	free_record(&record);
	free_bytes(&main);
}

/* It waits in the kernel's queue, and may have pages. */
static void test_a_connection_not_taken_yet_counts(void **unused)
{
	struct bytes main = { 0 }, channel = { 0 };
	struct bench bench;

	(void)unused;
	put_beginning(&main);
	put_hello(&channel, 0);
	put_packet(&channel, 1, "ram", 5, 1, 0);
	put_packet(&channel, 1, "", 0, 0, 0);
	bench_init(&bench);
	bench_send_all(bench_connect(&bench), &main);
	bench_await_bytes(&bench, 0, main.used);
	atomic_store(&hold_connections, true);
	bench_send_all(bench_connect(&bench), &channel);
	free_bytes(&main);
	put_ending(&main);
	bench_send_all(bench.fds[0], &main);
	usleep(SETTLE_US);
	assert_false(bench_complete(&bench));
	assert_int_equal(fake_carried_named(&bench.source.carried), 0);
	atomic_store(&hold_connections, false);
	bench_await_complete(&bench);
	assert_int_equal(bench.source.carried.named[0][5], 1);
	bench_fini(&bench);
	free_bytes(&main);
	free_bytes(&channel);
}

/* Records of pages in the main channel and packets of QEMU 9, with zero
 * pages; two shared blocks. */
static void test_pages_by_hand(void **unused)
{
	struct bytes main = { 0 }, channel = { 0 }, expected = { 0 };
	struct bench bench;

	(void)unused;
	put_header(&main, "pc-i440fx-9.0");
	put_section(&main, 0x01, "ram", 0, 4);
	put_number(&main, 0x340000 | 0x04, 8);
	put_table_entry(&main, "ram", 0x100000);
	put_table_entry(&main, "rom", 0x40000);
	put_table_entry(&main, "second", 0x200000);
	put_section_ends(&main, true);
	put_ram_continues(&main, false);
	put_record(&main, 0x1000, ZERO, "second");
	put_record(&main, 0x2000, PAGE | CONTINUE, NULL);
	put_record(&main, 0x0, PAGE, "rom");
	put_record(&main, 0x0, PAGE, "ram");
	put_record(&main, 0xff000, ZERO | CONTINUE, NULL);
	put_section_ends(&main, true);
	put_ending(&main);

	put_hello(&channel, 0);
	put_packet(&channel, 0, "second", 10, 100, 28);
	put_packet(&channel, 1, "second", 500, 3, 9);
	put_packet(&channel, 0, "rom", 2, 40, 1);
	put_packet(&channel, 1, "", 0, 0, 0);
	put_packet(&channel, 0, "ram", 128, 0, 128 - 1);
	put_packet(&channel, 1, "", 0, 0, 0);

	put_hello(&expected, 0);
	put_packet(&expected, 1, "", 0, 0, 0);
	put_packet(&expected, 0, "rom", 2, 40, 1);
	put_packet(&expected, 1, "", 0, 0, 0);
	put_packet(&expected, 1, "", 0, 0, 0);

	bench_init(&bench);
	bench_send_all(bench_connect(&bench), &main);
	bench_send_all(bench_connect(&bench), &channel);
	bench_await_complete(&bench);
	bench_assert_bytes(&bench, 1, expected.data, expected.used);
	assert_int_equal(fake_carried_named(&bench.source.carried), 4 + 128 + 12 + 127);
	for (unsigned i = 0; i < 512; i++) {
		bool in_second = i == 1 || i == 2 || (i >= 10 && i < 138) || i >= 500;

		assert_int_equal(bench.source.carried.named[1][i], in_second);
		assert_int_equal(bench.source.carried.named[0][i], i == 0 || (i >= 128 && i < 256));
	}
	bench_fini(&bench);
	free_bytes(&main);
	free_bytes(&channel);
	free_bytes(&expected);
}

static void test_return_path(void **unused)
{
	struct bytes main = { 0 };
	struct bench bench;
	char words[16];
	int fd;

	(void)unused;
	put_beginning(&main);
	bench_init(&bench);
	assert_int_equal(inlet_write(bench.inlet, "early", 5, &bench.error), -EPROTO);
	fd = bench_connect(&bench);
	bench_send_all(fd, &main);
	bench_await_bytes(&bench, 0, main.used);
	assert_int_equal(inlet_write(bench.inlet, "loaded", 6, &bench.error), 0);
	assert_int_equal(inlet_write(bench.inlet, " all", 4, &bench.error), 0);
	assert_int_equal(recv(fd, words, 10, MSG_WAITALL), 10);
	assert_memory_equal(words, "loaded all", 10);
	assert_int_equal(inlet_write(bench.inlet, NULL, 0, &bench.error), 0);
	assert_int_equal(recv(fd, words, 1, 0), 0);
	/* QEMU has closed its end: what it would be told is of no interest. */
	bench_disconnect(&bench, 0);
	bench_await_failure(&bench, "before all memory was sent");
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(inlet_write(bench.inlet, "loaded", 6, &bench.error), 0);
	bench_fini(&bench);
	free_bytes(&main);
}

/* Each reader takes no more than one read while lanes are behind. */
static void test_lanes_set_the_pace(void **unused)
{
	struct bytes main = { 0 }, channel = { 0 };
	struct bench bench;
	unsigned n_named;

	(void)unused;
	put_beginning(&main);
	put_hello(&channel, 0);
	for (unsigned i = 0; i < 8; i++)
		put_packet(&channel, 0, "ram", 10 * i, 10, 0);
	bench_init(&bench);
	bench_send_all(bench_connect(&bench), &main);
	bench_await_bytes(&bench, 0, main.used);
	atomic_store(&bench.source.carried.backlog_bytes, (2 << 20) + 1);
	bench_send_all(bench_connect(&bench), &channel);
	bench_await_named(&bench, 10);
	bench_await_looks(&bench);
	assert_int_equal(fake_carried_named(&bench.source.carried), 10);
	/* Never less than 2 MiB. */
	inlet_set_window(bench.inlet, 0);
	atomic_store(&bench.source.carried.backlog_bytes, 2 << 20);
	bench_await_named(&bench, 80);

	/* The main channel: whether it was waiting already or reads once more, then it stands. */
	free_bytes(&main);
	put_ram_continues(&main, false);
	put_record(&main, 0x80000, PAGE, "ram");
	atomic_store(&bench.source.carried.backlog_bytes, 1ull << 40);
	bench_send_all(bench.fds[0], &main);
	bench_await_looks(&bench);
	n_named = fake_carried_named(&bench.source.carried);
	free_bytes(&main);
	put_record(&main, 0x81000, PAGE, "ram");
	bench_send_all(bench.fds[0], &main);
	bench_await_looks(&bench);
	assert_int_equal(fake_carried_named(&bench.source.carried), n_named);
	inlet_set_window(bench.inlet, 1ull << 40);
	bench_await_named(&bench, 82);
	assert_int_equal(inlet_check(bench.inlet, &bench.error), 0);
	bench_fini(&bench);
	free_bytes(&main);
	free_bytes(&channel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_captured_main),
		cmocka_unit_test(test_captured_main_after_a_peek),
		cmocka_unit_test(test_captured_multifd),
		cmocka_unit_test(test_a_connection_not_taken_yet_counts),
		cmocka_unit_test(test_pages_by_hand),
		cmocka_unit_test(test_return_path),
		cmocka_unit_test(test_lanes_set_the_pace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
