/* SPDX-License-Identifier: Apache-2.0 */
/* The first byte picks an option, the rest is its text. What is taken is in bounds; what is refused
 * leaves the result as it was, and has a sentence. */
#include <errno.h>

#include "kvm/vmm/options.h"
#include "tests/fuzz/fuzz.h"

static void check_refusal(int ret, const struct ramlift_error *error)
{
	CHECK(ret == -EINVAL || ret == -ERANGE);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = fuzz_string(data + 1, size - 1);
	switch (data[0] % 7) {
	case 0:
	case 1:
	case 2:
		fuzz_number(data[0] % 7, text);
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
	default:
		fuzz_address(text);
	}
	free(text);
	return 0;
}
