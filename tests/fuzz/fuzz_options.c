/* SPDX-License-Identifier: Apache-2.0 */
/* The first byte picks an option, the rest is its text. What is taken is in bounds; what is refused
 * leaves the result as it was, and has a sentence. */
#include <errno.h>

#include "core/clock.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/options_security.h"
#include "tests/fuzz/fuzz.h"

static void check_refusal(int ret, const struct ramlift_error *error)
{
	CHECK(ret == -EINVAL || ret == -ERANGE);
	CHECK(error->code == ret && error->text[0]);
}

/* Where a path is among it, that may be too long. */
static void check_path_refusal(int ret, const struct ramlift_error *error)
{
	if (ret != -ENAMETOOLONG)
		check_refusal(ret, error);
	CHECK(error->code == ret && error->text[0]);
}

static void fuzz_number(uint8_t which, const char *text)
{
	struct ramlift_error error = { 0 };
	uint64_t number = 12345, most;
	int ret;

	if (which == 0) {
		ret = option_size("--memory", text, &number, &error);
		most = OPTION_MAX_SIZE_BYTES;
	} else if (which == 1) {
		ret = option_rate("--bandwidth", text, &number, &error);
		most = OPTION_MAX_RATE_BYTES;
	} else {
		ret = option_number("--lanes", text, 1, 64, &number, &error);
		most = 64;
	}
	if (ret) {
		check_refusal(ret, &error);
		CHECK(number == 12345);
	} else {
		CHECK(number >= 1 && number <= most);
	}
}

static void fuzz_workload(const char *text)
{
	struct workload workload, before;
	struct ramlift_error error = { 0 };
	int ret;

	memset(&workload, 0, sizeof(workload));
	workload.hot_bytes = 1 << 20;
	workload.pages_per_second = 10;
	before = workload;
	ret = option_workload(text, &workload, &error);
	if (ret) {
		check_refusal(ret, &error);
		CHECK(!memcmp(&workload, &before, sizeof(before)));
	} else {
		CHECK(workload.pattern <= WORKLOAD_SKEWED);
		CHECK(workload.fill_percent <= 100);
		CHECK(workload.hot_bytes <= OPTION_MAX_SIZE_BYTES);
	}
}

static void fuzz_name(const char *text)
{
	struct ramlift_error error = { 0 };
	int ret = option_guest_name(text, &error);

	if (ret) {
		check_refusal(ret, &error);
		return;
	}
	CHECK(text[0] && text[0] != '.' && strlen(text) < RAMLIFT_MAX_NAME);
	CHECK(!strchr(text, '/'));
}

static void fuzz_words(const char *text)
{
	enum ramlift_on_divergence on_divergence;
	struct ramlift_error error = { 0 };
	enum option_transport transport;
	int ret = option_transport(text, &transport, &error);

	if (ret)
		check_refusal(ret, &error);
	else
		CHECK(transport < TRANSPORT_COUNT);
	ret = option_divergence(text, &on_divergence, &error);
	if (ret)
		check_refusal(ret, &error);
	else
		CHECK(on_divergence <= RAMLIFT_DIVERGENCE_ABORT);
}

static void fuzz_address(const char *text)
{
	struct ramlift_error error = { 0 };
	int any = option_address("--listen", text, true, &error);
	int fixed;

	if (any)
		check_refusal(any, &error);
	fixed = option_address("--to", text, false, &error);
	if (fixed)
		check_refusal(fixed, &error);
	CHECK(fixed || !any); /* what is good for the stricter one is good for the other */
}

static void fuzz_rails(const char *text)
{
	static const struct option_rails none;
	struct option_rails rails = none;
	struct ramlift_error error = { 0 };
	int ret = option_rails(text, &rails, &error);

	if (ret) {
		check_refusal(ret, &error);
		CHECK(!memcmp(&rails, &none, sizeof(none)));
		return;
	}
	CHECK(rails.n >= 1 && rails.n <= RAMLIFT_MAX_RAILS);
	for (unsigned i = 0; i < rails.n; i++) {
		CHECK(rails.list[i] == rails.names[i] && rails.names[i][0]);
		CHECK(!strpbrk(rails.names[i], "/ ,"));
		for (unsigned j = 0; j < i; j++)
			CHECK(strcmp(rails.names[i], rails.names[j]));
	}
}

static void fuzz_nodes(const char *text)
{
	static const struct machine_config none;
	struct machine_config config = none;
	struct ramlift_error error = { 0 };
	int ret = option_numa_nodes(text, &config, &error);

	if (ret) {
		check_refusal(ret, &error);
		CHECK(!memcmp(&config, &none, sizeof(none)));
		return;
	}
	CHECK(config.n_numa_nodes >= 1 && config.n_numa_nodes <= MACHINE_MAX_NODES);
	for (unsigned i = 0; i < config.n_numa_nodes; i++)
		CHECK(config.numa_nodes[i] >= 0 && config.numa_nodes[i] < MACHINE_NUMA_NODE_LIMIT);
}

