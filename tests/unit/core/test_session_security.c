/* SPDX-License-Identifier: Apache-2.0 */
/* Whole sessions under TLS: its lanes are encrypted, too, and who is refused leaves the guest where
 * it is. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "session_pair.h"
#include "tests/unit/core/stream_rig.h"

/* TCP, and what its two ends were told. */
static struct ramlift_transport spied;
static uint8_t lane_secrets[2][STREAM_SECRET_BYTES];
static bool lanes_plain[2];
static uint64_t io_timeout_ns[2];
static _Atomic unsigned refusals;
static char refusal[480];

static void take_params(const struct transport_params *params, unsigned which)
{
	lanes_plain[which] = !params->lane_secret;
	io_timeout_ns[which] = params->io_timeout_ns;
	if (params->lane_secret)
		memcpy(lane_secrets[which], params->lane_secret, STREAM_SECRET_BYTES);
}

static int spied_listen(const struct transport_params *params, const struct sockaddr *local,
			struct endpoint **endpoint, struct sockaddr_storage *addresses,
			struct ramlift_error *error)
{
	take_params(params, DESTINATION);
	return ramlift_transport_tcp()->listen(params, local, endpoint, addresses, error);
}

static int spied_connect(const struct transport_params *params,
			 const struct sockaddr_storage *peers, uint64_t deadline_ns,
			 struct endpoint **endpoint, struct ramlift_error *error)
{
	take_params(params, SOURCE);
	return ramlift_transport_tcp()->connect(params, peers, deadline_ns, endpoint, error);
}

static void turned_away(void *context, const char *peer, const struct ramlift_error *why)
{
	(void)context;
	(void)peer;
	memcpy(refusal, why->text, sizeof(refusal));
	atomic_fetch_add(&refusals, 1);
}

static void init(struct pair *pair, const char *tls_dir, const char *psk_file)
{
	spied = *ramlift_transport_tcp();
	spied.listen = spied_listen;
	spied.connect = spied_connect;
	memset(lane_secrets, 0, sizeof(lane_secrets));
	atomic_store(&refusals, 0);
	pair_init(pair, &spied);
	pair->source_config.security.tls_dir = tls_dir ? rig_path("source") : NULL;
	pair->destination_config.security.tls_dir = tls_dir;
	pair->source_config.security.psk_file = psk_file;
	pair->destination_config.security.psk_file = psk_file;
	pair->destination_config.turned_away = turned_away;
	pair->source_config.timeouts.io_ns = 7 * NS_PER_S;
	pair->destination_config.timeouts.io_ns = 8 * NS_PER_S;
}

static void move(struct pair *pair, bool plain)
{
	static const uint8_t zeros[STREAM_SECRET_BYTES];

	pair_assert_moved(pair, pair_run(pair));
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(lanes_plain[i], plain);
	if (!plain)
		assert_memory_not_equal(lane_secrets[0], zeros, STREAM_SECRET_BYTES);
	assert_memory_equal(lane_secrets[0], lane_secrets[1], STREAM_SECRET_BYTES);
	assert_int_equal(io_timeout_ns[SOURCE], 7 * NS_PER_S);
	assert_int_equal(io_timeout_ns[DESTINATION], 8 * NS_PER_S);
	pair_fini(pair);
}

static void test_a_guest_moves_under_tls(void **unused)
{
	struct pair pair;

	(void)unused;
	init(&pair, rig_path("destination"), NULL);
	fake_guest_start_writer(&pair.source_guest, 500, 1);
	move(&pair, false);
	init(&pair, NULL, rig_path("key"));
	fake_guest_start_writer(&pair.source_guest, 500, 2);
	move(&pair, false);
	init(&pair, NULL, NULL);
	move(&pair, true);
}

/* The source may try again, and the destination waits on. */
static void refuse(struct pair *pair, const char *word)
{
	struct ramlift_error error = { 0 };

	pair_start(pair);
	assert_int_equal(ramlift_source_run(pair->source, &error), -EACCES);
	assert_non_null(strstr(error.text, word));
	assert_int_equal(pair->source_guest.pauses, 0);
	assert_false(pair->source_guest.tracking);
	assert_false(pair->destination_guest.created);
	for (uint64_t end_ns = LONG_NS; !atomic_load(&refusals);)
		assert_true(clock_now_ns() < end_ns);
	assert_non_null(strstr(refusal, word));
	assert_int_equal(ramlift_destination_cancel(pair->destination), 0);
	pair_join(pair);
	assert_int_equal(pair->destination_ret, -ECANCELED);
	pair_assert_stayed(pair);
	pair_fini(pair);
}

static void test_strangers_move_nothing(void **unused)
{
	struct pair pair;

	(void)unused;
	init(&pair, rig_path("destination"), NULL);
	pair.source_config.security.tls_dir = rig_path("stranger");
	refuse(&pair, "CA");
	init(&pair, NULL, rig_path("key"));
	pair.source_config.security.psk_file = rig_path("other-key");
	refuse(&pair, "another pre-shared key");
	init(&pair, rig_path("destination"), NULL);
	pair.source_config.security.tls_dir = NULL;
	refuse(&pair, "TLS");
}

/* Before anything is contacted, bound or paused. */
static void test_a_wrong_configuration_is_told_early(void **unused)
{
	struct ramlift_error error = { 0 };
	struct pair pair;

	(void)unused;
	init(&pair, NULL, rig_path("nowhere"));
	assert_int_equal(
		ramlift_destination_new(&pair.destination_config, &pair.destination, &error),
		-ENOENT);
	assert_non_null(strstr(error.text, "nowhere"));
	strcpy(pair.to, "127.0.0.1:1");
	error.text[0] = '\0';
	assert_int_equal(ramlift_source_new(&pair.source_config, &pair.source, &error), -ENOENT);
	assert_non_null(strstr(error.text, "nowhere"));
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_guest_moves_under_tls),
		cmocka_unit_test(test_strangers_move_nothing),
		cmocka_unit_test(test_a_wrong_configuration_is_told_early),
	};

	return cmocka_run_group_tests(tests, rig_make, rig_remove);
}
