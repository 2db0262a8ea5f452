/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/pair.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/ramlift.h"
#include "core/transport.h"

_Noreturn void die(const struct ramlift_error *error, const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what,
		error && error->code ? error->text : strerror(errno));
	exit(1);
}

void pair_write(int fd, const void *data, size_t size)
{
	for (const char *at = data; size;) {
		ssize_t n = write(fd, at, size);

		if (n <= 0)
			die(NULL, "control connection");
		at += n;
		size -= (size_t)n;
	}
}

void pair_read(int fd, void *data, size_t size)
{
	for (char *at = data; size;) {
		ssize_t n = read(fd, at, size);

		if (n <= 0)
			die(NULL, "the other side has gone");
		at += n;
		size -= (size_t)n;
	}
}

static void set_no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int pair_accept(const struct sockaddr_in *address, unsigned port)
{
	struct sockaddr_in own = *address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, fd;

	own.sin_port = htons((uint16_t)port);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(listener, (struct sockaddr *)&own, sizeof(own)) || listen(listener, 1))
		die(NULL, "cannot listen");
	fd = accept(listener, NULL, NULL);
	close(listener);
	if (fd < 0)
		die(NULL, "cannot accept");
	set_no_delay(fd);
	return fd;
}

int pair_connect(const struct sockaddr_in *address, unsigned port)
{
	struct sockaddr_in peer = *address;

	peer.sin_port = htons((uint16_t)port);
	for (unsigned tries = 0; tries < 500; tries++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd >= 0 && !connect(fd, (struct sockaddr *)&peer, sizeof(peer))) {
			set_no_delay(fd);
			return fd;
		}
		close(fd);
		clock_sleep_until(clock_now_ns() + 10 * NS_PER_MS);
	}
	die(NULL, "cannot connect");
}

void fill_random(void *memory, uint64_t bytes)
{
	uint64_t *words = memory, state;

	if (getrandom(&state, sizeof(state), 0) != sizeof(state))
		die(NULL, "no random numbers");
	state |= 1;
	for (uint64_t i = 0; i < bytes / sizeof(*words); i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		words[i] = state;
	}
}

static uint64_t time_ns(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * NS_PER_S + (uint64_t)time->tv_usec * NS_PER_US;
}

struct cpu_time cpu_now(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (struct cpu_time){ time_ns(&usage.ru_utime), time_ns(&usage.ru_stime) };
}

struct cpu_time cpu_since(struct cpu_time begin)
{
	struct cpu_time now = cpu_now();

	return (struct cpu_time){ now.user_ns - begin.user_ns, now.system_ns - begin.system_ns };
}

static int order_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t median_u64(uint64_t *values, unsigned n)
{
	qsort(values, n, sizeof(values[0]), order_u64);
	return values[n / 2];
}

unsigned long parse_number(struct argp_state *state, const char *text, unsigned long low,
			   unsigned long high)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || end == text || value < low || value > high)
		argp_error(state, "'%s' is not a number from %lu to %lu", text, low, high);
	return value;
}

const struct ramlift_transport *parse_transport(struct argp_state *state, const char *text)
{
	if (!strcmp(text, "tcp"))
		return ramlift_transport_tcp();
	if (strcmp(text, "rdma"))
		argp_error(state, "transport '%s' is neither rdma nor tcp", text);
	return ramlift_transport_rdma();
}

void need_transport(const struct ramlift_transport *transport, const struct sockaddr_in *local,
		    const struct sockaddr_in *peer)
{
	struct ramlift_error error = { 0 };

	if (!transport->probe((const struct sockaddr *)local, (const struct sockaddr *)peer,
			      &error))
		return;
	fprintf(stderr, "%s: skipped: %s\n", program_invocation_short_name, error.text);
	exit(PAIR_EXIT_SKIP);
}
