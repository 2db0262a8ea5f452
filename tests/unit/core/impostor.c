/* SPDX-License-Identifier: Apache-2.0 */
/* A side played by hand; see the header. */
#include "impostor.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/cmocka_all.h"

void impostor_init(struct impostor *impostor)
{
	memset(impostor, 0, sizeof(*impostor));
	impostor->memory = calloc(N_SLICES, SLICE_BYTES);
	assert_non_null(impostor->memory);
	for (unsigned i = 0; i < N_SLICES; i++)
		impostor->slices[i] =
			(struct slice){ impostor->memory + i * SLICE_BYTES, SLICE_BYTES };
	impostor->params = (struct transport_params){ .n_rails = 1,
						      .n_lanes = 1,
						      .slices = impostor->slices,
						      .n_slices = N_SLICES,
						      .interrupt_fd = -1,
						      .io_timeout_ns = 60 * NS_PER_S };
}

void impostor_fini(struct impostor *impostor)
{
	channel_close(impostor->channel);
	memory_transport()->close(impostor->endpoint);
	free(impostor->memory);
}

/* host: of the destination; NULL: this is it. */
void open_channel(struct impostor *impostor, int fd, const char *host)
{
	const struct ramlift_security config = { 0 };
	struct ramlift_error error = { 0 };
	struct security *security;
	struct stream *stream;
	int ret;

	assert_int_equal(security_new(&config, &security, NULL), 0);
	ret = host ? stream_connect(fd, security, host, LONG_NS, -1, &stream, &error)
		   : stream_accept(fd, security, LONG_NS, -1, &stream, &error);
	if (ret)
		fail_msg("%s", error.text);
	security_free(security);
	assert_int_equal(channel_open(stream, 4 * NS_PER_S, &impostor->channel, NULL), 0);
}

void say(struct impostor *impostor, enum message_type type, void *payload, uint32_t length)
{
	/* The other side may have closed already, which is what is hoped for. */
	channel_send_owned(impostor->channel, type, payload, length, NULL);
}

void say_lane(struct impostor *impostor, enum message_type type, unsigned lane)
{
	struct lane_message message = { .lane = (uint16_t)lane };
	uint32_t length;
	void *payload = lane_message_encode(&message, &length);

	say(impostor, type, payload, length);
}

struct message *hear(struct impostor *impostor, enum message_type type)
{
	struct ramlift_error error = { 0 };
	struct message *message;

	if (channel_receive(impostor->channel, LONG_NS, -1, &message, &error))
		fail_msg("%s", error.text);
	assert_int_equal(message->type, type);
	return message;
}
