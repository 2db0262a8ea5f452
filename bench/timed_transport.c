/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/timed_transport.h"

#include <stdatomic.h>

#include "core/clock.h"
#include "core/ramlift.h"
#include "core/transport.h"

static const struct ramlift_transport *real;
static struct ramlift_transport timed;
static _Atomic uint64_t first_post_ns;

static int post(struct endpoint *endpoint, unsigned lane, const struct transport_write *writes,
		unsigned n_writes, struct ramlift_error *error)
{
	uint64_t none = 0;

	if (!atomic_load_explicit(&first_post_ns, memory_order_relaxed))
		atomic_compare_exchange_strong(&first_post_ns, &none, clock_now_ns());
	return real->post(endpoint, lane, writes, n_writes, error);
}

const struct ramlift_transport *timed_transport(const struct ramlift_transport *behind)
{
	real = behind;
	timed = *behind;
	timed.post = post;
	atomic_store(&first_post_ns, 0);
	return &timed;
}

uint64_t timed_transport_first_post_ns(void)
{
	return atomic_load(&first_post_ns);
}
