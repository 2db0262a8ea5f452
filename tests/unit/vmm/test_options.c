/* SPDX-License-Identifier: Apache-2.0 */
/* Options: what is taken, and above all what is not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kvm/vmm/options.h"

#define UNTOUCHED 0x5aa5u
#define N(array)  (sizeof(array) / sizeof((array)[0]))

struct figure {
	const char *text;
	uint64_t value;
};

struct refusal {
	const char *text;
	int ret;
};

static void sizes_are_read(void **state)
{
	static const struct figure good[] = {
		{ "1", 1 },
		{ "4096", 4096 },
		{ "256M", 256ull << 20 },
		{ "32G", 32ull << 30 },
		{ "1.5G", 3ull << 29 },
		{ "0.5K", 512 },
		{ "1.25MiB", 5ull << 18 },
		{ "64T", 1ull << 46 },
		{ "70368744177664", 1ull << 46 },
		{ "00016M", 16ull << 20 },
		{ "1.000000000G", 1ull << 30 },
	};

	(void)state;
	for (size_t i = 0; i < N(good); i++) {
		uint64_t bytes = UNTOUCHED;

		assert_int_equal(option_size("--memory", good[i].text, &bytes, NULL), 0);
		assert_int_equal(bytes, good[i].value);
	}
}

static void bad_sizes_are_refused(void **state)
{
	static const struct refusal bad[] = {
		{ "", -EINVAL },
		{ "M", -EINVAL },
		{ "-1M", -EINVAL },
		{ "+1M", -EINVAL },
		{ " 1M", -EINVAL },
		{ "1M ", -EINVAL },
		{ "1m", -EINVAL },
		{ "1MB", -EINVAL },
		{ "1e9", -EINVAL },
		{ "0x10", -EINVAL },
		{ "1.5", -EINVAL },
		{ "1.M", -EINVAL },
		{ ".5M", -EINVAL },
		{ "1..5M", -EINVAL },
		{ "1.0000000000M", -EINVAL },
		{ "0", -ERANGE },
		{ "0M", -ERANGE },
		{ "0.000000001K", -ERANGE },
		{ "65T", -ERANGE },
		{ "64.1T", -ERANGE },
		{ "18446744073709551615", -ERANGE },
		{ "18446744073709551616", -ERANGE },
		{ "99999999999999999999999999999999T", -ERANGE },
		{ "16777216T", -ERANGE },
	};

	(void)state;
	for (size_t i = 0; i < N(bad); i++) {
		struct ramlift_error error = { .code = 0 };
		uint64_t bytes = UNTOUCHED;

		assert_int_equal(option_size("--memory", bad[i].text, &bytes, &error), bad[i].ret);
		assert_int_equal(bytes, UNTOUCHED);
		assert_int_equal(error.code, bad[i].ret);
		assert_non_null(strstr(error.text, "--memory"));
	}
}

static void rates_are_bytes_or_bits(void **state)
{
	static const struct figure good[] = {
		{ "500M", 500ull << 20 }, { "10G", 10ull << 30 },  { "10Gbit", 1250000000 },
		{ "2.5Gbit", 312500000 }, { "100Mbit", 12500000 }, { "1T", 1ull << 40 },
	};
	static const struct refusal bad[] = {
		{ "10gbit", -EINVAL },	 { "10Gbps", -EINVAL }, { "10G/s", -EINVAL },
		{ "Gbit", -EINVAL },	 { "0Gbit", -ERANGE },	{ "1.1T", -ERANGE },
		{ "9000Gbit", -ERANGE }, { "-1Gbit", -EINVAL },
	};
	uint64_t rate;

	(void)state;
	for (size_t i = 0; i < N(good); i++) {
		assert_int_equal(option_rate("--bandwidth", good[i].text, &rate, NULL), 0);
		assert_int_equal(rate, good[i].value);
	}
	for (size_t i = 0; i < N(bad); i++) {
		rate = UNTOUCHED;
		assert_int_equal(option_rate("--bandwidth", bad[i].text, &rate, NULL), bad[i].ret);
		assert_int_equal(rate, UNTOUCHED);
	}
}

static void numbers_are_bounded(void **state)
{
	static const struct refusal bad[] = {
		{ "0", -ERANGE },
		{ "65", -ERANGE },
		{ "18446744073709551616", -ERANGE },
		{ "99999999999999999999999", -ERANGE },
		{ "", -EINVAL },
		{ "-1", -EINVAL },
		{ "4.0", -EINVAL },
		{ "4 ", -EINVAL },
		{ "4K", -EINVAL },
	};
	uint64_t number = 0;

	(void)state;
	assert_int_equal(option_number("--lanes", "64", 1, 64, &number, NULL), 0);
	assert_int_equal(number, 64);
	assert_int_equal(option_number("x", "18446744073709551615", 0, UINT64_MAX, &number, NULL),
			 0);
	assert_true(number == UINT64_MAX);
	for (size_t i = 0; i < N(bad); i++) {
		number = UNTOUCHED;
		assert_int_equal(option_number("--lanes", bad[i].text, 1, 64, &number, NULL),
				 bad[i].ret);
		assert_int_equal(number, UNTOUCHED);
	}
}

static void workloads_are_read(void **state)
{
	struct workload workload = { .hot_bytes = 1, .pages_per_second = 2, .fill_percent = 3 };

	(void)state;
	assert_int_equal(option_workload("hot=32M,rate=2000", &workload, NULL), 0);
	assert_int_equal(workload.hot_bytes, 32 << 20);
	assert_int_equal(workload.pages_per_second, 2000);
	assert_int_equal(workload.pattern, WORKLOAD_UNIFORM);
	assert_int_equal(workload.fill_percent, 3);
	assert_int_equal(option_workload("pattern=skewed,fill=100", &workload, NULL), 0);
	assert_int_equal(workload.hot_bytes, 32 << 20);
	assert_int_equal(workload.pattern, WORKLOAD_SKEWED);
	assert_int_equal(workload.fill_percent, 100);
	assert_int_equal(option_workload("hot=0,rate=0,pattern=sequential", &workload, NULL), 0);
	assert_int_equal(workload.hot_bytes, 0);
	assert_int_equal(workload.pages_per_second, 0);
	assert_int_equal(workload.pattern, WORKLOAD_SEQUENTIAL);
}

static void bad_workloads_change_nothing(void **state)
{
	static const char *const bad[] = {
		"",
		",",
		"hot",
		"hot=",
		"hot=32M,",
		",hot=32M",
		"hot=32M,,rate=1",
		"hot=32M,hot=32M",
		"hot=32M rate=1",
		"HOT=32M",
		"hot=-1",
		"rate=1K",
		"rate=-1",
		"rate=99999999999",
		"pattern=random",
		"pattern=",
		"fill=0",
		"fill=101",
		"colour=red",
		"hot==32M",
		"rate=5,pattern=nonsense",
	};
	const struct workload before = { .hot_bytes = 1, .pages_per_second = 2 };
	char large[4096];

	(void)state;
	for (size_t i = 0; i < N(bad); i++) {
		struct ramlift_error error = { .code = 0 };
		struct workload workload = before;

		assert_int_equal(option_workload(bad[i], &workload, &error) < 0, 1);
		assert_memory_equal(&workload, &before, sizeof(before));
		assert_non_null(strstr(error.text, "--workload"));
	}
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	assert_int_equal(option_workload(large, &(struct workload){ 0 }, NULL), -EINVAL);
}

static void addresses_need_host_and_port(void **state)
{
	static const char *const good[] = { "hostB:7440", "192.0.2.1:1", "[2001:db8::1]:65535",
					    "[fe80::1%eth0]:7440" };
	static const char *const bad[] = {
		"",
		"hostB",
		":7440",
		"hostB:",
		"hostB:0",
		"hostB:65536",
		"hostB:-1",
		"hostB:7440x",
		"::1:7440",
		"[]:7440",
		"[::1]",
		"[::1]7440",
		"host B:74",
		"a:b:7440",
		"hostB:74 ",
		"[::1:7440",
		"host\n:7440",
		"ho[st:7440",
		"hostB:99999999999999999999",
	};
	char large[512];

	(void)state;
	for (size_t i = 0; i < N(good); i++)
		assert_int_equal(option_address("--to", good[i], false, NULL), 0);
	for (size_t i = 0; i < N(bad); i++)
		assert_int_not_equal(option_address("--to", bad[i], false, NULL), 0);
	assert_int_equal(option_address("--listen", "0.0.0.0:0", true, NULL), 0);
	memset(large, 'a', sizeof(large));
	strcpy(large + 400, ":7440");
	assert_int_not_equal(option_address("--to", large, false, NULL), 0);
}

static void guest_names_are_safe_file_names(void **state)
{
	static const char *const bad[] = {
		"",    ".",	 "..",	   ".db1",	"a/b", "/etc", "../x", "a b",
		"a\n", "a\x1b[", "db1;ls", "d\xc3\xa9", "a%n", "a:b",  "a\\b", "a\"b",
	};
	char name[RAMLIFT_MAX_NAME + 1];

	(void)state;
	for (size_t i = 0; i < N(bad); i++) {
		struct ramlift_error error = { .code = 0 };

		assert_int_equal(option_guest_name(bad[i], &error), -EINVAL);
		/* Nothing of a hostile name is repeated. */
		assert_null(strchr(error.text, '\x1b'));
	}
	assert_int_equal(option_guest_name("db1", NULL), 0);
	assert_int_equal(option_guest_name("a", NULL), 0);
	assert_int_equal(option_guest_name("_A-z.0-9_", NULL), 0);
	assert_int_equal(option_guest_name("a..b", NULL), 0);
	memset(name, 'a', sizeof(name));
	name[63] = '\0';
	assert_int_equal(option_guest_name(name, NULL), 0);
	name[63] = 'a';
	name[64] = '\0';
	assert_int_equal(option_guest_name(name, NULL), -EINVAL);
}

