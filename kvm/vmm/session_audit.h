/* SPDX-License-Identifier: Apache-2.0 */
/* Audit records of the commands that lead a session themselves: `ramlift qemu ...`. */
#ifndef KVM_VMM_SESSION_AUDIT_H
#define KVM_VMM_SESSION_AUDIT_H

#include "kvm/vmm/audit.h"
#include "kvm/vmm/progress.h"

/* What their call-backs get as progress_context. */
struct session_audit {
	struct audit audit;
	struct progress progress;
	char state_dir[4096];
};

/* Find the state directory and take up the record there. */
int session_audit_init(struct session_audit *session, struct ramlift_error *error);

/* For the configuration of a source or a destination. */
void session_audit_check(void *context, const char *check, const struct ramlift_error *failed);
void session_audit_refused(void *context, const char *peer, const struct ramlift_error *why);

/* The session has ended; asked for by who runs this process. peer: where to, or NULL if it came. */
void session_audit_write(struct session_audit *session, const struct ramlift_session_info *info,
			 const struct ramlift_stats *stats, const char *peer, int ret,
			 const struct ramlift_error *error);

#endif
