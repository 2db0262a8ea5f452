/* SPDX-License-Identifier: Apache-2.0 */
/* What the linker's --wrap calls the functions behind those that wrap_*.c put in their place. */
#ifndef TESTS_SIMULATION_REAL_H
#define TESTS_SIMULATION_REAL_H

#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

struct stat;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);

#endif
