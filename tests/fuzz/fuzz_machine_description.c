/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's description from the peer: what is taken is in bounds and encodes to the same
 * bytes. */
#include <errno.h>

#include "kvm/vmm/machine_description.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine_description description;
	struct ramlift_error error = { 0 };
	size_t again_bytes = 0;
	void *again = NULL;
	int ret = machine_description_decode(data, size, &description, &error);

	if (ret) {
		CHECK(ret == -EINVAL && error.code == ret && error.text[0]);
		return 0;
	}
	CHECK(description.cpuid.n <= MACHINE_MAX_CPUID);
	CHECK(description.config.dirty_mode <= MACHINE_DIRTY_LOG);
	CHECK(description.config.workload.pattern <= WORKLOAD_SKEWED);
	CHECK(!machine_description_encode(&description, &again, &again_bytes));
	CHECK(again_bytes == size);
	CHECK(!memcmp(again, data, size));
	free(again);
	return 0;
}
