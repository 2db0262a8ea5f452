/* SPDX-License-Identifier: Apache-2.0 */
/* Several threads on one channel, and more messages than its queue holds. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel_rig.h"

#define SENDERS		8u
#define SENDER_MESSAGES 150u
#define SENDER_LARGEST	20000u

struct sender {
	struct channel *channel;
	unsigned index;
	pthread_t thread;
	int ret;
};

static uint32_t sender_length(unsigned index, unsigned i)
{
	return 2 + (index * 7919 + i * 104729) % SENDER_LARGEST;
}

static void *sender_thread(void *argument)
{
	struct sender *sender = argument;
	unsigned char *payload = malloc(2 + SENDER_LARGEST);

	for (unsigned i = 0; payload && i < SENDER_MESSAGES && !sender->ret; i++) {
		uint32_t n = sender_length(sender->index, i);

		memset(payload, (int)i, n);
		payload[0] = (unsigned char)sender->index;
		sender->ret = channel_send(sender->channel, MESSAGE_OFFER, payload, n, NULL);
	}
	free(payload);
	return NULL;
}

static void test_senders_do_not_interleave(void **unused)
{
	struct sender senders[SENDERS] = { 0 };
	unsigned next[SENDERS] = { 0 };
	struct channel *a, *b;

	(void)unused;
	open_pair(PATIENT_NS, &a, &b);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i].channel = a;
		senders[i].index = i;
		assert_int_equal(
			pthread_create(&senders[i].thread, NULL, sender_thread, &senders[i]), 0);
	}
	for (unsigned i = 0; i < SENDERS * SENDER_MESSAGES; i++) {
		struct message *message = receive(b);
		unsigned index = message->payload[0];

		assert_int_equal(message->type, MESSAGE_OFFER);
		assert_in_range(index, 0, SENDERS - 1);
		assert_int_equal(message->length_bytes, sender_length(index, next[index]));
		for (uint32_t at = 1; at < message->length_bytes; at++) {
			if (message->payload[at] != (uint8_t)next[index])
				fail_msg("byte %u of message %u is another's", at, next[index]);
		}
		next[index]++;
		free(message);
	}
	for (unsigned i = 0; i < SENDERS; i++) {
		pthread_join(senders[i].thread, NULL);
		assert_int_equal(senders[i].ret, 0);
	}
	channel_close(a);
	channel_close(b);
}

#define MANY 5000u

static void *many_thread(void *argument)
{
	struct sender *sender = argument;

	for (uint32_t i = 0; i < MANY && !sender->ret; i++)
		sender->ret = channel_send(sender->channel, MESSAGE_SLICE_KEY, &i, sizeof(i), NULL);
	return NULL;
}

static void test_more_messages_than_the_queue_holds(void **unused)
{
	struct sender sender = { 0 };
	struct channel *b;

	(void)unused;
	open_pair(PATIENT_NS, &sender.channel, &b);
	assert_int_equal(pthread_create(&sender.thread, NULL, many_thread, &sender), 0);
	usleep(200000); /* the queue fills */
	for (uint32_t i = 0; i < MANY; i++) {
		struct message *message = receive(b);

		assert_memory_equal(message->payload, &i, sizeof(i));
		free(message);
	}
	pthread_join(sender.thread, NULL);
	assert_int_equal(sender.ret, 0);
	channel_close(sender.channel);
	channel_close(b);
}

static void test_closing_with_a_full_queue(void **unused)
{
	struct sender sender = { 0 };
	struct channel *b;

	(void)unused;
	open_pair(PATIENT_NS, &sender.channel, &b);
	assert_int_equal(pthread_create(&sender.thread, NULL, many_thread, &sender), 0);
	pthread_join(sender.thread, NULL); /* all in the queue or the socket */
	assert_int_equal(sender.ret, 0);
	channel_close(b);
	channel_close(sender.channel);
}

/* The session's thread is busy for longer than a heartbeat, while slices are announced. */
static void test_a_full_queue_is_not_the_peers_death(void **unused)
{
	struct sender sender = { 0 };
	struct channel *b;

	(void)unused;
	open_pair(NS_PER_S, &sender.channel, &b);
	assert_int_equal(pthread_create(&sender.thread, NULL, many_thread, &sender), 0);
	pthread_join(sender.thread, NULL);
	assert_int_equal(sender.ret, 0);
	usleep(2500000);
	for (uint32_t i = 0; i < MANY; i++)
		free(receive(b));
	channel_close(sender.channel);
	channel_close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_senders_do_not_interleave),
		cmocka_unit_test(test_more_messages_than_the_queue_holds),
		cmocka_unit_test(test_closing_with_a_full_queue),
		cmocka_unit_test(test_a_full_queue_is_not_the_peers_death),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, channels_plain, NULL);

	return failed + cmocka_run_group_tests_name("TLS", tests, channels_under_tls, NULL);
}
