/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two processes of an instrument have in common: a plain TCP connection of their own, over
 * which they agree on what to measure and compare digests outside of the measured time; memory of
 * known contents; CPU time. A failure ends the program with a sentence. Both sides are the same
 * build on the same architecture.
 */
#ifndef BENCH_PAIR_H
#define BENCH_PAIR_H

#include <argp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define PAIR_PORT      7470
#define PAIR_EXIT_SKIP 77

struct ramlift_error;
struct ramlift_transport;

/* User and system time of this process so far. */
struct cpu_time {
	uint64_t user_ns, system_ns;
};

/* End the program: error's sentence, or errno's words where it has none. */
_Noreturn void die(const struct ramlift_error *error, const char *what);

/* Wait for one peer at address, and stop listening. */
int pair_accept(const struct sockaddr_in *address, unsigned port);

/* The receiver may start later than the sender: tries for five seconds. */
int pair_connect(const struct sockaddr_in *address, unsigned port);

void pair_write(int fd, const void *data, size_t size);
void pair_read(int fd, void *data, size_t size);

/* Fill with random words, never the same twice. */
void fill_random(void *memory, uint64_t bytes);

struct cpu_time cpu_now(void);
struct cpu_time cpu_since(struct cpu_time begin);

/* Sorts them. */
uint64_t median_u64(uint64_t *values, unsigned n);

/* For argp parsers: both end the program with the usage where the text makes no sense. */
unsigned long parse_number(struct argp_state *state, const char *text, unsigned long low,
			   unsigned long high);
const struct ramlift_transport *parse_transport(struct argp_state *state, const char *text);

/* Skip (exit status 77, with the reason) where the transport cannot work
 * between these addresses. */
void need_transport(const struct ramlift_transport *transport, const struct sockaddr_in *local,
		    const struct sockaddr_in *peer);

#endif
