/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift qemu receive`: take one guest into a QEMU that waits for it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "kvm/qemu/destination.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/options_security.h"
#include "kvm/vmm/privileges.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/session_audit.h"

struct arguments {
	struct qemu_destination_config config;
	const struct ramlift_transport *transports[2];
	struct option_rails rails;
	struct option_security security;
	bool once;
};

enum option_key { KEY_QMP = 0x100, KEY_PID };

static const struct argp_option options[] = {
	{ "qmp", KEY_QMP, "SOCKET", 0,
	  "the QMP socket of a QEMU that was started with -incoming defer", 0 },
	{ "pid", KEY_PID, "PID", 0,
	  "that QEMU's process, where the socket does not tell (libvirt made it)", 0 },
	{ "listen", 'l', "ADDRESS", 0, "where to listen: host:port, 0.0.0.0:7440, [::]:7440", 0 },
	{ "transport", 't', "KIND", 0, "accept rdma, tcp, or auto: both (default)", 0 },
	{ "rails", 'R', "DEV[,DEV...]", 0,
	  "RDMA devices to receive with, as many as the source names", 0 },
	{ "once", '1', NULL, 0, "give up after one session that brings no guest", 0 },
	{ 0 },
};

static void set_transport(const struct argp_state *state, struct arguments *arguments,
			  const char *text)
{
	enum option_transport transport = TRANSPORT_AUTO;
	struct ramlift_error error;

	command_check(state, option_transport(text, &transport, &error), &error);
	arguments->config.session.n_transports =
		option_transport_list(transport, arguments->transports);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *arguments = state->input;
	struct ramlift_error error;
	uint64_t pid = 0;

	switch (key) {
	case KEY_QMP:
		arguments->config.qmp_path = text;
		break;
	case KEY_PID:
		command_check(state, option_number("--pid", text, 1, INT32_MAX, &pid, &error),
			      &error);
		arguments->config.pid = (pid_t)pid;
		break;
	case 'l':
		command_check(state, option_address("--listen", text, true, &error), &error);
		arguments->config.session.listen = text;
		break;
	case 't':
		set_transport(state, arguments, text);
		break;
	case 'R':
		command_check(state, option_rails(text, &arguments->rails, &error), &error);
		arguments->config.session.rails = arguments->rails.list;
		arguments->config.session.n_rails = arguments->rails.n;
		break;
	case '1':
		arguments->once = true;
		break;
	case ARGP_KEY_END:
		if (!arguments->config.qmp_path)
			command_usage(state, "say which QEMU waits: --qmp SOCKET");
		if (!arguments->config.session.listen)
			command_usage(state, "say where to listen: --listen 0.0.0.0:7440");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "Wait for a guest from another host and take it into a QEMU that waits for it with "
	       "-incoming defer. Returns once the guest is there.\v"
	       "Beyond this host, peers prove who they are: --tls-dir or --psk-file.",
};

static struct qemu_destination *interrupted; /* what a signal cancels */
static volatile sig_atomic_t was_interrupted;

static void cancel(int signal_number)
{
	(void)signal_number;
	was_interrupted = 1;
	qemu_destination_cancel(interrupted);
}

static void watch_signals(struct qemu_destination *destination)
{
	struct sigaction action = { .sa_handler = cancel, .sa_flags = SA_RESTART };

	interrupted = destination;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* A session that did not get as far as a name has been told of as a stranger. */
static void write_audit(struct session_audit *session, struct qemu_destination *destination,
			int ret, const struct ramlift_error *error)
{
	struct ramlift_session_info info;
	struct ramlift_stats stats;

	qemu_destination_info(destination, &info);
	qemu_destination_stats(destination, &stats);
	if (info.session[0])
		session_audit_write(session, &info, &stats, NULL, ret, error);
}

/* Until a guest has come, a signal says so, or QEMU is of no more use. */
static int receive(const struct arguments *arguments, struct session_audit *session,
		   struct qemu_destination *destination)
{
	struct ramlift_error error;
	int ret;

	for (;;) {
		error.code = 0;
		ret = qemu_destination_run(destination, &error);
		write_audit(session, destination, ret, &error);
		if (!ret) {
			printf("guest %s has come and is in QEMU here\n",
			       qemu_destination_guest(destination));
			return COMMAND_DONE;
		}
		if (was_interrupted)
			return COMMAND_CANCELLED;
		format_clean(error.text);
		command_failed("qemu receive", &error);
		if (qemu_destination_spent(destination)) {
			fprintf(stderr,
				"QEMU had a part of the guest and was ended: start it again "
				"for another attempt\n");
			return COMMAND_FAILED;
		}
		if (arguments->once)
			return COMMAND_FAILED;
	}
}

static int open_destination(struct arguments *arguments, struct session_audit *session,
			    struct qemu_destination **destination, struct ramlift_error *error)
{
	struct ramlift_destination_config *config = &arguments->config.session;
	int ret;

	option_security_apply(&arguments->security, &config->security, &config->timeouts);
	if (config->security.tls_dir || config->security.psk_file)
		privileges_forbid_dumps();
	config->state_dir = session->state_dir;
	config->checked = session_audit_check;
	config->turned_away = session_audit_refused;
	config->progress_context = session;
	ret = session_audit_init(session, error);
	return ret ? ret : qemu_destination_new(&arguments->config, destination, error);
}

int cmd_qemu_receive(int argc, char **argv)
{
	static struct arguments arguments;
	static struct session_audit session;
	struct ramlift_error error = { .code = 0 };
	struct qemu_destination *destination;
	const char *listen;
	int ret;

	ramlift_destination_config_init(&arguments.config.session);
	arguments.config.session.transports = arguments.transports;
	arguments.config.session.n_transports =
		option_transport_list(TRANSPORT_AUTO, arguments.transports);
	command_parse_secure(&argp, argc, argv, &arguments, &arguments.security);
	setvbuf(stdout, NULL, _IOLBF, 0);
	ret = open_destination(&arguments, &session, &destination, &error);
	if (ret)
		return command_failed("qemu receive", &error);
	watch_signals(destination);
	listen = arguments.config.session.listen;
	printf("listening on %.*s:%u for a guest\n", (int)(strrchr(listen, ':') - listen), listen,
	       qemu_destination_port(destination));
	ret = receive(&arguments, &session, destination);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	qemu_destination_free(destination);
	return ret;
}