static void fuzz_node_map(const char *text)
{
	static const struct machine_numa_map none;
	struct machine_numa_map map = none;
	struct ramlift_error error = { 0 };
	int ret = option_numa_map(text, &map, &error);

	if (ret) {
		check_refusal(ret, &error);
		CHECK(!memcmp(&map, &none, sizeof(none)));
		return;
	}
	CHECK(map.n >= 1 && map.n <= MACHINE_MAX_NODES);
	for (unsigned i = 0; i < map.n; i++) {
		CHECK(map.from[i] >= 0 && map.from[i] < MACHINE_NUMA_NODE_LIMIT);
		CHECK(map.to[i] >= 0 && map.to[i] < MACHINE_NUMA_NODE_LIMIT);
		for (unsigned j = 0; j < i; j++)
			CHECK(map.from[i] != map.from[j]);
	}
}

static void fuzz_pin(const char *text)
{
	enum ramlift_pin pin = RAMLIFT_PIN_DEMAND;
	struct ramlift_error error = { 0 };
	uint64_t budget_bytes = 12345;
	int ret = option_pin(text, &pin, &budget_bytes, &error);

	if (ret)
		check_refusal(ret, &error);
	if (ret || pin != RAMLIFT_PIN_BUDGET)
		CHECK(budget_bytes == 12345);
	else
		CHECK(budget_bytes >= 1 && budget_bytes <= OPTION_MAX_SIZE_BYTES);
}

static void fuzz_path_and_wait(const char *text)
{
	struct ramlift_error error = { 0 };
	char path[PATH_MAX] = "before";
	uint64_t ns = 12345;
	int ret = option_path("--psk-file", text, path, &error);

	if (ret) {
		check_path_refusal(ret, &error);
		CHECK(!strcmp(path, "before"));
	} else {
		CHECK(path[0] == '/' && strlen(path) >= strlen(text));
		CHECK(!strcmp(path + strlen(path) - strlen(text), text));
	}
	ret = option_wait("--peer-timeout", text, &ns, &error);
	if (ret) {
		check_refusal(ret, &error);
		CHECK(ns == 12345);
	} else {
		CHECK(ns >= NS_PER_S && ns <= OPTION_MAX_WAIT_S * NS_PER_S);
	}
}

static void check_security(const struct option_security *security)
{
	bool tls = security->tls_dir[0], psk = security->psk_file[0];

	CHECK(!(tls && psk) && !(security->insecure && (tls || psk)));
	CHECK(!tls || security->tls_dir[0] == '/');
	CHECK(!psk || security->psk_file[0] == '/');
	CHECK(security->n_allow <= OPTION_MAX_ALLOW && (tls || !security->n_allow));
	for (unsigned i = 0; i < security->n_allow; i++) {
		CHECK(security->allow[i] == security->patterns[i] && security->allow[i][0]);
		CHECK(memchr(security->patterns[i], '\0', OPTION_MAX_ALLOW_BYTES));
	}
	CHECK(security->peer_timeout_ns <= OPTION_MAX_WAIT_S * NS_PER_S);
	CHECK(security->io_timeout_ns <= OPTION_MAX_WAIT_S * NS_PER_S);
}

/* What was in the request has been taken as it was. */
static void check_taken(const json_t *request, const json_t *copy)
{
	static const char *const keys[] = { "tls_dir", "psk_file", "peer_timeout_ns",
					    "io_timeout_ns" };

	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const json_t *said = json_object_get(request, keys[i]);

		CHECK(!said || json_equal(said, json_object_get(copy, keys[i])));
	}
	CHECK(json_is_true(json_object_get(request, "insecure")) ==
	      json_is_true(json_object_get(copy, "insecure")));
	CHECK(json_array_size(json_object_get(request, "allow")) ==
	      json_array_size(json_object_get(copy, "allow")));
}

/* The part of a request that says how a session is protected; put into
 * another, it says the same. */
static void fuzz_security(const uint8_t *data, size_t size)
{
	static struct option_security security, again;
	struct ramlift_error error = { 0 };
	json_t *request = json_loadb((const char *)data, size, 0, NULL), *copy;
	int ret;

	memset(&security, 0, sizeof(security));
	memset(&again, 0, sizeof(again));
	ret = option_security_take(&security, request, &error);
	if (ret) {
		check_path_refusal(ret, &error);
		json_decref(request);
		return;
	}
	check_security(&security);
	copy = json_object();
	option_security_put(&security, copy);
	CHECK(!option_security_take(&again, copy, &error));
	check_taken(request, copy);
	json_decref(copy);
	json_decref(request);
	for (unsigned i = 0; i < again.n_allow; i++)
		again.allow[i] = security.allow[i]; /* which point into the object */
	CHECK(!memcmp(&again, &security, sizeof(again)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = fuzz_string(data + 1, size - 1);
	switch (data[0] % 13) {
	case 0:
	case 1:
	case 2:
		fuzz_number(data[0] % 13, text);
		break;
	case 3:
		fuzz_workload(text);
		break;
	case 4:
		fuzz_name(text);
		break;
	case 5:
		fuzz_words(text);
		break;
	case 6:
		fuzz_address(text);
		break;
	case 7:
		fuzz_rails(text);
		break;
	case 8:
		fuzz_nodes(text);
		break;
	case 9:
		fuzz_node_map(text);
		break;
	case 10:
		fuzz_pin(text);
		break;
	case 11:
		fuzz_path_and_wait(text);
		break;
	default:
		fuzz_security(data + 1, size - 1);
	}
	free(text);
	return 0;
}
