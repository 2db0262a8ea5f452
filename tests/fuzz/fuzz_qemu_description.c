/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer says of its guest's memory, for a QEMU with a monitor and between two proxies: what
 * is taken is in bounds and reads the same when it is described again. The first byte chooses.
 */
#include <errno.h>

#include "core/ramlift.h"
#include "kvm/qemu/describe.h"
#include "kvm/qemu/proxy_description.h"
#include "tests/fuzz/fuzz.h"

static void check_error(int ret, const struct ramlift_error *error)
{
	CHECK(ret == -EPROTO || ret == -EINVAL);
	CHECK(error->code == ret && error->text[0]);
	for (const char *c = error->text; *c; c++)
		CHECK(*c >= ' ');
}

/* Two blocks, huge pages, and KVM: what can differ. */
static void try_check(const uint8_t *data, size_t size)
{
	static const struct qemu_guest destination = {
		.version = "8.2.1",
		.numbers = { 8, 2, 1 },
		.machine = "pc-i440fx-7.2",
		.arch = "x86_64",
		.cpu = "qemu64-x86_64-cpu",
		.n_cpus = 2,
		.status = "inmigrate",
		.kvm = true,
		.n_blocks = 2,
		.blocks = { { .name = "node0",
			      .id = "node0",
			      .size_bytes = 1 << 30,
			      .mapping = { .page_size_bytes = 2 << 20 } },
			    { .name = "node1",
			      .id = "node1",
			      .size_bytes = 256 << 20,
			      .mapping = { .page_size_bytes = RAMLIFT_PAGE_BYTES } } },
	};
	struct ramlift_error error = { 0 };
	json_t *source = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
	int ret = qemu_check(source, &destination, &error);

	if (ret)
		check_error(ret, &error);
	json_decref(source);
}

static void check_block(const struct stream_block *block)
{
	size_t length = strnlen(block->name, sizeof(block->name));

	CHECK(length && length < sizeof(block->name));
	for (size_t i = 0; i < length; i++)
		CHECK(block->name[i] >= ' ' && block->name[i] <= '~');
	CHECK(block->size_bytes && block->size_bytes <= INT64_MAX);
	CHECK(!block->carried);
}

static void try_proxy(const uint8_t *data, size_t size)
{
	/* On the heap: what is written behind the end must be seen. */
	struct stream_block *blocks = calloc(RAMLIFT_MAX_REGIONS, sizeof(blocks[0]));
	struct stream_block *again = calloc(RAMLIFT_MAX_REGIONS, sizeof(again[0]));
	int regions[RAMLIFT_MAX_REGIONS];
	struct ramlift_error error = { 0 };
	unsigned n_blocks = 12345, n_again;
	char *text;
	int ret;

	CHECK(blocks && again);
	ret = proxy_read_description(data, size, blocks, &n_blocks, &error);
	if (ret) {
		check_error(ret, &error);
		CHECK(n_blocks == 12345);
	} else {
		CHECK(n_blocks && n_blocks <= RAMLIFT_MAX_REGIONS);
		for (unsigned i = 0; i < n_blocks; i++) {
			check_block(&blocks[i]);
			regions[i] = (int)i;
		}
		text = proxy_describe(blocks, regions, n_blocks);
		CHECK(text);
		CHECK(!proxy_read_description(text, strlen(text), again, &n_again, &error));
		CHECK(n_again == n_blocks);
		CHECK(!memcmp(again, blocks, n_blocks * sizeof(blocks[0])));
		free(text);
	}
	free(blocks);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size || size > 65536)
		return 0;
	if (data[0] % 2)
		try_check(data + 1, size - 1);
	else
		try_proxy(data + 1, size - 1);
	return 0;
}
