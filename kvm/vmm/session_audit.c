/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/vmm/session_audit.h"

#include <stdio.h>
#include <unistd.h>

#include "kvm/vmm/report_format.h"
#include "kvm/vmm/runtime_dir.h"

int session_audit_init(struct session_audit *session, struct ramlift_error *error)
{
	int ret = state_dir(session->state_dir, sizeof(session->state_dir), error);

	if (!ret)
		audit_init(&session->audit, session->state_dir);
	return ret;
}

void session_audit_check(void *context, const char *check, const struct ramlift_error *failed)
{
	audit_check(&((struct session_audit *)context)->audit, check, failed);
}

void session_audit_refused(void *context, const char *peer, const struct ramlift_error *why)
{
	char reason[sizeof(why->text)];

	snprintf(reason, sizeof(reason), "%s", why->text);
	fprintf(stderr, "ramlift: refused a connection from %s: %s\n", peer, format_clean(reason));
	audit_write_refused(&((struct session_audit *)context)->audit, peer, why->text);
}

void session_audit_write(struct session_audit *session, const struct ramlift_session_info *info,
			 const struct ramlift_stats *stats, const char *peer, int ret,
			 const struct ramlift_error *error)
{
	const struct ucred self = { .uid = getuid(), .gid = getgid(), .pid = getpid() };
	const struct audit_session record = {
		.incoming = !peer,
		.peer = peer,
		.asked_by = peer ? &self : NULL,
		.info = *info,
		.stats = stats,
		.ret = ret,
		.reason = ret ? error->text : "",
	};

	audit_write_session(&session->audit, &record);
}
