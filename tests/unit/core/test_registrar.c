/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that register: in the order of asking, several at once, until something fails or they are
 * to end. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/registrar.h"
#include "tests/support/cmocka_all.h"

#define N_SLICES    100u
#define LONG_NS	    (clock_now_ns() + 60 * NS_PER_S) /* against hangs only */
#define A_MOMENT_US 30000

/* What the registrar did, step by step; the endpoint is nobody. */
enum step_kind { BEFORE, REGISTERED, READY };

static struct {
	pthread_mutex_t lock;
	struct {
		enum step_kind kind;
		unsigned slice;
	} steps[10 * N_SLICES];
	unsigned n_steps;
	unsigned rails[N_SLICES];
	atomic_bool block; /* registrations wait */
	_Atomic unsigned n_at_once, most_at_once;
	unsigned fail_before, fail_register, fail_ready; /* the slice + 1 */
	bool silently;
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void note(enum step_kind kind, unsigned slice)
{
	pthread_mutex_lock(&seen.lock);
	seen.steps[seen.n_steps].kind = kind;
	seen.steps[seen.n_steps++].slice = slice;
	pthread_mutex_unlock(&seen.lock);
}

static unsigned count(enum step_kind kind)
{
	unsigned n = 0;

	pthread_mutex_lock(&seen.lock);
	for (unsigned i = 0; i < seen.n_steps; i++)
		n += seen.steps[i].kind == kind;
	pthread_mutex_unlock(&seen.lock);
	return n;
}

static void await_count(enum step_kind kind, unsigned n)
{
	for (uint64_t end_ns = LONG_NS; count(kind) < n;) {
		assert_true(clock_now_ns() < end_ns);
		usleep(200);
	}
}

static int fail_at(unsigned slice, unsigned marked, const char *what, struct ramlift_error *error)
{
	if (slice + 1 != marked)
		return 0;
	return seen.silently ? -ENOSPC : error_set(error, -ENOSPC, "%s fails", what);
}

static int fake_register(struct endpoint *endpoint, unsigned slice, unsigned rails,
			 struct slice_key *key, struct ramlift_error *error)
{
	unsigned n = atomic_fetch_add(&seen.n_at_once, 1) + 1;
	int ret;

	(void)endpoint;
	if (n > atomic_load(&seen.most_at_once)) /* a rough figure is good enough */
		atomic_store(&seen.most_at_once, n);
	while (atomic_load(&seen.block))
		usleep(200);
	ret = fail_at(slice, seen.fail_register, "registering", error);
	if (!ret) {
		note(REGISTERED, slice);
		seen.rails[slice] = rails;
		key->address = slice * 1000ull;
	}
	atomic_fetch_sub(&seen.n_at_once, 1);
	return ret;
}

static int before(void *context, unsigned slice, struct ramlift_error *error)
{
	assert_ptr_equal(context, &seen);
	note(BEFORE, slice);
	return fail_at(slice, seen.fail_before, "clearing", error);
}

static int ready(void *context, unsigned slice, const struct slice_key *key,
		 struct ramlift_error *error)
{
	assert_ptr_equal(context, &seen);
	if (key->address != slice * 1000ull)
		return error_set(error, -EINVAL, "another slice's key");
	note(READY, slice);
	return fail_at(slice, seen.fail_ready, "announcing", error);
}

static struct registrar *start(unsigned n_threads, bool with_before)
{
	static const struct ramlift_transport transport = { .register_slice = fake_register };
	struct registrar_config config = { .transport = &transport,
					   .n_slices = N_SLICES,
					   .n_threads = n_threads,
					   .before = with_before ? before : NULL,
					   .ready = ready,
					   .context = &seen };
	struct registrar *registrar = NULL;

