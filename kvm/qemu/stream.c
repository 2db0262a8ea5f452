/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main channel around the RAM section: QEMU's migration/savevm.c and docs/devel/migration say
 * what is in it. Numbers are big-endian.
 */
#include "kvm/qemu/stream_private.h"

#include <errno.h>
#include <stdlib.h>

#include "core/error.h"

#define QEMU_MAGIC   0x5145564du /* "QEVM" */
#define QEMU_VERSION 3u

enum {
	VM_EOF = 0x00,
	VM_SECTION_START = 0x01,
	VM_SECTION_PART = 0x02,
	VM_SECTION_END = 0x03,
	VM_SECTION_FULL = 0x04,
	VM_SUBSECTION = 0x05,
	VM_CONFIGURATION = 0x07,
	VM_COMMAND = 0x08,
	VM_FOOTER = 0x7e,
};

#define RAM_VERSION 4u

/* Every item but a section's records has a name of at most 255 bytes in it. */
_Static_assert(STREAM_ITEM_BYTES >= 6 + 255 + 8, "the longest item is a section's head");

static int type_step(struct qemu_stream *stream, struct ramlift_error *error);

struct stream_text stream_text(const uint8_t *bytes, size_t n_bytes)
{
	struct stream_text text;
	size_t i;

	for (i = 0; i < n_bytes && i < sizeof(text.text) - 1; i++)
		text.text[i] = bytes[i] >= ' ' && bytes[i] <= '~' ? (char)bytes[i] : '?';
	text.text[i] = '\0';
	return text;
}

int stream_flush(struct qemu_stream *stream, struct ramlift_error *error)
{
	size_t used = stream->used;

	stream->used = 0;
	return used ? stream->sink.pass(stream->context, stream->output, used, error) : 0;
}

int stream_output(struct qemu_stream *stream, const void *bytes, size_t n_bytes,
		  struct ramlift_error *error)
{
	int ret;

	if (n_bytes > sizeof(stream->output) - stream->used) {
		ret = stream_flush(stream, error);
		if (ret)
			return ret;
	}
	memcpy(stream->output + stream->used, bytes, n_bytes);
	stream->used += n_bytes;
	return 0;
}

static int damaged(struct ramlift_error *error, const char *what)
{
	return error_set(error, -EPROTO,
			 "QEMU's migration stream is damaged, or of a kind that Ramlift does not "
			 "know: %s",
			 what);
}

/* The item's type is known: it is longer. */
static int more(struct qemu_stream *stream, stream_step step, size_t want)
{
	stream->step = step;
	stream->want = want;
	return 0;
}

/* The item is passed on, and something new begins. */
static int next_type(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret = stream_item_pass(stream, error);

	stream->configuration_allowed = false;
	stream->footer_allowed = false;
	stream_expect(stream, type_step, 1);
	return ret;
}

static int magic_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret;

	if (stream_u32(stream->item) != QEMU_MAGIC)
		return error_set(error, -EPROTO,
				 "what came is no migration stream of QEMU's: check which address "
				 "QEMU migrates to");
	if (stream_u32(stream->item + 4) != QEMU_VERSION)
		return error_set(error, -EOPNOTSUPP,
				 "QEMU's migration stream has version %u, and Ramlift knows %u: "
				 "use a newer QEMU",
				 stream_u32(stream->item + 4), QEMU_VERSION);
	ret = next_type(stream, error);
	stream->configuration_allowed = true;
	return ret;
}

/* type, length 4, the machine's name. */
static int configuration_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	uint32_t length = stream_u32(stream->item + 1);

	if (length >= STREAM_MAX_NAME)
		return damaged(error, "the machine's name is too long");
	stream->want = 5 + length;
	return stream->have < stream->want ? 0 : next_type(stream, error);
}

static const struct {
	const char *name;
	const char *capabilities;
} subsections[] = {
	{ "configuration/capabilities",
	  "switch the migration capabilities 'x-ignore-shared' and 'mapped-ram' off" },
	{ "configuration/uuid", "switch the migration capability 'validate-uuid' off" },
	{ "configuration/target-page-bits", "Ramlift carries guests with pages of 4 KiB only" },
};

/* type, length 1, name. Its own length cannot be known. */
static int subsection_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	const char *remedy = "Ramlift does not know this version of QEMU";
	struct stream_text name;

	stream->want = 2u + stream->item[1];
	if (stream->have < stream->want)
		return 0;
	name = stream_text(stream->item + 2, stream->item[1]);
	for (size_t i = 0; i < sizeof(subsections) / sizeof(subsections[0]); i++) {
		if (!strcmp(name.text, subsections[i].name))
			remedy = subsections[i].capabilities;
	}
	return error_set(error, -EOPNOTSUPP,
			 "QEMU's migration stream has the subsection '%s', which Ramlift does not "
			 "carry: %s",
			 name.text, remedy);
}

