/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations are calls that can fail, too: linked with --wrap for these functions. */
#include <errno.h>
#include <stdlib.h>

#include "fake_device.h"

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
	return fake_fails(ENOMEM) ? NULL : __real_calloc(n, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return fake_fails(ENOMEM) ? NULL : __real_aligned_alloc(alignment, size);
}
