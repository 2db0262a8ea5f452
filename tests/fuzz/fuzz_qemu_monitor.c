/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others say of a QEMU guest. By the first byte the rest is bytes of a QMP monitor, cut into
 * pieces of the length of the second byte; the human monitor's text; or a description from a peer.
 */
#include <errno.h>
#include <stdio.h>

#include "core/ramlift.h"
#include "kvm/qemu/describe.h"
#include "kvm/qemu/monitor_text.h"
#include "kvm/qemu/qmp_input.h"
#include "tests/fuzz/fuzz.h"

/* However the bytes are cut, the same messages come out. */
static unsigned take_messages(const uint8_t *data, size_t size, size_t piece)
{
	struct qmp_input input = { 0 };
	unsigned n_messages = 0;
	json_t *message;
	int ret = 0;

	while (size && (!ret || ret == -EAGAIN)) {
		size_t room_bytes;
		char *room;

		CHECK(!qmp_input_room(&input, &room, &room_bytes, NULL));
		piece = piece < room_bytes ? piece : room_bytes;
		piece = piece < size ? piece : size;
		memcpy(room, data, piece);
		input.used += piece;
		data += piece;
		size -= piece;
		while (!(ret = qmp_input_take(&input, &message, NULL))) {
			CHECK(json_is_object(message));
			json_decref(message);
			n_messages++;
		}
		CHECK(ret == -EAGAIN || ret == -EPROTO);
	}
	qmp_input_fini(&input);
	return n_messages;
}

static void read_text(const char *text)
{
	struct monitor_ramblock block;
	uint64_t gpa, offset, hva;
	const char *at = text;

	while (monitor_next_ramblock(&at, &block)) {
		CHECK(at > text && at <= text + strlen(text));
		CHECK(strlen(block.name) < sizeof(block.name));
	}
	(void)monitor_find_region(text, "mem0", &gpa, &offset);
	(void)monitor_read_hva(text, "mem0", &hva);
}

static void try_description(const uint8_t *data, size_t size)
{
	static struct qemu_guest destination = {
		.version = "7.2.22",
		.numbers = { 7, 2, 22 },
		.machine = "pc-q35-7.2",
		.arch = "x86_64",
		.cpu = "host-x86_64-cpu",
		.n_cpus = 4,
		.status = "inmigrate",
		.n_blocks = 1,
		.blocks = { { .name = "mem0",
			      .id = "mem0",
			      .size_bytes = 1 << 30,
			      .mapping = { .page_size_bytes = RAMLIFT_PAGE_BYTES } } },
	};
	struct ramlift_error error = { 0 };
	json_t *source = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
	int ret = qemu_check(source, &destination, &error);

	CHECK(!ret || ret == -EPROTO || ret == -EINVAL);
	CHECK(!ret || (error.code == ret && error.text[0]));
	for (const char *c = error.text; *c; c++)
		CHECK(*c >= ' ');
	json_decref(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size < 2 || size > 65536)
		return 0;
	if (data[0] % 4 == 0) {
		CHECK(take_messages(data + 2, size - 2, data[1] + 1u) ==
		      take_messages(data + 2, size - 2, size));
	} else if (data[0] % 4 == 1) {
		text = malloc(size);
		CHECK(text);
		memcpy(text, data + 1, size - 1);
		text[size - 1] = '\0';
		read_text(text);
		free(text);
	} else {
		try_description(data + 1, size - 1);
	}
	return 0;
}
