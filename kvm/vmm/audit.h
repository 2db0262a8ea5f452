/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of who moved which guest where: one line of JSON in <state directory>/audit.jsonl for
 * each session, on each side, for each connection that was refused, and for each doubt that was
 * resolved; and the same to systemd's journal where there is one. What cannot be written is said on
 * standard error, and changes nothing for the guest. docs/security.md lists the members.
 */
#ifndef KVM_VMM_AUDIT_H
#define KVM_VMM_AUDIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <jansson.h>

#include "core/ramlift.h"

#define AUDIT_MAX_BYTES	   (10u << 20) /* then it becomes audit.jsonl.1, which is replaced */
#define AUDIT_MAX_REFUSALS 60u	       /* lines a minute; more are counted */

/* One process's; all calls from any thread. */
struct audit {
	pthread_mutex_t lock;
	char directory[4096];
	bool told; /* that it cannot be written */
	uint64_t minute_ns;
	unsigned n_refusals;	   /* in this minute */
	unsigned long n_unwritten; /* refusals, since the last that was written */
	json_t *checks;		   /* of the session that runs */
};

void audit_init(struct audit *audit, const char *state_dir);
void audit_fini(struct audit *audit);

/* A check of the session that runs was passed (failed: NULL), or not. */
void audit_check(struct audit *audit, const char *check, const struct ramlift_error *failed);

/* Somebody on this host, as SO_PEERCRED tells; {"uid": 0, "user": "root", "pid": 17}. */
json_t *audit_who(const struct ucred *who);

/* How a session ended. */
struct audit_session {
	bool incoming;
	const char *guest;	      /* as the caller knows it, where info does not; may be NULL */
	const char *peer;	      /* likewise */
	const struct ucred *asked_by; /* NULL: nobody on this host */
	struct ramlift_session_info info;
	const struct ramlift_stats *stats;
	int ret;
	const char *reason; /* "" where there is nothing to explain */
};

/* Write it, with the checks since the last one. */
void audit_write_session(struct audit *audit, const struct audit_session *session);

/* A session whose outcome was in doubt has one. by: "destination", "operator", "fence". */
void audit_write_resolved(struct audit *audit, const struct ramlift_doubt *doubt,
			  enum ramlift_owner owner, const char *by, const struct ucred *asked_by);

/* A connection that did not become a session; from: an address, or a user of this host. */
void audit_write_refused(struct audit *audit, const char *from, const char *reason);

#endif
