/* SPDX-License-Identifier: Apache-2.0 */
#include "core/destination.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"

void ramlift_destination_config_init(struct ramlift_destination_config *config)
{
	memset(config, 0, sizeof(*config));
	config->register_threads = 2;
	config->max_strangers = 16;
	config->timeouts = (struct ramlift_timeouts){
		.connect_ns = 10 * NS_PER_S,
		.authenticate_ns = 5 * NS_PER_S,
		.io_ns = 5 * NS_PER_S,
		.heartbeat_ns = 4 * NS_PER_S,
		.prepare_ns = 60 * NS_PER_S,
		.hand_over_ns = 60 * NS_PER_S,
	};
}

static int check_config(const struct ramlift_destination_config *config,
			struct ramlift_error *error)
{
	const struct ramlift_guest_ops *ops = config->guest_ops;

	if (!ops || !ops->create || !ops->discard || !ops->load_state || !ops->resume)
		return error_set(error, -EINVAL, "a call of the guest is missing");
	if (!config->n_transports || !config->register_threads || !config->listen ||
	    !config->timeouts.connect_ns || !config->timeouts.authenticate_ns ||
	    !config->timeouts.io_ns || !config->timeouts.heartbeat_ns ||
	    !config->timeouts.hand_over_ns)
		return error_set(
			error, -EINVAL,
			"an address, a transport, a timeout or the number of threads is missing");
	if (!config->state_dir || !config->max_strangers)
		return error_set(error, -EINVAL,
				 "the state directory or the number of connections is missing");
	return 0;
}

/* On a stranger's thread. */
static int answer(void *context, const struct ask *ask, enum answer_word *word,
		  struct ramlift_error *error)
{
	struct ramlift_destination *destination = context;

	destination_settle(destination, NULL); /* or it is still to be asked again */
	return destination_answer(destination->config.state_dir, ask, word, error);
}

static void turned_away(void *context, const char *peer, const struct ramlift_error *why)
{
	const struct ramlift_destination_config *config =
		&((struct ramlift_destination *)context)->config;

	if (config->turned_away)
		config->turned_away(config->progress_context, peer, why);
}

static int let_in(struct ramlift_destination *destination, struct ramlift_error *error)
{
	struct admission_config admission = {
		.listen_fd = destination->listen_fd,
		.security = destination->security,
		.max_strangers = destination->config.max_strangers,
		.authenticate_ns = destination->config.timeouts.authenticate_ns,
		.heartbeat_ns = destination->config.timeouts.heartbeat_ns,
		.answer = answer,
		.turned_away = turned_away,
		.context = destination,
	};

	return admission_start(&admission, &destination->admission, error);
}

int ramlift_destination_new(const struct ramlift_destination_config *config,
			    struct ramlift_destination **result, struct ramlift_error *error)
{
	struct ramlift_destination *destination;
	int ret;

	ret = check_config(config, error);
	if (ret)
		return ret;
	destination = calloc(1, sizeof(*destination));
	if (!destination)
		return error_set(error, -ENOMEM, "no memory for a session");
	destination->interrupt_fd = -1;
	destination->config = *config;
	ret = security_new(&config->security, &destination->security, error);
	if (ret)
		goto free_destination;
	ret = address_parse(config->listen, 1, &destination->local, error);
	if (!ret)
		ret = address_listen(&destination->local, &destination->listen_fd, error);
	if (ret)
		goto free_security;
	ret = address_of_socket(destination->listen_fd, &destination->local);
	if (!ret)
		ret = session_init(&destination->session, SIDE_DESTINATION);
	if (ret) {
		error_set(error, ret, "cannot make a session: %s", strerror(-ret));
		goto close_listener;
	}
	destination->session.progress = config->progress;
	destination->session.checked = config->checked;
	destination->session.progress_context = config->progress_context;
	destination->lock_fd = -1;
	pthread_mutex_init(&destination->owes_lock, NULL);
	ret = let_in(destination, error);
	if (ret)
		goto fini_session;
	*result = destination;
	return 0;

fini_session:
	pthread_mutex_destroy(&destination->owes_lock);
	session_fini(&destination->session);
close_listener:
	close(destination->listen_fd);
free_security:
	security_free(destination->security);
free_destination:
	free(destination);
	return ret;
}

uint16_t ramlift_destination_port(const struct ramlift_destination *destination)
{
	return address_port(&destination->local);
}

int ramlift_destination_cancel(struct ramlift_destination *destination)
{
	return session_cancel(&destination->session);
}

void ramlift_destination_stats(struct ramlift_destination *destination, struct ramlift_stats *stats)
{
	session_copy_stats(&destination->session, stats);
}

void ramlift_destination_info(struct ramlift_destination *destination,
			      struct ramlift_session_info *info)
{
	session_copy_info(&destination->session, info);
}

void ramlift_destination_free(struct ramlift_destination *destination)
{
	if (!destination)
		return;
	admission_free(destination->admission);
	destination_settle(destination, NULL);
	destination_let_go(destination);
	pthread_mutex_destroy(&destination->owes_lock);
	session_fini(&destination->session);
	close(destination->listen_fd);
	security_free(destination->security);
	free(destination);
}
