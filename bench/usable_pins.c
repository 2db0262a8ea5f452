/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/usable_pins.h"

#include "bench/pair.h"
#include "core/clock.h"

const unsigned usable_pins_region_rails[1] = { 1 };

static int registered_already(struct endpoint *endpoint, unsigned slice, unsigned rails,
			      struct slice_key *key, struct ramlift_error *error)
{
	(void)endpoint;
	(void)slice;
	(void)rails;
	(void)key;
	(void)error;
	return 0;
}

static int ask_nobody(void *context, unsigned slice, unsigned rails, struct ramlift_error *error)
{
	(void)context;
	(void)slice;
	(void)rails;
	(void)error;
	return 0;
}

static void wake_nobody(void *context)
{
	(void)context;
}

struct pins *usable_pins(const struct ram *ram, struct endpoint *endpoint)
{
	static const struct ramlift_transport transport = { .register_slice = registered_already };
	struct pins_config config = {
		.ram = ram,
		.transport = &transport,
		.endpoint = endpoint,
		.region_rails = usable_pins_region_rails,
		.n_threads = 1,
		.ask = ask_nobody,
		.usable = wake_nobody,
	};
	struct ramlift_error error = { 0 };
	struct pins *pins;

	if (pins_start(&config, &pins, &error))
		die(&error, "pins");
	for (unsigned i = 0; i < ram->n_slices; i++) {
		pins_want(pins, i);
		if (pins_peer_ready(pins, i, &error))
			die(&error, "pins");
	}
	while (!pins_settled(pins))
		clock_sleep_until(clock_now_ns() + NS_PER_MS);
	return pins;
}
