/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/core/stream_rig.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char rig_directory[] = "/tmp/ramlift-stream-XXXXXX";
struct pki rig_ca;

const char *rig_path(const char *name)
{
	static char paths[32][PATH_MAX];
	char path[PATH_MAX];
	unsigned i = 0;

	snprintf(path, sizeof(path), "%s/%s", rig_directory, name);
	while (paths[i][0] && strcmp(paths[i], path))
		assert_true(++i < 32);
	return strcpy(paths[i], path);
}

const char *rig_tls_dir(const char *name, const struct pki_words *words)
{
	const char *directory = rig_path(name);
	struct pki own;

	pki_make(&own, &rig_ca, words);
	pki_write(directory, &rig_ca, &own);
	pki_free(&own);
	return directory;
}

int rig_make(void **state)
{
	static const struct pki_words ca = { .common_name = "The CA" };
	static const struct pki_words source = { .names = "DNS:" SOURCE_HOST };
	static const struct pki_words destination = { .common_name = "not me",
						      .names = "DNS:" HOST ",IP:127.0.0.1" };
	struct pki other_ca, stranger;

	(void)state;
	assert_non_null(mkdtemp(rig_directory));
	pki_make(&rig_ca, NULL, &ca);
	rig_tls_dir("source", &source);
	rig_tls_dir("destination", &destination);
	pki_make(&other_ca, NULL, &ca);
	pki_make(&stranger, &other_ca, &destination);
	pki_write(rig_path("stranger"), &other_ca, &stranger);
	pki_free(&other_ca);
	pki_free(&stranger);
	pki_write_file(rig_path("key"),
		       "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\n", 0600);
	pki_write_file(rig_path("other-key"),
		       "10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n", 0600);
	return 0;
}

int rig_remove(void **state)
{
	char command[PATH_MAX];

	(void)state;
	pki_free(&rig_ca);
	snprintf(command, sizeof(command), "rm -r %s", rig_directory);
	return system(command);
}

void rig_sockets(int fds[2])
{
	struct address address;
	int listener;

	assert_int_equal(address_parse("127.0.0.1:0", 1, &address, NULL), 0);
	assert_int_equal(address_listen(&address, &listener, NULL), 0);
	assert_int_equal(address_of_socket(listener, &address), 0);
	assert_int_equal(address_connect(&address, LONG_NS, NEVER, &fds[SOURCE], NULL), 0);
	assert_int_equal(wait_for_fd(listener, POLLIN, LONG_NS, NEVER), 0);
	fds[DESTINATION] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fds[DESTINATION] >= 0);
	close(listener);
}

void rig_ends(struct end ends[2])
{
	int fds[2];

	memset(ends, 0, 2 * sizeof(ends[0]));
	rig_sockets(fds);
	for (unsigned i = 0; i < 2; i++) {
		ends[i].fd = fds[i];
		ends[i].deadline_ns = LONG_NS;
		ends[i].host = HOST;
	}
	ends[SOURCE].config.tls_dir = rig_path("source");
	ends[DESTINATION].config.tls_dir = rig_path("destination");
}

static void *source_thread(void *argument)
{
	struct end *end = argument;
	struct security *security;

	end->ret = security_new(&end->config, &security, &end->error);
	if (end->ret)
		return NULL;
	end->ret = stream_connect(end->fd, security, end->host, end->deadline_ns, NEVER,
				  &end->stream, &end->error);
	security_free(security); /* is not needed any more */
	return NULL;
}

static void *destination_thread(void *argument)
{
	struct end *end = argument;
	struct security *security;

	end->ret = security_new(&end->config, &security, &end->error);
	if (end->ret)
		return NULL;
	end->ret = stream_accept(end->fd, security, end->deadline_ns, NEVER, &end->stream,
				 &end->error);
	security_free(security);
	return NULL;
}

void rig_start(struct end *end, bool source)
{
	assert_int_equal(pthread_create(&end->thread, NULL,
					source ? source_thread : destination_thread, end),
			 0);
}

void rig_join(struct end *end)
{
	pthread_join(end->thread, NULL);
}

void rig_shake(struct end ends[2])
{
	rig_start(&ends[SOURCE], true);
	rig_start(&ends[DESTINATION], false);
	rig_join(&ends[SOURCE]);
	rig_join(&ends[DESTINATION]);
}

void rig_free(struct end ends[2])
{
	stream_free(ends[SOURCE].stream);
	stream_free(ends[DESTINATION].stream);
}

void rig_open(struct end ends[2])
{
	rig_shake(ends);
	for (unsigned i = 0; i < 2; i++) {
		if (ends[i].ret)
			fail_msg("%s: %s", i ? "destination" : "source", ends[i].error.text);
	}
}

void rig_assert_refused(const struct end *end, int code, const char *word)
{
	if (end->ret != code || end->error.code != code || !strstr(end->error.text, word))
		fail_msg("%d with '%s' expected: %d, '%s'", code, word, end->ret, end->error.text);
	assert_null(end->stream);
	assert_null(strchr(end->error.text, '\n'));
}

void rig_use_nothing(struct end *end)
{
	memset(&end->config, 0, sizeof(end->config));
}

void rig_use_key(struct end *end, const char *name)
{
	rig_use_nothing(end);
	end->config.psk_file = rig_path(name);
}
