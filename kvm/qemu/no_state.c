/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/qemu/no_state.h"

#include <errno.h>

#include "core/error.h"

int no_state_save(void *guest, void **state, size_t *state_bytes, struct ramlift_error *error)
{
	(void)guest;
	(void)error;
	*state = NULL;
	*state_bytes = 0;
	return 0;
}

int no_state_load(void *guest, const void *state, size_t state_bytes, struct ramlift_error *error)
{
	(void)guest;
	(void)state;
	return state_bytes ? error_set(error, -EPROTO, "a QEMU guest has no state of this kind")
			   : 0;
}
