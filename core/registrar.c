/* SPDX-License-Identifier: Apache-2.0 */
#include "core/registrar.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/error.h"
#include "core/ramlift.h"

struct registrar {
	struct registrar_config config;
	_Atomic unsigned next;
	atomic_bool stop;
	pthread_mutex_t lock;
	struct ramlift_error error; /* the first one */
	unsigned n_started;
	pthread_t threads[];
};

static void fail(struct registrar *registrar, const struct ramlift_error *error)
{
	atomic_store(&registrar->stop, true);
	pthread_mutex_lock(&registrar->lock);
	if (!registrar->error.code)
		registrar->error = *error;
	pthread_mutex_unlock(&registrar->lock);
}

static void *registrar_thread(void *argument)
{
	struct registrar *registrar = argument;
	const struct registrar_config *config = &registrar->config;

	while (!atomic_load(&registrar->stop)) {
		unsigned slice = atomic_fetch_add(&registrar->next, 1);
		struct ramlift_error error = { 0 };
		struct slice_key key = { 0 };
		int ret = 0;

		if (slice >= config->n_slices)
			break;
		if (config->before)
			ret = config->before(config->context, slice, &error);
		if (!ret)
			ret = config->transport->register_slice(config->endpoint, slice, 1, &key,
								&error);
		if (!ret)
			ret = config->ready(config->context, slice, &key, &error);
		if (ret) {
			if (!error.code)
				error_set(&error, ret, "cannot register slice %u", slice);
			fail(registrar, &error);
		}
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

	if (!registrar)
		return error_set(error, -ENOMEM, "no memory to register slices");
	registrar->config = *config;
	pthread_mutex_init(&registrar->lock, NULL);
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
	atomic_store(&registrar->stop, true);
	for (unsigned i = 0; i < registrar->n_started; i++)
		pthread_join(registrar->threads[i], NULL);
	pthread_mutex_destroy(&registrar->lock);
	free(registrar);
}
