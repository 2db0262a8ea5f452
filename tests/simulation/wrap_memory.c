/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of the simulated processes: it goes when its process does, and what a process has left
 * when it ends of its own is a leak.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "memory.h"
#include "real.h"
#include "scheduler.h"

#define N_BUCKETS	 4096u
#define MAX_FILLED_BYTES (64u << 10)

struct allocation {
	struct allocation *next;
	void *memory;
	size_t size;
	struct process *process;
	unsigned number;
};

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *memory);

int (*call_hook)(const char *name, int plausible_errno);

static struct allocation *buckets[N_BUCKETS];
static unsigned last_number;

int call_fails(const char *name, int plausible_errno)
{
	return call_hook ? call_hook(name, plausible_errno) : 0;
}

static struct allocation **find(const void *memory)
{
	struct allocation **link = &buckets[((uintptr_t)memory >> 4) * 2654435761u % N_BUCKETS];

	while (*link && (*link)->memory != memory)
		link = &(*link)->next;
	return link;
}

static void *keep(void *memory, size_t size)
{
	struct allocation *allocation = __real_malloc(sizeof(*allocation));
	struct allocation **link = find(memory);

	if (!memory || !allocation)
		abort();
	*allocation = (struct allocation){ .memory = memory,
					   .size = size,
					   .process = world.current->process,
					   .number = ++last_number };
	allocation->next = *link;
	*link = allocation;
	world.current->process->n_allocations++;
	return memory;
}

static bool no_memory(const char *call)
{
	int failure = call_fails(call, ENOMEM);

	if (failure)
		errno = failure;
	return failure;
}

void *__wrap_malloc(size_t size)
{
	void *memory;

	if (!world.current)
		return __real_malloc(size);
	if (no_memory("malloc"))
		return NULL;
	memory = __real_malloc(size);
	/* The same in each run of a seed, and nothing that anybody could mean. */
	memset(memory, 0xa5, size < MAX_FILLED_BYTES ? size : MAX_FILLED_BYTES);
	return keep(memory, size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	if (!world.current)
		return __real_calloc(n, size);
	return no_memory("calloc") ? NULL : keep(__real_calloc(n ? n : 1, size), n * size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	if (!world.current)
		return __real_aligned_alloc(alignment, size);
	return no_memory("aligned_alloc") ? NULL
					  : keep(__real_aligned_alloc(alignment, size), size);
}

void *__wrap_realloc(void *memory, size_t size)
{
	struct allocation **link;
	void *larger;

	if (!world.current)
		return __real_realloc(memory, size);
	larger = __wrap_malloc(size);
	link = find(memory);
	if (!larger || !memory)
		return larger;
	if (*link)
		memcpy(larger, memory, (*link)->size < size ? (*link)->size : size);
	else
		violated("somebody reallocates what is not allocated");
	__wrap_free(memory);
	return larger;
}

char *__wrap_strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = __wrap_malloc(size);

	return copy ? memcpy(copy, text, size) : NULL;
}

void __wrap_free(void *memory)
{
	struct allocation **link, *allocation;

	if (!memory)
		return;
	link = find(memory);
	allocation = *link;
	if (allocation) {
		if (world.current && allocation->process != world.current->process)
			violated("memory of another process is freed");
		allocation->process->n_allocations--;
		*link = allocation->next;
		__real_free(allocation);
	}
	__real_free(memory);
}

size_t memory_of(const struct process *process, unsigned *n)
{
	size_t bytes = 0;

	*n = 0;
	for (unsigned i = 0; i < N_BUCKETS; i++) {
		for (struct allocation *a = buckets[i]; a; a = a->next) {
			if (a->process != process)
				continue;
			++*n;
			bytes += a->size;
		}
	}
	return bytes;
}

void memory_forget(const struct process *process)
{
	for (unsigned i = 0; i < N_BUCKETS && process->n_allocations; i++) {
		for (struct allocation **link = &buckets[i]; *link;) {
			struct allocation *allocation = *link;

			if (allocation->process != process) {
				link = &allocation->next;
				continue;
			}
			*link = allocation->next;
			__real_free(allocation->memory);
			__real_free(allocation);
		}
	}
}