	seen.n_steps = 0;
	memset(seen.rails, 0, sizeof(seen.rails));
	atomic_store(&seen.block, false);
	atomic_store(&seen.most_at_once, 0);
	seen.fail_before = seen.fail_register = seen.fail_ready = 0;
	seen.silently = false;
	assert_int_equal(registrar_start(&config, &registrar, NULL), 0);
	return registrar;
}

static int await_failure(struct registrar *registrar, struct ramlift_error *error)
{
	uint64_t end_ns = LONG_NS;
	int ret;

	while (!(ret = registrar_check(registrar, error))) {
		assert_true(clock_now_ns() < end_ns);
		usleep(200);
	}
	return ret;
}

static void test_one_thread_keeps_the_order(void **unused)
{
	struct registrar *registrar = start(1, true);

	(void)unused;
	/* Twice all of them: the ring of requests goes around. */
	for (unsigned i = 0; i < 2 * N_SLICES; i++) {
		unsigned slice = i * 37 % N_SLICES;

		if (i >= N_SLICES / 2) /* not again before it is ready */
			await_count(READY, i + 1 - N_SLICES / 2);
		registrar_request(registrar, slice, slice % 7 + 1, -1);
	}
	await_count(READY, 2 * N_SLICES);
	assert_int_equal(seen.n_steps, 6 * N_SLICES);
	for (unsigned i = 0; i < seen.n_steps; i++) {
		assert_int_equal(seen.steps[i].slice, i / 3 * 37 % N_SLICES);
		assert_int_equal(seen.steps[i].kind, i % 3);
	}
	for (unsigned i = 0; i < N_SLICES; i++)
		assert_int_equal(seen.rails[i], i % 7 + 1);
	assert_int_equal(registrar_check(registrar, NULL), 0);
	registrar_free(registrar);
}

static void test_several_at_once(void **unused)
{
	struct registrar *registrar = start(4, false);

	(void)unused;
	atomic_store(&seen.block, true);
	for (unsigned i = 0; i < N_SLICES; i++)
		registrar_request(registrar, i, 1, i % 2 ? -1 : 0);
	for (uint64_t end_ns = LONG_NS; atomic_load(&seen.n_at_once) < 4;) {
		assert_true(clock_now_ns() < end_ns);
		usleep(200);
	}
	atomic_store(&seen.block, false);
	await_count(READY, N_SLICES);
	assert_int_equal(seen.n_steps, 2 * N_SLICES);
	assert_int_equal(atomic_load(&seen.most_at_once), 4);
	registrar_free(registrar);
}

/* Requests that come while the threads sleep wake them, one by one. */
static void test_requests_wake(void **unused)
{
	struct registrar *registrar = start(3, false);

	(void)unused;
	for (unsigned i = 0; i < N_SLICES; i++) {
		registrar_request(registrar, i, 1, -1);
		await_count(READY, i + 1);
	}
	registrar_free(registrar);
}

/* At each of the places; nothing is registered after it, and the rest may still be asked for. */
static void fail_at_slice_3(unsigned *place, const char *words, bool silently)
{
	struct ramlift_error error = { 0 };
	struct registrar *registrar = start(1, true);

	*place = 3 + 1;
	seen.silently = silently;
	for (unsigned i = 0; i < N_SLICES; i++)
		registrar_request(registrar, i, 1, -1);
	assert_int_equal(await_failure(registrar, &error), -ENOSPC);
	assert_int_equal(error.code, -ENOSPC);
	assert_non_null(strstr(error.text, words));
	usleep(A_MOMENT_US);
	assert_int_equal(count(BEFORE), 4);
	assert_int_equal(registrar_check(registrar, NULL), -ENOSPC); /* it stays */
	registrar_free(registrar);
}

static void test_failures_end_it(void **unused)
{
	(void)unused;
	fail_at_slice_3(&seen.fail_before, "clearing fails", false);
	fail_at_slice_3(&seen.fail_register, "registering fails", false);
	fail_at_slice_3(&seen.fail_ready, "announcing fails", false);
	fail_at_slice_3(&seen.fail_register, "slice 3", true);
}

/* What is in progress ends, what waits is left. */
static void test_free_while_requests_wait(void **unused)
{
	struct registrar *registrar = start(2, false);

	(void)unused;
	registrar_free(registrar); /* asleep */
	registrar = start(2, false);
	atomic_store(&seen.block, true);
	for (unsigned i = 0; i < N_SLICES; i++)
		registrar_request(registrar, i, 1, -1);
	for (uint64_t end_ns = LONG_NS; atomic_load(&seen.n_at_once) < 2;) {
		assert_true(clock_now_ns() < end_ns);
		usleep(200);
	}
	seen.fail_register = 1; /* slice 0 ends all; the others' turn never comes */
	atomic_store(&seen.block, false);
	assert_int_equal(await_failure(registrar, NULL), -ENOSPC);
	registrar_free(registrar);
	assert_int_equal(atomic_load(&seen.n_at_once), 0);
	assert_true(count(READY) < N_SLICES);
	registrar_free(NULL);
}

/* A thread for which there is never a slice would be one too many, and none is needed for none. */
static void test_more_threads_than_slices(void **unused)
{
	struct registrar *registrar = start(N_SLICES + 50, false);

	(void)unused;
	for (unsigned i = 0; i < N_SLICES; i++)
		registrar_request(registrar, i, 1, -1);
	await_count(READY, N_SLICES);
	registrar_free(registrar);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_thread_keeps_the_order),
		cmocka_unit_test(test_several_at_once),
		cmocka_unit_test(test_requests_wake),
		cmocka_unit_test(test_failures_end_it),
		cmocka_unit_test(test_free_while_requests_wait),
		cmocka_unit_test(test_more_threads_than_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
