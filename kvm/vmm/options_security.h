/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a session is protected and how long it waits for its peer: the same options for every command
 * that takes part in one, on the command line and in the request to a guest's process.
 */
#ifndef KVM_VMM_OPTIONS_SECURITY_H
#define KVM_VMM_OPTIONS_SECURITY_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "core/ramlift.h"

#define OPTION_MAX_ALLOW       32u  /* patterns */
#define OPTION_MAX_ALLOW_BYTES 256u /* each, with the final NUL; as long as a DNS name may be */
#define OPTION_MAX_WAIT_S      3600u

/* All zeros: nothing was said. allow points into the same object. */
struct option_security {
	char tls_dir[PATH_MAX]; /* absolute; "": not given */
	char psk_file[PATH_MAX];
	unsigned n_allow;
	const char *allow[OPTION_MAX_ALLOW];
	char patterns[OPTION_MAX_ALLOW][OPTION_MAX_ALLOW_BYTES];
	bool insecure;
	uint64_t peer_timeout_ns, io_timeout_ns; /* 0: not given */
};

/* A path, made absolute: who opens it may run in another directory. 0, -EINVAL, -ENAMETOOLONG. */
int option_path(const char *option, const char *text, char path[PATH_MAX],
		struct ramlift_error *error);

/* One more pattern for the peer's name. */
int option_allow(const char *text, struct option_security *security, struct ramlift_error *error);

/* Whole seconds, 1 to OPTION_MAX_WAIT_S. */
int option_wait(const char *option, const char *text, uint64_t *ns, struct ramlift_error *error);

/* -EINVAL: the choices contradict each other. */
int option_security_check(const struct option_security *security, struct ramlift_error *error);

/* Into a request, and out of one that anybody may have written. */
void option_security_put(const struct option_security *security, json_t *request);
int option_security_take(struct option_security *security, const json_t *request,
			 struct ramlift_error *error);

/* Into a configuration, which then points into security. */
void option_security_apply(const struct option_security *security, struct ramlift_security *config,
			   struct ramlift_timeouts *timeouts);

#endif
