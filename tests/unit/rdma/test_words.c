/* SPDX-License-Identifier: Apache-2.0 */
/* The wire form of a connect request, addresses, sizes, limits: no device needed. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* cmocka.h wants the headers above. */
#include <cmocka.h>

#include "core/ramlift.h"
#include "rdma/address.h"
#include "rdma/cm.h"
#include "rdma/devices.h"
#include "rdma/endpoint.h"
#include "rdma/verbs_error.h"

static void test_hello(void **state)
{
	struct cm_hello hello = { .lane = 0x1234, .n_lanes = 0xabcd }, back;
	uint8_t bytes[CM_HELLO_BYTES];

	(void)state;
	memset(hello.session_id, 7, sizeof(hello.session_id));
	cm_hello_pack(&hello, bytes);
	assert_memory_equal(bytes, "RLFT\0\1\x12\x34\xab\xcd\0\0\7\7", 14);
	assert_true(cm_hello_unpack(bytes, sizeof(bytes), &back));
	assert_int_equal(back.lane, hello.lane);
	assert_int_equal(back.n_lanes, hello.n_lanes);
	assert_memory_equal(back.session_id, hello.session_id, SESSION_ID_BYTES);
	assert_false(cm_hello_unpack(bytes, sizeof(bytes) - 1, &back));
	assert_false(cm_hello_unpack(NULL, 0, &back));
	bytes[5] ^= 1;
	assert_false(cm_hello_unpack(bytes, sizeof(bytes), &back));
	bytes[5] ^= 1;
	bytes[0] ^= 1;
	assert_false(cm_hello_unpack(bytes, sizeof(bytes), &back));
}

static void test_sizes(void **state)
{
	char text[SIZE_TEXT_BYTES];

	(void)state;
	verbs_size_text(512, text);
	assert_string_equal(text, "512 bytes");
	verbs_size_text(256ull << 20, text);
	assert_string_equal(text, "256 MiB");
	verbs_size_text(4ull << 30, text);
	assert_string_equal(text, "4.0 GiB");
	verbs_size_text(UINT64_MAX, text);
	assert_string_equal(text, "16777216.0 TiB");
}

static void test_addresses(void **state)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(7) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(7) };
	struct sockaddr other = { .sa_family = AF_UNIX };
	struct sockaddr_storage copy;
	char text[ADDRESS_TEXT_BYTES];

	(void)state;
	assert_true(address_is_wildcard((struct sockaddr *)&v4));
	assert_true(address_is_wildcard((struct sockaddr *)&v6));
	v4.sin_addr.s_addr = inet_addr("10.1.2.3");
	v6.sin6_addr = in6addr_loopback;
	assert_false(address_is_wildcard((struct sockaddr *)&v4));
	assert_false(address_is_wildcard((struct sockaddr *)&v6));
	assert_false(address_is_wildcard(&other));
	assert_false(address_is_loopback((struct sockaddr *)&v4));
	assert_true(address_is_loopback((struct sockaddr *)&v6));
	assert_false(address_is_loopback(&other));
	address_text((struct sockaddr *)&v4, text);
	assert_string_equal(text, "10.1.2.3");
	address_text((struct sockaddr *)&v6, text);
	assert_string_equal(text, "::1");
	address_text(&other, text);
	assert_string_equal(text, "that address");
	assert_int_equal(address_without_port((struct sockaddr *)&v6, &copy), 0);
	assert_int_equal(((struct sockaddr_in6 *)&copy)->sin6_port, 0);
	assert_int_equal(address_without_port(&other, &copy), -EAFNOSUPPORT);
}

static void test_completion_errors(void **state)
{
	struct ramlift_error error = { 0 };

	(void)state;
	for (unsigned status = IBV_WC_LOC_LEN_ERR; status <= IBV_WC_GENERAL_ERR; status++) {
		int ret = verbs_completion_error(&error, 3, status);

		assert_true(ret == -EIO || ret == -ETIMEDOUT);
		assert_int_equal(error.code, ret);
		assert_memory_equal(error.text, "lane 3: ", 8);
		assert_null(strchr(error.text, '\n'));
	}
}

/* Take CAP_IPC_LOCK away from this thread, or give it back. Without it in the first place, nothing
 * changes. */
static void lock_capability(bool give)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	assert_int_equal(syscall(SYS_capget, &header, data), 0);
	data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
	if (give)
		data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective |=
			data[CAP_TO_INDEX(CAP_IPC_LOCK)].permitted & CAP_TO_MASK(CAP_IPC_LOCK);
	assert_int_equal(syscall(SYS_capset, &header, data), 0);
}

static void test_locked_memory_limit(void **state)
{
	struct slice slices[] = { { NULL, 200ull << 20 }, { NULL, 56ull << 20 } };
	struct transport_params params = { .slices = slices, .n_slices = 2 };
	struct rlimit before, small = { 8 << 20, 0 };
	struct ramlift_error error = { 0 };

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	small.rlim_max = before.rlim_max;
	if (small.rlim_max < small.rlim_cur)
		skip();
	lock_capability(false);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &small), 0);
	assert_int_equal(slices_check_limit(&params, &error), -ENOMEM);
	assert_string_equal(error.text, "cannot register 256 MiB of guest memory: locked-memory "
					"limit is 8 MiB (ulimit -l)");
	params.pin_budget_bytes = 9 << 20;
	assert_int_equal(slices_check_limit(&params, &error), -ENOMEM);
	assert_non_null(strstr(error.text, "cannot register 9 MiB"));
	params.pin_budget_bytes = 8 << 20;
	assert_int_equal(slices_check_limit(&params, NULL), 0);
	params.pin_budget_bytes = 0;
	params.on_demand_paging = true;
	assert_int_equal(slices_check_limit(&params, NULL), 0);
	params.on_demand_paging = false;
	slices[0].size_bytes = slices[1].size_bytes = 4 << 20;
	assert_int_equal(slices_check_limit(&params, NULL), 0);
	setrlimit(RLIMIT_MEMLOCK, &before);
	lock_capability(true);
}

/* Whatever this host has; on most build hosts, nothing. */
static void test_devices(void **state)
{
	struct rdma_device_info *list = NULL;
	struct ramlift_error error = { 0 };
	unsigned count = 77;

	(void)state;
	if (rdma_devices_list(&list, &count, &error)) {
		assert_int_not_equal(error.code, 0);
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		assert_true(list[i].name[0] && list[i].port);
		assert_non_null(list[i].state);
	}
	free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello),	  cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_addresses), cmocka_unit_test(test_completion_errors),
		cmocka_unit_test(test_devices),	  cmocka_unit_test(test_locked_memory_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
