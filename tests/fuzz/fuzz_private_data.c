/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the private data of a lane's connect request. */
#include "rdma/cm.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cm_hello hello, again;
	uint8_t bytes[CM_HELLO_BYTES];
	uint8_t *copy = malloc(size ? size : 1); /* of its own: bounds are bounds */

	CHECK(copy);
	memcpy(copy, data, size);
	if (cm_hello_unpack(copy, (unsigned)size, &hello)) {
		CHECK(size >= CM_HELLO_BYTES);
		cm_hello_pack(&hello, bytes);
		CHECK(cm_hello_unpack(bytes, sizeof(bytes), &again));
		CHECK(again.lane == hello.lane && again.n_lanes == hello.n_lanes);
		CHECK(!memcmp(again.session_id, hello.session_id, SESSION_ID_BYTES));
	}
	free(copy);
	return 0;
}
