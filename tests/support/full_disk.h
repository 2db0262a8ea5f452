/* SPDX-License-Identifier: Apache-2.0 */
/* A full disk, played by a limit on the size of this process's files. */
#ifndef TESTS_SUPPORT_FULL_DISK_H
#define TESTS_SUPPORT_FULL_DISK_H

#include <signal.h>
#include <sys/resource.h>

#include "tests/support/cmocka_all.h"

/* RLIM_INFINITY: there is room again. */
static inline void limit_files(rlim_t size_bytes)
{
	struct rlimit limit;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = size_bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

#endif
