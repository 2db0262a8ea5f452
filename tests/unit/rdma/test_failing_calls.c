/* SPDX-License-Identifier: Apache-2.0 */
/* Every call that can fail does so once, on whatever side it happens to be; nobody waits longer
 * than told, nothing is left behind. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "fake_device.h"
#include "pair.h"

struct session {
	struct pair pair;
	pthread_mutex_t lock;
	bool over; /* a side has given up */
};

static void give_up(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	session->over = true;
	eventfd_write(session->pair.interrupt_fd, 1); /* the source may still be connecting */
	if (session->pair.source)
		transport->abort(session->pair.source);
	if (session->pair.destination)
		transport->abort(session->pair.destination);
	pthread_mutex_unlock(&session->lock);
}

/* Make an endpoint known to give_up(). */
static int publish(struct session *session, struct endpoint **slot, struct endpoint *endpoint)
{
	pthread_mutex_lock(&session->lock);
	*slot = endpoint;
	if (session->over)
		transport->abort(endpoint);
	pthread_mutex_unlock(&session->lock);
	return 0;
}

static void *run_destination(void *argument)
{
	struct session *session = argument;
	struct pair *pair = &session->pair;
	struct ramlift_error *error = &pair->destination_error;
	int ret = transport->accept(pair->destination, pair_within_ms(1000), error);

	if (!ret)
		ret = transport->await_tokens(pair->destination, pair_tokens(PAIR_TOKEN),
					      pair_within_ms(1000), error);
	if (!ret)
		ret = transport->fence(pair->destination, error);
	if (ret)
		give_up(session);
	pair->accept_ret = ret;
	return NULL;
}

static int run_source(struct session *session)
{
	struct pair *pair = &session->pair;
	struct transport_params params = pair_params(pair, pair->source_slices);
	struct endpoint *endpoint;
	int ret;

	ret = transport->connect(&params, pair->bound, pair_within_ms(1000), &endpoint,
				 &pair->source_error);
	if (!ret)
		ret = publish(session, &pair->source, endpoint);
	for (unsigned i = 0; i < PAIR_SLICES && !ret; i++) {
		ret = transport->register_slice(pair->source, i, pair->carriers[i], NULL,
						&pair->source_error);
		transport->set_peer_key(pair->source, i, &pair->keys[i]);
	}
	if (!ret)
		ret = pair_send_all(pair, 4096);
	if (!ret)
		ret = pair_send_tokens(pair, PAIR_TOKEN);
	if (ret)
		give_up(session);
	return ret;
}

static int run_session(struct session *session)
{
	struct pair *pair = &session->pair;
	struct transport_params params = pair_params(pair, pair->destination_slices);
	int ret;

	ret = transport->listen(&params, pair_address(1), &pair->destination, pair->bound,
				&pair->destination_error);
	for (unsigned i = 0; i < PAIR_SLICES && !ret; i++)
		ret = transport->register_slice(pair->destination, i, pair->carriers[i],
						&pair->keys[i], &pair->destination_error);
	if (ret)
		return ret;
	assert_int_equal(pthread_create(&pair->acceptor, NULL, run_destination, session), 0);
	ret = run_source(session);
	pthread_join(pair->acceptor, NULL);
	return ret ? ret : pair->accept_ret;
}

/* How many calls can fail. */
static unsigned fail_every_call(unsigned n_named_rails)
{
	unsigned nth = 0;
	bool failed;

	do {
		struct session session = { .lock = PTHREAD_MUTEX_INITIALIZER };
		int ret;

		pair_init(&session.pair, 2);
		if (n_named_rails) {
			pair_name_rails(&session.pair, n_named_rails);
			session.pair.on_demand_paging = true;
			fake_page_on_demand(0);
			fake_page_on_demand(1);
		}
		session.pair.io_timeout_ns = NS_PER_S;
		session.pair.interrupt_fd = eventfd(0, EFD_CLOEXEC);
		fake_fail_call(++nth);
		ret = run_session(&session);
		failed = fake_has_failed();
		/* Some failures are survived, such as a completion event that cannot be read. */
		if (!failed)
			assert_int_equal(ret, 0);
		if (ret)
			assert_true(session.pair.source_error.code ||
				    session.pair.destination_error.code);
		if (!ret)
			pair_assert_same_memory(&session.pair);
		fake_fail_call(0);
		close(session.pair.interrupt_fd);
		pair_fini(&session.pair);
	} while (failed);
	print_message("%u rails with names: %u calls can fail\n", n_named_rails, nth - 1);
	return nth - 1;
}

static void test_every_call_fails_once(void **state)
{
	unsigned unnamed = fail_every_call(0);

	(void)state;
	assert_true(unnamed > 50);
	assert_true(fail_every_call(2) > unnamed + 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_call_fails_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
