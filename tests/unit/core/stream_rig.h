/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of a connection on loopback that shake hands, each on its own thread, in directories of
 * certificates and keys. */
#ifndef TESTS_UNIT_CORE_STREAM_RIG_H
#define TESTS_UNIT_CORE_STREAM_RIG_H

#include <pthread.h>

#include "core/clock.h"
#include "core/stream.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/pki.h"

#define LONG_NS	    (clock_now_ns() + 30 * NS_PER_S) /* against hangs only */
#define A_MOMENT_NS (clock_now_ns() + 100 * NS_PER_MS)
#define NEVER	    (-1)
#define SOURCE_HOST "db1.example"
#define HOST	    "db2.example" /* the destination's */

enum { SOURCE, DESTINATION };

struct end {
	struct ramlift_security config;
	const char *host; /* of the destination, as the source names it */
	uint64_t deadline_ns;
	int fd;
	struct stream *stream;
	int ret;
	struct ramlift_error error;
	pthread_t thread;
};

/* A directory that the test may write into; removed by rig_remove(). */
extern char rig_directory[];
int rig_make(void **state);
int rig_remove(void **state);

/* A path in it, which lasts. */
const char *rig_path(const char *name);

/* Made once: directories "source" and "destination" of the same CA, "stranger" of another, with the
 * names above; key files "key" and "other-key". */
extern struct pki rig_ca;

/* A TLS directory of that name, certified by rig_ca. */
const char *rig_tls_dir(const char *name, const struct pki_words *words);

void rig_sockets(int fds[2]);

/* Both ends with certificates of rig_ca, or as the caller changes them, not yet started. */
void rig_ends(struct end ends[2]);

/* Without certificates; with that key file in their place. */
void rig_use_nothing(struct end *end);
void rig_use_key(struct end *end, const char *name);

/* Shake hands. Streams of ends that failed stay NULL. */
void rig_start(struct end *end, bool source);
void rig_join(struct end *end);
void rig_shake(struct end ends[2]);
void rig_free(struct end ends[2]);

/* The same, and both must succeed. */
void rig_open(struct end ends[2]);

/* It was refused with that code and word. */
void rig_assert_refused(const struct end *end, int code, const char *word);

#endif