#define POSTCOPY "switch the migration capability 'postcopy-ram' off"

/* remedy NULL: harmless, and has length_bytes. */
static const struct {
	const char *name;
	const char *remedy;
	unsigned length_bytes;
} commands[] = {
	[1] = { "OPEN_RETURN_PATH", NULL, 0 },
	[2] = { "PING", NULL, 4 },
	[3] = { "POSTCOPY_ADVISE", POSTCOPY, 0 },
	[4] = { "POSTCOPY_LISTEN", POSTCOPY, 0 },
	[5] = { "POSTCOPY_RUN", POSTCOPY, 0 },
	[6] = { "POSTCOPY_RAM_DISCARD", POSTCOPY, 0 },
	[7] = { "PACKAGED", POSTCOPY, 0 },
	[8] = { "ENABLE_COLO", "switch the migration capability 'x-colo' off", 0 },
	[9] = { "POSTCOPY_RESUME", POSTCOPY, 0 },
	[10] = { "RECV_BITMAP", POSTCOPY, 0 },
	[11] = { "SWITCHOVER_START", NULL, 0 }, /* QEMU 10.0 and later */
};

/* type, command 2, length 2, data. */
static int command_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	unsigned command = stream->item[1] << 8 | stream->item[2];
	unsigned length = stream->item[3] << 8 | stream->item[4];

	if (command >= sizeof(commands) / sizeof(commands[0]) || !commands[command].name)
		return error_set(error, -EOPNOTSUPP,
				 "QEMU's migration stream has the command %u: Ramlift does not "
				 "know this version of QEMU",
				 command);
	if (commands[command].remedy)
		return error_set(error, -EOPNOTSUPP,
				 "QEMU's migration stream has the command %s, which Ramlift does "
				 "not carry: %s",
				 commands[command].name, commands[command].remedy);
	if (length != commands[command].length_bytes)
		return damaged(error, "a command has a wrong length");
	stream->want = 5 + length;
	return stream->have < stream->want ? 0 : next_type(stream, error);
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text);

	return length >= strlen(end) && !strcmp(text + length - strlen(end), end);
}

/* A device whose state Ramlift would have to understand in order to find its end. */
static int refuse_section(const char *name, bool early, struct ramlift_error *error)
{
	const char *remedy = "remove the device from the guest";

	if (!strcmp(name, "block"))
		remedy = "migrate without 'blk' and with the migration capability 'block' off";
	else if (!strcmp(name, "dirty-bitmap"))
		remedy = "switch the migration capability 'dirty-bitmaps' off";
	else if (ends_with(name, "/vfio"))
		remedy = "unplug the VFIO device from the guest";
	return error_set(error, -EOPNOTSUPP,
			 early ? "'%s' sends its state ahead of the guest's RAM, which Ramlift "
				 "does not carry: %s"
			       : "'%s' sends its state while the guest runs, which Ramlift does "
				 "not carry: %s",
			 name, remedy);
}

/* type, id 4, length 1, name, instance 4, version 4. */
static int section_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	size_t length = stream->item[5];
	const uint8_t *numbers = stream->item + 6 + length;
	bool early = stream->item[0] == VM_SECTION_FULL;
	struct stream_text name;
	int ret;

	stream->want = 6 + length + 8;
	if (stream->have < stream->want)
		return 0;
	name = stream_text(stream->item + 6, length);
	if (early || strcmp(name.text, "ram"))
		return refuse_section(name.text, early, error);
	if (stream->ram_started || stream_u32(numbers))
		return error_set(error, -EOPNOTSUPP,
				 "QEMU's migration stream has a second RAM section: Ramlift does "
				 "not know this version of QEMU");
	if (stream_u32(numbers + 4) != RAM_VERSION)
		return error_set(error, -EOPNOTSUPP,
				 "QEMU's RAM section has version %u, and Ramlift knows %u",
				 stream_u32(numbers + 4), RAM_VERSION);
	stream->ram_started = true;
	stream->ram_id = stream_u32(stream->item + 1);
	ret = next_type(stream, error);
	stream_expect(stream, stream_ram_record, STREAM_RECORD_BYTES);
	return ret;
}

/* type, id 4. */
static int continuation_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret;

	if (!stream->ram_started || stream_u32(stream->item + 1) != stream->ram_id)
		return damaged(error, "a section goes on that never began");
	stream->ram_ends = stream->item[0] == VM_SECTION_END;
	ret = next_type(stream, error);
	stream_expect(stream, stream_ram_record, STREAM_RECORD_BYTES);
	return ret;
}

