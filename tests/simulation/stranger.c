/* SPDX-License-Identifier: Apache-2.0 */
#include <unistd.h>

#include "adversary.h"
#include "core/address.h"
#include "core/clock.h"
#include "core/ramlift.h"
#include "host.h"
#include "sides.h"

/* Without lanes of its own, but with everything that was said on one connection. */
static void *stranger_main(void *context)
{
	struct address to = { 0 };
	const struct overheard *frames;
	unsigned n = adversary_overheard(&frames), connection = 0, only = 0;
	struct ramlift_error error;
	int fd;

	(void)context;
	if (n)
		connection = frames[random_below(n)].connection;
	if (one_in(2))
		only = one_in(2) ? MESSAGE_COMMIT : MESSAGE_OFFER;
	if (!address_parse("10.0.0.2:7440", 0, &to, &error) &&
	    !address_connect(&to, clock_now_ns() + NS_PER_S, -1, &fd, &error)) {
		send_all(fd, "RLPLAIN\n", 8, clock_now_ns() + NS_PER_S, -1);
		for (unsigned i = 0; i < n; i++) {
			if (frames[i].connection != connection || (only && frames[i].type != only))
				continue;
			if (send_all(fd, frames[i].bytes, frames[i].n_bytes,
				     clock_now_ns() + NS_PER_S, -1))
				break;
			task_sleep(random_below(20 * NS_PER_MS));
		}
		task_sleep(random_below(one_in(8) ? 10 * NS_PER_S : 100 * NS_PER_MS));
		close(fd);
	}
	process_kill(world.current->process);
	return NULL;
}

void stranger_start(void)
{
	process_start(&hosts[2], "stranger", stranger_main, NULL);
}
