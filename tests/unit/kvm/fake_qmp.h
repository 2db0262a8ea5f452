/* SPDX-License-Identifier: Apache-2.0 */
/* A QMP monitor in a thread: greets one client and answers what it is told to. */
#ifndef TESTS_UNIT_KVM_FAKE_QMP_H
#define TESTS_UNIT_KVM_FAKE_QMP_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

/* The greeting of Debian 12's QEMU. */
#define FAKE_QMP_GREETING                                                                          \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "         \
	"\"package\": \"Debian 1:7.2+dfsg-7+deb12u18+b3\"}, \"capabilities\": [\"oob\"]}}\r\n"

/* Fits a request with all the words of `words`, which a space parts. The first that fits counts. */
struct fake_qmp_answer {
	const char *words;
	const char *body;   /* "\"return\": {}"; the id is added. NULL: no answer */
	const char *before; /* bytes sent before the answer; may be NULL */
	bool hang_up;	    /* close the connection after `before` */
};

struct fake_qmp_config {
	const char *greeting; /* NULL: none at all */
	/* Asked first, in the fake's thread, for a monitor that remembers: the body, from malloc(),
	 * or NULL for one of the answers below. May be NULL. */
	char *(*respond)(void *context, const char *command, const json_t *arguments);
	void *context;
	/* What none of them fits is refused as a command that QEMU does not know. */
	const struct fake_qmp_answer *answers;
	size_t n_answers;
	bool dribble; /* send one byte at a time */
};

struct fake_qmp;

/* The configuration must live as long. NULL on failure. */
struct fake_qmp *fake_qmp_start(const struct fake_qmp_config *config);
const char *fake_qmp_path(const struct fake_qmp *fake);
/* Say something out of turn: events. While no command is answered. */
void fake_qmp_say(struct fake_qmp *fake, const char *text);
void fake_qmp_hang_up(struct fake_qmp *fake);
void fake_qmp_stop(struct fake_qmp *fake);

#endif
