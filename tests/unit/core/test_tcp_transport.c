/* SPDX-License-Identifier: Apache-2.0 */
/* A pair with TCP lanes: what is written is there when the tokens are. */
#include <errno.h>
#include <string.h>

#include "tcp_rig.h"

static void test_data_arrives(void **unused)
{
	static const unsigned lanes[] = { 1, 3, RAMLIFT_MAX_LANES };

	(void)unused;
	for (unsigned i = 0; i < 3; i++) {
		struct pair pair;

		pair_init(&pair, lanes[i]);
		fill(&pair.source, 7 + i);
		post_all(&pair);
		send_tokens(&pair, TOKEN);
		assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
		assert_same_memory(&pair); /* with the tokens it is all there */
		assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0); /* and stays so */
		assert_int_equal(tcp()->fence(pair.destination.endpoint, NULL), 0);
		assert_same_memory(&pair);
		pair_fini(&pair);
	}
}

static void test_the_largest_write(void **unused)
{
	struct transport_write write = { 1, WRITE_MAX, slice_bytes[1] - WRITE_MAX };
	struct pair pair;

	(void)unused;
	pair_init(&pair, 1);
	memset((char *)pair.source.slices[1].hva + write.offset_bytes, 0x42, WRITE_MAX);
	assert_int_equal(tcp()->post(pair.source.endpoint, 0, &write, 1, NULL), 0);
	send_tokens(&pair, TOKEN);
	assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
	assert_same_memory(&pair);
	pair_fini(&pair);
}

/* Of several writes to a page on one lane the last one stays. */
static void test_writes_of_a_lane_keep_their_order(void **unused)
{
	struct transport_write write = { 2, PAGE, 0 };
	struct pair pair;

	(void)unused;
	pair_init(&pair, 1);
	for (unsigned i = 1; i <= 500; i++) {
		memset(pair.source.slices[2].hva, (int)i, PAGE);
		assert_int_equal(tcp()->post(pair.source.endpoint, 0, &write, 1, NULL), 0);
	}
	send_tokens(&pair, TOKEN);
	assert_int_equal(await_tokens(&pair, TOKEN, NULL), 0);
	assert_same_memory(&pair);
	pair_fini(&pair);
}

static void test_tokens(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;

	(void)unused;
	pair_init(&pair, 3);
	assert_int_equal(tcp()->token(pair.source.endpoint, 0, TOKEN, NULL), 0);
	assert_int_equal(tcp()->token(pair.source.endpoint, 2, TOKEN, NULL), 0);
	assert_int_equal(tcp()->await_tokens(pair.destination.endpoint, on_all_lanes(TOKEN),
					     clock_now_ns() + 50 * NS_PER_MS, &error),
			 -ETIMEDOUT);
	assert_non_null(strstr(error.text, "lane 1")); /* the one that is missing */
	assert_int_equal(tcp()->token(pair.source.endpoint, 1, TOKEN + 1, NULL), 0);
	assert_int_equal(await_tokens(&pair, TOKEN, &error), -EPROTO);
	assert_int_equal(error.code, -EPROTO);
	assert_non_null(strstr(error.text, "lane 1"));
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data_arrives),
		cmocka_unit_test(test_the_largest_write),
		cmocka_unit_test(test_writes_of_a_lane_keep_their_order),
		cmocka_unit_test(test_tokens),
	};
	int failed = cmocka_run_group_tests_name("plain", tests, lanes_plain, NULL);

	return failed + cmocka_run_group_tests_name("TLS", tests, lanes_under_tls, NULL);
}
