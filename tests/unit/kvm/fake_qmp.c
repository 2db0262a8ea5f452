/* SPDX-License-Identifier: Apache-2.0 */
/* The fake's thread: accept, greet, read lines, answer. */
#include "fake_qmp.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

struct fake_qmp {
	const struct fake_qmp_config *config;
	char folder[32];
	char path[48];
	int listener;
	int client;
	pthread_t thread;
	pthread_mutex_t lock; /* of client */
};

static bool fits(const char *request, const char *words)
{
	char copy[256], *rest = copy, *word;

	snprintf(copy, sizeof(copy), "%s", words);
	while ((word = strsep(&rest, " ")))
		if (!strstr(request, word))
			return false;
	return true;
}

static void say(const struct fake_qmp *fake, const char *text)
{
	size_t left = strlen(text);

	while (left) {
		ssize_t n =
			send(fake->client, text, fake->config->dribble ? 1 : left, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		text += n;
		left -= (size_t)n;
	}
}

static void say_body(const struct fake_qmp *fake, const json_t *request, const char *body)
{
	char *text;

	if (asprintf(&text, "{\"id\": %lld, %s}\r\n",
		     (long long)json_integer_value(json_object_get(request, "id")), body) < 0)
		return;
	say(fake, text);
	free(text);
}

static bool respond(const struct fake_qmp *fake, const json_t *request)
{
	const char *command = json_string_value(json_object_get(request, "execute"));
	char *body = NULL;

	if (fake->config->respond && command)
		body = fake->config->respond(fake->config->context, command,
					     json_object_get(request, "arguments"));
	if (body)
		say_body(fake, request, body);
	free(body);
	return body != NULL;
}

static void answer(const struct fake_qmp *fake, const char *line)
{
	static const struct fake_qmp_answer defaults[] = {
		{ .words = "\"qmp_capabilities\"", .body = "\"return\": {}" },
		{ .words = "",
		  .body = "\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The "
			  "command has not been found\"}" },
	};
	const struct fake_qmp_answer *chosen = NULL;
	json_t *request = json_loads(line, 0, NULL);

	if (respond(fake, request)) {
		json_decref(request);
		return;
	}
	for (size_t i = 0; i < fake->config->n_answers && !chosen; i++)
		if (fits(line, fake->config->answers[i].words))
			chosen = &fake->config->answers[i];
	for (size_t i = 0; i < 2 && !chosen; i++)
		if (fits(line, defaults[i].words))
			chosen = &defaults[i];
	if (chosen->before)
		say(fake, chosen->before);
	if (chosen->hang_up)
		shutdown(fake->client, SHUT_RDWR);
	if (chosen->body)
		say_body(fake, request, chosen->body);
	json_decref(request);
}

static void *serve(void *context)
{
	struct fake_qmp *fake = context;
	int client = accept(fake->listener, NULL, NULL);
	char *line = NULL;
	size_t room = 0;
	FILE *input;

	pthread_mutex_lock(&fake->lock);
	fake->client = client;
	pthread_mutex_unlock(&fake->lock);
	if (client < 0)
		return NULL;
	if (fake->config->greeting)
		say(fake, fake->config->greeting);
	input = fdopen(dup(client), "re");
	while (input && getline(&line, &room, input) > 0)
		answer(fake, line);
	free(line);
	if (input)
		fclose(input);
	return NULL;
}

struct fake_qmp *fake_qmp_start(const struct fake_qmp_config *config)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct fake_qmp *fake = calloc(1, sizeof(*fake));

	if (!fake)
		return NULL;
	fake->config = config;
	fake->client = -1;
	pthread_mutex_init(&fake->lock, NULL);
	strcpy(fake->folder, "/tmp/ramlift-qmp-XXXXXX");
	if (!mkdtemp(fake->folder))
		abort();
	snprintf(fake->path, sizeof(fake->path), "%s/qmp", fake->folder);
	strcpy(address.sun_path, fake->path);
	fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fake->listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(fake->listener, 1) || pthread_create(&fake->thread, NULL, serve, fake))
		abort();
	return fake;
}

const char *fake_qmp_path(const struct fake_qmp *fake)
{
	return fake->path;
}

void fake_qmp_say(struct fake_qmp *fake, const char *text)
{
	say(fake, text);
}

void fake_qmp_hang_up(struct fake_qmp *fake)
{
	pthread_mutex_lock(&fake->lock);
	if (fake->client >= 0)
		shutdown(fake->client, SHUT_RDWR);
	pthread_mutex_unlock(&fake->lock);
}

void fake_qmp_stop(struct fake_qmp *fake)
{
	shutdown(fake->listener, SHUT_RDWR);
	fake_qmp_hang_up(fake);
	pthread_join(fake->thread, NULL);
	if (fake->client >= 0)
		close(fake->client);
	close(fake->listener);
	unlink(fake->path);
	rmdir(fake->folder);
	pthread_mutex_destroy(&fake->lock);
	free(fake);
}
