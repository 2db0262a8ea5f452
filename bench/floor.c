/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/floor.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/pair.h"
#include "core/clock.h"

#define ROUND_TRIPS 25u
#define SYNCS	    5u

uint64_t floor_round_trip_ns(int fd)
{
	uint64_t trips[ROUND_TRIPS];

	for (unsigned i = 0; i < ROUND_TRIPS; i++) {
		uint64_t begin_ns = clock_now_ns();
		uint8_t byte = 0;

		pair_write(fd, &byte, 1);
		pair_read(fd, &byte, 1);
		trips[i] = clock_lap_ns(&begin_ns);
	}
	return median_u64(trips, ROUND_TRIPS);
}

void floor_answer_round_trips(int fd)
{
	for (unsigned i = 0; i < ROUND_TRIPS; i++) {
		uint8_t byte;

		pair_read(fd, &byte, 1);
		pair_write(fd, &byte, 1);
	}
}

uint64_t floor_sync_ns(const char *state_dir)
{
	static const char line[160];
	uint64_t times[SYNCS];
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/bench-sync-%d", state_dir, (int)getpid());
	fd = open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		die(NULL, "cannot write in the state folder");
	for (unsigned i = 0; i < SYNCS; i++) {
		uint64_t begin_ns = clock_now_ns();

		if (write(fd, line, sizeof(line)) != sizeof(line) || fsync(fd))
			die(NULL, "cannot write in the state folder");
		times[i] = clock_lap_ns(&begin_ns);
	}
	close(fd);
	unlink(path);
	return median_u64(times, SYNCS);
}
