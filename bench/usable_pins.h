/* SPDX-License-Identifier: Apache-2.0 */
/* An account of slices (core/pins.h) for lanes without a session: all are registered already. */
#ifndef BENCH_USABLE_PINS_H
#define BENCH_USABLE_PINS_H

#include "core/pins.h"

/* The rails of each region, for lanes_config.region_rails of a guest with one region. */
extern const unsigned usable_pins_region_rails[1];

/* Every slice of ram is usable; ends the program where that cannot be. To
 * be freed by pins_free(). */
struct pins *usable_pins(const struct ram *ram, struct endpoint *endpoint);

#endif
