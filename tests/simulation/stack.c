/* SPDX-License-Identifier: Apache-2.0 */
#include "stack.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES (512u << 10)
#else
#define STACK_BYTES (128u << 10)
#endif
#define GUARD_BYTES 4096u
#define MAX_STACKS  256u

static char *free_stacks[MAX_STACKS];
static unsigned n_free_stacks;
static void *scheduler_stack_pointer;
#if defined(__SANITIZE_ADDRESS__)
static void *scheduler_fake_stack;
static const void *scheduler_bottom;
static size_t scheduler_size;
#endif

/* Save what a call preserves, change stacks, restore. */
void stack_switch(void **save, void *load);
__asm__(".text\n"
	".globl stack_switch\n"
	".type stack_switch, @function\n"
	"stack_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size stack_switch, . - stack_switch\n");

char *stack_new(void)
{
	char *stack;

	if (n_free_stacks) {
		stack = free_stacks[--n_free_stacks];
#if defined(__SANITIZE_ADDRESS__)
		ASAN_UNPOISON_MEMORY_REGION(stack + GUARD_BYTES, STACK_BYTES - GUARD_BYTES);
#endif
		return stack;
	}
	stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stack == MAP_FAILED || mprotect(stack, GUARD_BYTES, PROT_NONE))
		abort();
	return stack;
}

void stack_free(char *stack)
{
	if (n_free_stacks < MAX_STACKS)
		free_stacks[n_free_stacks++] = stack;
	else
		munmap(stack, STACK_BYTES);
}

void *stack_prepare(char *stack, void (*entry)(void))
{
	void **top = (void **)(stack + STACK_BYTES);

	*--top = NULL; /* the ABI wants rsp + 8 aligned to 16 at a function's entry */
	*--top = (void *)entry;
	for (int i = 0; i < 6; i++)
		*--top = NULL;
	return top;
}

void stack_entered(void)
{
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_finish_switch_fiber(NULL, &scheduler_bottom, &scheduler_size);
#endif
}

void stack_enter(struct task *task)
{
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_start_switch_fiber(&scheduler_fake_stack, task->stack + GUARD_BYTES,
				       STACK_BYTES - GUARD_BYTES);
#endif
	stack_switch(&scheduler_stack_pointer, task->stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_finish_switch_fiber(scheduler_fake_stack, NULL, NULL);
#endif
}

void stack_leave(struct task *task)
{
	task->saved_errno = errno;
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_start_switch_fiber(task->state == TASK_DEAD ? NULL : &task->fake_stack,
				       scheduler_bottom, scheduler_size);
#endif
	stack_switch(&task->stack_pointer, scheduler_stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_finish_switch_fiber(task->fake_stack, NULL, NULL);
#endif
	errno = task->saved_errno;
}
