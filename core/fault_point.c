/* SPDX-License-Identifier: Apache-2.0 */
/* In no release: what the environment says about fault points. */
#include "core/fault_point.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Does *text begin with word, and does `end` or the string's end follow?
 * If so, *text is after it. */
static bool skip_word(const char **text, const char *word, char end)
{
	size_t length = strlen(word);

	if (!length || strncmp(*text, word, length) ||
	    ((*text)[length] != end && (*text)[length] != '\0'))
		return false;
	*text += length + ((*text)[length] == end);
	return true;
}

/* In the process's life, once: when the point is passed for that time. */
static bool due(const char *times)
{
	static atomic_ulong passed;
	unsigned long wanted = *times ? strtoul(times, NULL, 10) : 1;

	return atomic_fetch_add(&passed, 1) + 1 == wanted;
}

bool fault_point_reached(const char *point, const char *action)
{
	const char *fault = getenv("RAMLIFT_FAULT");

	if (!fault || !skip_word(&fault, point, ':'))
		return false;
	if (skip_word(&fault, "kill", ':')) {
		if (due(fault))
			raise(SIGKILL);
	} else if (skip_word(&fault, "stop", ':')) {
		if (due(fault))
			raise(SIGSTOP);
	} else if (skip_word(&fault, action, ':')) {
		return due(fault);
	}
	return false;
}