static void words_map_to_values(void **state)
{
	enum ramlift_on_divergence divergence = RAMLIFT_DIVERGENCE_THROTTLE;
	const struct ramlift_transport *transports[2];
	enum option_transport transport = TRANSPORT_AUTO;
	struct ramlift_error error;

	(void)state;
	assert_int_equal(option_transport("tcp", &transport, NULL), 0);
	assert_int_equal(transport, TRANSPORT_TCP);
	assert_int_equal(option_transport("TCP", &transport, &error), -EINVAL);
	assert_string_equal(error.text, "--transport 'TCP' must be auto, rdma or tcp");
	assert_int_equal(transport, TRANSPORT_TCP);
	assert_int_equal(option_divergence("abort", &divergence, NULL), 0);
	assert_int_equal(divergence, RAMLIFT_DIVERGENCE_ABORT);
	assert_int_equal(option_divergence("", &divergence, NULL), -EINVAL);
	assert_int_equal(option_transport_list(TRANSPORT_AUTO, transports), 2);
	assert_ptr_equal(transports[0], ramlift_transport_rdma());
	assert_ptr_equal(transports[1], ramlift_transport_tcp());
	assert_int_equal(option_transport_list(TRANSPORT_RDMA, transports), 1);
	assert_ptr_equal(transports[0], ramlift_transport_rdma());
	assert_int_equal(option_transport_list(TRANSPORT_TCP, transports), 1);
	assert_ptr_equal(transports[0], ramlift_transport_tcp());
}

