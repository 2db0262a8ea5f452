/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of QEMU's machine protocol (QMP) on a unix socket: commands, their answers, events.
 * Blocking, with deadlines; a connection belongs to one thread. It knows no command by meaning.
 */
#ifndef KVM_QEMU_QMP_H
#define KVM_QEMU_QMP_H

#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

struct ramlift_error;
struct qmp;

/*
 * Connect to the socket of -qmp unix:PATH,server=on,wait=off, read the greeting and leave the
 * negotiation of capabilities. QEMU greets one client at a time: where another holds the monitor
 * this gives up after 5 s with -EBUSY. -ENOENT, -ECONNREFUSED: no QEMU there; -EACCES; -EPROTO: not
 * QMP; -ENAMETOOLONG; -ENOMEM.
 */
int qmp_open(const char *path, struct qmp **qmp, struct ramlift_error *error);

/*
 * Run a command and wait up to 10 s for its answer. arguments: an object, freed here whatever
 * happens, or NULL for none. result: may be NULL; else it gets what the command returns, the
 * caller's to free. Events that come in meanwhile are kept for qmp_event(). A whole number above
 * INT64_MAX makes all numbers of its message real ones.
 *
 * -EREMOTEIO: QEMU refused, in its words; -ETIMEDOUT: no answer, which is dropped should it still
 * come; -ECONNRESET: QEMU has ended; -EPROTO: what came is not QMP, or over 4 MiB; -ENOMEM.
 */
int qmp_call(struct qmp *qmp, const char *command, json_t *arguments, json_t **result,
	     struct ramlift_error *error);

/*
 * Send a command and do not wait: its answer comes as an event named QMP_ANSWER, with what the
 * command returns as "data"; a refusal does not come. arguments as for qmp_call(). -EAGAIN: the
 * answer to the last one has not come yet. For threads that QEMU may be waiting for.
 */
#define QMP_ANSWER "RAMLIFT_ANSWER"
int qmp_ask(struct qmp *qmp, const char *command, json_t *arguments, struct ramlift_error *error);

/* A line of the human monitor; the caller frees the text, which is what QEMU prints. */
int qmp_monitor_command(struct qmp *qmp, const char *line, char **text,
			struct ramlift_error *error);

/*
 * The next event, the caller's to free: an object with "event" and, mostly, "data". Waits until
 * deadline_ns of core/clock.h; 0: takes only what is there. -ETIMEDOUT: none, error untouched;
 * -ECONNRESET, -EPROTO, -ENOMEM. The oldest of more than 1024 that nobody takes are lost.
 */
int qmp_event(struct qmp *qmp, uint64_t deadline_ns, json_t **event, struct ramlift_error *error);

/* For poll(2). Call qmp_event() with deadline 0 until -ETIMEDOUT first: events may be kept. */
int qmp_fd(const struct qmp *qmp);

/* "7.2.22", and as numbers: major, minor, micro. As long as the connection lives. */
const char *qmp_version(const struct qmp *qmp);
void qmp_version_numbers(const struct qmp *qmp, unsigned numbers[3]);

/*
 * The process that made the socket. That is QEMU, but where libvirt made it and passed it on it is
 * libvirt: see /proc/PID/comm.
 */
pid_t qmp_pid(const struct qmp *qmp);

/* NULL is fine. */
void qmp_close(struct qmp *qmp);

#endif
