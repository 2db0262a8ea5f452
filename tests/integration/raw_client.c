/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that says what no source of ours would say, over a connection that is protected as one of
 * ours: prints how the destination answers, as its type and its words.
 *
 *     raw_client ADDRESS TLS-DIR replay GUEST SESSION GENERATION    an OFFER with that session id
 *     raw_client ADDRESS TLS-DIR skew                               a frame of the next version
 *     raw_client ADDRESS TLS-DIR silent SECONDS                     nothing, for so long
 *
 * TLS-DIR "-": without TLS. Exit status: 0 there was an answer, 1 there was none, 2 usage.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/channel.h"
#include "core/clock.h"
#include "core/journal.h"

#define PATIENCE_NS (10 * NS_PER_S)

static int complain(const struct ramlift_error *error)
{
	printf("nothing: %s\n", error->text);
	return 1;
}

static struct stream *open_stream(const char *to, const char *tls_dir, struct ramlift_error *error)
{
	static const char *const anybody[] = { "*" };
	const struct ramlift_security config = {
		.tls_dir = strcmp(tls_dir, "-") ? tls_dir : NULL,
		.allow = anybody,
		.n_allow = 1,
	};
	uint64_t deadline_ns = clock_now_ns() + PATIENCE_NS;
	struct stream *stream = NULL;
	struct security *security;
	struct address address;
	char host[256];
	int fd;

	address_host(to, host, sizeof(host));
	if (address_parse(to, 0, &address, error) || security_new(&config, &security, error))
		return NULL;
	if (!address_connect(&address, deadline_ns, -1, &fd, error))
		stream_connect(fd, security, host, deadline_ns, -1, &stream, error);
	security_free(security);
	return stream;
}

static int show_answer(struct channel *channel, struct ramlift_error *error)
{
	struct abort_message abort = { .code = 0 };
	struct message *message;

	if (channel_receive(channel, clock_now_ns() + PATIENCE_NS, -1, &message, error)) {
		channel_close(channel);
		return complain(error);
	}
	if (message->type == MESSAGE_ABORT)
		abort_decode(message->payload, message->length_bytes, &abort);
	printf("%s %s\n", message_name(message->type), abort.text);
	free(message);
	channel_close(channel);
	return 0;
}

/* A guest that could be taken, as far as an OFFER tells. */
static int replay(struct stream *stream, char **words, struct ramlift_error *error)
{
	struct offer offer = {
		.generation = (uint32_t)atoi(words[2]),
		.n_rails = 1,
		.n_lanes = 1,
		.slice_bytes = 2u << 20,
		.n_transports = 1,
		.transports = { "tcp" },
		.n_regions = 1,
		.regions = { { .size_bytes = 64u << 20,
			       .page_size_bytes = 4096,
			       .numa_node = -1 } },
	};
	struct channel *channel;
	uint32_t length;
	void *payload;

	snprintf(offer.name, sizeof(offer.name), "%s", words[0]);
	if (!journal_session_parse(words[1], offer.session_id))
		return 2;
	if (channel_open(stream, PATIENCE_NS, &channel, error))
		return complain(error);
	payload = offer_encode(&offer, &length);
	channel_send_owned(channel, MESSAGE_OFFER, payload, length, error);
	return show_answer(channel, error);
}

static int skew(struct stream *stream, struct ramlift_error *error)
{
	const struct wire_header header = { .type = MESSAGE_OFFER, .length_bytes = 0 };
	uint64_t deadline_ns = clock_now_ns() + PATIENCE_NS;
	uint8_t bytes[WIRE_HEADER_BYTES];
	struct channel *channel;

	wire_header_encode(&header, bytes);
	bytes[1]++;
	stream_send(stream, bytes, sizeof(bytes), deadline_ns, -1);
	if (channel_open(stream, PATIENCE_NS, &channel, error))
		return complain(error);
	return show_answer(channel, error);
}

int main(int argc, char **argv)
{
	struct ramlift_error error = { .code = 0 };
	struct stream *stream;
	int ret = 2;

	if (argc < 4)
		return 2;
	stream = open_stream(argv[1], argv[2], &error);
	if (!stream)
		return complain(&error);
	if (!strcmp(argv[3], "replay") && argc == 7)
		return replay(stream, argv + 4, &error);
	if (!strcmp(argv[3], "skew"))
		return skew(stream, &error);
	if (!strcmp(argv[3], "silent") && argc == 5)
		ret = sleep((unsigned)atoi(argv[4])) ? 1 : 0;
	stream_free(stream);
	return ret;
}