static void rails_are_device_names(void **state)
{
	static const char *const bad[] = {
		"",	  ",",	 "rxe0,",	  ",rxe0", "rxe0,rxe0",		"rxe 0",
		"../sys", "a/b", "rxe0,\x1b[31m", "a:1",   "a,b,c,d,e,f,g,h,i",
	};
	struct option_rails rails, before;
	struct ramlift_error error;
	char large[2000];

	(void)state;
	assert_int_equal(option_rails("mlx5_0,rxe-1", &rails, &error), 0);
	assert_int_equal(rails.n, 2);
	assert_string_equal(rails.list[0], "mlx5_0");
	assert_string_equal(rails.list[1], "rxe-1");
	assert_int_equal(option_rails("a,b,c,d,e,f,g,h", &rails, &error), 0);
	assert_int_equal(rails.n, RAMLIFT_MAX_RAILS);
	before = rails;
	for (size_t i = 0; i < N(bad); i++) {
		assert_int_not_equal(option_rails(bad[i], &rails, &error), 0);
		assert_memory_equal(&rails, &before, sizeof(before));
		assert_null(strchr(error.text, '\x1b'));
	}
	memset(large, 'x', sizeof(large));
	large[63] = '\0';
	assert_int_equal(option_rails(large, &rails, &error), 0);
	large[63] = 'x';
	large[64] = '\0';
	assert_int_equal(option_rails(large, &rails, &error), -EINVAL);
	large[64] = 'x';
	large[sizeof(large) - 1] = '\0';
	assert_int_equal(option_rails(large, &rails, &error), -EINVAL);
}

