/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the file of a pre-shared key: only one line of 64 hexadecimal digits is a key. */
#include <ctype.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/stream.h"
#include "tests/fuzz/fuzz.h"

#define DIGITS 64u

static bool is_key(const uint8_t *data, size_t size)
{
	if (size < DIGITS)
		return false;
	for (unsigned i = 0; i < DIGITS; i++) {
		if (!isxdigit(data[i]))
			return false;
	}
	data += DIGITS;
	size -= DIGITS;
	return !size || (size == 1 && data[0] == '\n') || (size == 2 && !memcmp(data, "\r\n", 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ramlift_error error = { 0 };
	struct ramlift_security config = { 0 };
	struct security *security = NULL;
	char path[64];
	int fd = memfd_create("key", MFD_CLOEXEC);
	int ret;

	CHECK(fd >= 0 && !fchmod(fd, 0600));
	CHECK(write(fd, data, size) == (ssize_t)size);
	CHECK(!lseek(fd, 0, SEEK_SET));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	config.psk_file = path;
	ret = security_new(&config, &security, &error);
	CHECK(!ret == is_key(data, size));
	CHECK(!ret || (error.code == ret && error.text[0]));
	security_free(security);
	close(fd);
	return 0;
}
