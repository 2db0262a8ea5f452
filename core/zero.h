/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages are all zeros? Most pages that are not show it in their first bytes.
 *
 * The guest may write meanwhile, and on purpose nothing keeps it from that. A page whose zeros were
 * read before such a write is called zero, and the write itself makes it dirty again, for a page
 * loses its dirty bit before it is looked at: so the write is seen the next time.
 */
#ifndef CORE_ZERO_H
#define CORE_ZERO_H

#include <stdbool.h>
#include <stdint.h>

/* page: aligned to a page, as guest memory is. */
bool page_is_zero(const void *page);

/* Of the candidates (bit n: page n of the stripe, up to 64), those that are all zeros. Others are
 * not touched. stripe_hva: aligned to a page. */
uint64_t zero_pages(const void *stripe_hva, uint64_t candidates);

/* The same without any CPU's particular instructions, for tests and comparisons. */
bool page_is_zero_portable(const void *page);

#endif