static void numa_nodes_are_read(void **state)
{
	static const char *const bad[] = {
		"",	",",   "0,",
		"a",	"-1",  "0 1",
		"1024", "0:1", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,0"
	};
	struct machine_config config = { .n_numa_nodes = 7 };
	struct ramlift_error error;

	(void)state;
	for (size_t i = 0; i < N(bad); i++) {
		assert_int_not_equal(option_numa_nodes(bad[i], &config, &error), 0);
		assert_int_equal(config.n_numa_nodes, 7);
	}
	assert_int_equal(option_numa_nodes("1,0,1,1023", &config, &error), 0);
	assert_int_equal(config.n_numa_nodes, 4);
	assert_int_equal(config.numa_nodes[0], 1);
	assert_int_equal(config.numa_nodes[3], 1023);
}

static void numa_maps_are_read(void **state)
{
	static const char *const bad[] = { "",	      ",",	"0",	"0:",	 ":0", "0:1,",
					   "0:1,0:2", "0:1024", "-1:0", "0:1:2", "0,1" };
	struct machine_numa_map map = { .n = 7 };
	struct ramlift_error error;

	(void)state;
	for (size_t i = 0; i < N(bad); i++) {
		assert_int_not_equal(option_numa_map(bad[i], &map, &error), 0);
		assert_int_equal(map.n, 7);
	}
	assert_int_equal(option_numa_map("0:1,1:0,5:0", &map, &error), 0);
	assert_int_equal(map.n, 3);
	assert_int_equal(map.from[2], 5);
	assert_int_equal(map.to[0], 1);
	assert_int_equal(map.to[2], 0);
}

static void pinning_is_read(void **state)
{
	enum ramlift_pin pin = RAMLIFT_PIN_DEMAND;
	struct ramlift_error error;
	uint64_t budget_bytes = 7;

	(void)state;
	assert_int_equal(option_pin("all", &pin, &budget_bytes, &error), 0);
	assert_int_equal(pin, RAMLIFT_PIN_ALL);
	assert_int_equal(option_pin("demand", &pin, &budget_bytes, &error), 0);
	assert_int_equal(pin, RAMLIFT_PIN_DEMAND);
	assert_int_equal(budget_bytes, 7);
	assert_int_equal(option_pin("budget=1.5G", &pin, &budget_bytes, &error), 0);
	assert_int_equal(pin, RAMLIFT_PIN_BUDGET);
	assert_int_equal(budget_bytes, 3ull << 29);
	assert_int_not_equal(option_pin("budget", &pin, &budget_bytes, &error), 0);
	assert_int_not_equal(option_pin("budget=0", &pin, &budget_bytes, &error), 0);
	assert_int_not_equal(option_pin("", &pin, &budget_bytes, &error), 0);
	assert_int_equal(pin, RAMLIFT_PIN_BUDGET);
	assert_int_equal(budget_bytes, 3ull << 29);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read),
		cmocka_unit_test(bad_sizes_are_refused),
		cmocka_unit_test(rates_are_bytes_or_bits),
		cmocka_unit_test(numbers_are_bounded),
		cmocka_unit_test(workloads_are_read),
		cmocka_unit_test(bad_workloads_change_nothing),
		cmocka_unit_test(addresses_need_host_and_port),
		cmocka_unit_test(guest_names_are_safe_file_names),
		cmocka_unit_test(words_map_to_values),
		cmocka_unit_test(rails_are_device_names),
		cmocka_unit_test(numa_nodes_are_read),
		cmocka_unit_test(numa_maps_are_read),
		cmocka_unit_test(pinning_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
