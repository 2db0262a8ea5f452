/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two control channels, or one and a bare socket, over TCP on loopback, as in life: only there can
 * a close lose what was said last. The streams are lanes', which need neither files nor a greeting:
 * what is below the channel is test_stream.c's business.
 */
#ifndef TESTS_UNIT_CORE_CHANNEL_RIG_H
#define TESTS_UNIT_CORE_CHANNEL_RIG_H

#include "core/channel.h"
#include "core/clock.h"
#include "core/ramlift.h"
#include "tests/support/cmocka_all.h"

#define LONG_NS	    (clock_now_ns() + 30 * NS_PER_S) /* against hangs only */
#define A_MOMENT_NS (clock_now_ns() + 50 * NS_PER_MS)
#define PATIENT_NS  (30 * NS_PER_S) /* a heartbeat that no test waits for */
#define SHORT_NS    (300 * NS_PER_MS)
#define NEVER	    -1

/* For a group of tests: pairs are plain, or under TLS. */
int channels_plain(void **unused);
int channels_under_tls(void **unused);

/* A channel at either end; at one of them, and its stream or, plain, its socket at the other. */
void open_pair(uint64_t heartbeat_ns, struct channel **a, struct channel **b);
void open_with_stream(uint64_t heartbeat_ns, struct channel **channel, struct stream **stream);
void open_half(uint64_t heartbeat_ns, struct channel **channel, int *peer);

void send_raw(int fd, const void *bytes, size_t n);
void send_raw_message(int fd, enum message_type type, const void *payload, uint32_t n);
struct message *receive(struct channel *channel);
void assert_dead(struct channel *channel, int code, const char *word);

#endif