static int ram_end(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret = stream_flush(stream, error);

	if (!ret)
		ret = stream->sink.ram_end(stream->context, error);
	if (!ret)
		stream->opaque = true;
	return ret;
}

/* type, id 4. */
static int footer_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret;

	if (stream_u32(stream->item + 1) != stream->ram_id)
		return damaged(error, "a section's footer does not belong to it");
	ret = next_type(stream, error);
	return ret || !stream->ram_ends ? ret : ram_end(stream, error);
}

/*
 * Behind the END's last record. Footers may be switched off: then this byte is the first that is
 * opaque. No section has the footer's type.
 */
static int after_end_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret;

	if (stream->item[0] == VM_FOOTER)
		return more(stream, footer_step, 5);
	ret = ram_end(stream, error);
	return ret ? ret : stream_item_pass(stream, error);
}

int stream_ram_section_ends(struct qemu_stream *stream, struct ramlift_error *error)
{
	int ret = next_type(stream, error);

	stream->footer_allowed = true;
	if (stream->ram_ends)
		stream_expect(stream, after_end_step, 1);
	return ret;
}

static int type_step(struct qemu_stream *stream, struct ramlift_error *error)
{
	switch (stream->item[0]) {
	case VM_CONFIGURATION:
		if (stream->configuration_allowed)
			return more(stream, configuration_step, 5);
		break;
	case VM_SUBSECTION:
		return more(stream, subsection_step, 2);
	case VM_COMMAND:
		return more(stream, command_step, 5);
	case VM_SECTION_START:
	case VM_SECTION_FULL:
		return more(stream, section_step, 6);
	case VM_SECTION_PART:
	case VM_SECTION_END:
		return more(stream, continuation_step, 5);
	case VM_FOOTER:
		if (stream->footer_allowed)
			return more(stream, footer_step, 5);
		break;
	case VM_EOF:
		return damaged(error, "it ends before the end of the guest's RAM");
	}
	return error_set(error, -EPROTO,
			 "QEMU's migration stream is damaged, or of a kind that Ramlift does not "
			 "know: a section of type 0x%02x is out of place",
			 stream->item[0]);
}

/* The rest of a page's content. */
static int take_page(struct qemu_stream *stream, const uint8_t *bytes, size_t n_bytes,
		     size_t *taken, struct ramlift_error *error)
{
	*taken = n_bytes < stream->page_left_bytes ? n_bytes : stream->page_left_bytes;
	stream->page_left_bytes -= *taken;
	return stream->page_passes ? stream_output(stream, bytes, *taken, error) : 0;
}

static int take_item(struct qemu_stream *stream, const uint8_t *bytes, size_t n_bytes,
		     size_t *taken, struct ramlift_error *error)
{
	size_t missing = stream->want - stream->have;

	*taken = n_bytes < missing ? n_bytes : missing;
	memcpy(stream->item + stream->have, bytes, *taken);
	stream->have += *taken;
	return stream->have < stream->want ? 0 : stream->step(stream, error);
}

static int feed(struct qemu_stream *stream, const uint8_t *bytes, size_t n_bytes,
		struct ramlift_error *error)
{
	size_t taken;
	int ret = 0;

	for (; n_bytes && !stream->opaque && !ret; bytes += taken, n_bytes -= taken) {
		if (stream->page_left_bytes)
			ret = take_page(stream, bytes, n_bytes, &taken, error);
		else
			ret = take_item(stream, bytes, n_bytes, &taken, error);
	}
	if (!ret)
		ret = stream_flush(stream, error);
	if (!ret && n_bytes)
		ret = stream->sink.pass(stream->context, bytes, n_bytes, error);
	return ret;
}

int qemu_stream_feed(struct qemu_stream *stream, const void *bytes, size_t n_bytes,
		     struct ramlift_error *error)
{
	struct ramlift_error *failure = &stream->failure;

	if (!failure->code)
		failure->code = feed(stream, bytes, n_bytes, failure);
	return failure->code ? error_set(error, failure->code, "%s", failure->text) : 0;
}

uint64_t qemu_stream_syncs(const struct qemu_stream *stream)
{
	return stream->n_flushes ? stream->n_flushes : stream->n_section_ends;
}

bool qemu_stream_complete(const struct qemu_stream *stream)
{
	return stream->opaque;
}

int qemu_stream_new(const struct stream_sink *sink, void *context, struct qemu_stream **result,
		    struct ramlift_error *error)
{
	struct qemu_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return error_set(error, -ENOMEM, "no memory for QEMU's migration stream");
	stream->sink = *sink;
	stream->context = context;
	stream_expect(stream, magic_step, 8);
	*result = stream;
	return 0;
}

void qemu_stream_free(struct qemu_stream *stream)
{
	free(stream);
}
