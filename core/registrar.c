/* SPDX-License-Identifier: Apache-2.0 */
#include "core/registrar.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/error.h"
#include "core/placement.h"

struct request {
	unsigned slice, rails;
	int numa_node;
};

struct registrar {
	struct registrar_config config;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* of what follows */
	struct request *queue;	/* a ring: a slice waits in it once at most, so it has room */
	unsigned first, n_queued;
	bool stop;
	struct ramlift_error error; /* the first one */
	unsigned n_started;
	pthread_t threads[];
};

static void fail(struct registrar *registrar, const struct ramlift_error *error)
{
	pthread_mutex_lock(&registrar->lock);
	registrar->stop = true;
	if (!registrar->error.code)
		registrar->error = *error;
	pthread_cond_broadcast(&registrar->changed);
	pthread_mutex_unlock(&registrar->lock);
}

static int serve(struct registrar *registrar, const struct request *request,
		 struct ramlift_error *error)
{
	const struct registrar_config *config = &registrar->config;
	struct slice_key key = { 0 };
	int ret = 0;

	if (config->before)
		ret = config->before(config->context, request->slice, error);
	if (!ret)
		ret = config->transport->register_slice(config->endpoint, request->slice,
							request->rails, &key, error);
	if (!ret)
		ret = config->ready(config->context, request->slice, &key, error);
	return ret;
}

/* The next request; false when there will be none. */
static bool take(struct registrar *registrar, struct request *request)
{
	bool taken;

	pthread_mutex_lock(&registrar->lock);
	while (!registrar->n_queued && !registrar->stop)
		pthread_cond_wait(&registrar->changed, &registrar->lock);
	taken = !registrar->stop;
	if (taken) {
		*request = registrar->queue[registrar->first];
		registrar->first = (registrar->first + 1) % registrar->config.n_slices;
		registrar->n_queued--;
	}
	pthread_mutex_unlock(&registrar->lock);
	return taken;
}

static void *registrar_thread(void *argument)
{
	struct registrar *registrar = argument;
	struct request request;
	int numa_node = -1;

	while (take(registrar, &request)) {
		struct ramlift_error error = { 0 };
		int ret;

		if (request.numa_node != numa_node)
			placement_bind_thread(numa_node = request.numa_node);
		ret = serve(registrar, &request, &error);

		if (ret && !error.code)
			error_set(&error, ret, "cannot register slice %u", request.slice);
		if (ret)
			fail(registrar, &error);
	}
	return NULL;
}

int registrar_start(const struct registrar_config *config, struct registrar **result,
		    struct ramlift_error *error)
{
	unsigned n_threads =
		config->n_threads < config->n_slices ? config->n_threads : config->n_slices;
	struct registrar *registrar =
		calloc(1, sizeof(*registrar) + n_threads * sizeof(registrar->threads[0]));

	if (registrar)
		registrar->queue = calloc(config->n_slices, sizeof(*registrar->queue));
	if (!registrar || !registrar->queue) {
		free(registrar);
		return error_set(error, -ENOMEM, "no memory to register slices");
	}
	registrar->config = *config;
	pthread_mutex_init(&registrar->lock, NULL);
	pthread_cond_init(&registrar->changed, NULL);
	for (unsigned i = 0; i < n_threads; i++) {
		int ret = pthread_create(&registrar->threads[i], NULL, registrar_thread, registrar);

		if (ret) {
			registrar_free(registrar);
			return error_set(error, -ret, "cannot start threads to register slices");
		}
		registrar->n_started++;
	}
	*result = registrar;
	return 0;
}

void registrar_request(struct registrar *registrar, unsigned slice, unsigned rails, int numa_node)
{
	unsigned n_slices = registrar->config.n_slices;

	pthread_mutex_lock(&registrar->lock);
	assert(registrar->n_queued < n_slices);
	registrar->queue[(registrar->first + registrar->n_queued++) % n_slices] =
		(struct request){ slice, rails, numa_node };
	pthread_cond_signal(&registrar->changed);
	pthread_mutex_unlock(&registrar->lock);
}

int registrar_check(struct registrar *registrar, struct ramlift_error *error)
{
	int ret;

	pthread_mutex_lock(&registrar->lock);
	ret = registrar->error.code;
	if (ret && error)
		*error = registrar->error;
	pthread_mutex_unlock(&registrar->lock);
	return ret;
}

void registrar_free(struct registrar *registrar)
{
	if (!registrar)
		return;
	pthread_mutex_lock(&registrar->lock);
	registrar->stop = true;
	pthread_cond_broadcast(&registrar->changed);
	pthread_mutex_unlock(&registrar->lock);
	for (unsigned i = 0; i < registrar->n_started; i++)
		pthread_join(registrar->threads[i], NULL);
	pthread_cond_destroy(&registrar->changed);
	pthread_mutex_destroy(&registrar->lock);
	free(registrar->queue);
	free(registrar);
}
