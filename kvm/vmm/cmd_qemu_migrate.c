/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ramlift qemu migrate`: this process leads the session itself, for QEMU knows nothing of Ramlift.
 * If it goes away before the end, QEMU's migration fails and the guest runs on.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/qemu/source.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/options_security.h"
#include "kvm/vmm/outcome.h"
#include "kvm/vmm/privileges.h"
#include "kvm/vmm/report_json.h"
#include "kvm/vmm/report_read.h"
#include "kvm/vmm/session_audit.h"

#define PROGRESS_EVERY_NS (200 * NS_PER_MS)
#define SETTLE_S	  60 /* how long to ask a destination that does not answer */

struct arguments {
	struct qemu_source_config config;
	const struct ramlift_transport *transports[2];
	struct option_rails rails;
	struct option_security security;
	bool multifd_given;
	bool json;
	bool quiet;
};

enum option_key {
	KEY_QMP = 0x100,
	KEY_PID,
	KEY_NAME,
	KEY_MULTIFD,
	KEY_QUIT,
	KEY_DOWNTIME,
	KEY_VERIFY,
	KEY_TIMEOUT,
	KEY_DIVERGENCE,
	KEY_JSON
};

static const struct argp_option options[] = {
	{ "qmp", KEY_QMP, "SOCKET", 0,
	  "the QMP socket of the guest's QEMU: its option -qmp unix:SOCKET,server=on,wait=off", 0 },
	{ "to", 't', "ADDRESS", 0, "where 'ramlift qemu receive' listens: host:port", 0 },
	{ "pid", KEY_PID, "PID", 0,
	  "that QEMU's process, where the socket does not tell (libvirt made it)", 0 },
	{ "name", KEY_NAME, "NAME", 0, "what to call the guest; default QEMU's -name", 0 },
	{ "multifd", KEY_MULTIFD, "N", 0,
	  "QEMU's connections to this process, 0 to 64; default as many as lanes", 0 },
	{ "transport", 'T', "KIND", 0,
	  "rdma, tcp, or auto: rdma where both sides have it (default)", 0 },
	{ "lanes", 'l', "N", 0, "parallel connections to the other host, on each rail; default 4",
	  0 },
	{ "rails", 'R', "DEV[,DEV...]", 0,
	  "RDMA devices to send with; default the one that reaches the destination", 0 },
	{ "max-downtime", KEY_DOWNTIME, "MS", 0,
	  "QEMU stops the guest once it expects less; default 300", 0 },
	{ "bandwidth", 'b', "RATE", 0,
	  "send at most so much before the switchover: bytes a second like 500M or 10G (powers of "
	  "1024), or bits like 10Gbit (powers of 1000); default no limit",
	  0 },
	{ "verify", KEY_VERIFY, NULL, 0,
	  "compare a digest of all memory while the guest is paused; adds to the downtime", 0 },
	{ "timeout", KEY_TIMEOUT, "SECONDS", 0, "give up after so long before the switchover", 0 },
	{ "on-divergence", KEY_DIVERGENCE, "WHAT", 0,
	  "if the guest writes faster than the lanes send: throttle it (default; QEMU's "
	  "auto-converge), or abort: go on until --timeout",
	  0 },
	{ "quit", KEY_QUIT, NULL, 0, "end the QEMU here once the guest runs there", 0 },
	{ "json", KEY_JSON, NULL, 0, "one JSON object on standard output at the end", 0 },
	{ "quiet", 'q', NULL, 0, "no progress", 0 },
	{ 0 },
};

static uint64_t number(const struct argp_state *state, const char *option, const char *text,
		       uint64_t minimum, uint64_t maximum)
{
	struct ramlift_error error;
	uint64_t value = 0;

	command_check(state, option_number(option, text, minimum, maximum, &value, &error), &error);
	return value;
}

static void set_words(const struct argp_state *state, struct arguments *arguments, int key,
		      const char *text)
{
	struct ramlift_source_config *session = &arguments->config.session;
	enum ramlift_on_divergence divergence = RAMLIFT_DIVERGENCE_THROTTLE;
	enum option_transport transport = TRANSPORT_AUTO;
	struct ramlift_error error;

	switch (key) {
	case 't':
		command_check(state, option_address("--to", text, false, &error), &error);
		session->to = text;
		break;
	case 'T':
		command_check(state, option_transport(text, &transport, &error), &error);
		session->n_transports = option_transport_list(transport, arguments->transports);
		break;
	case KEY_NAME:
		command_check(state, option_guest_name(text, &error), &error);
		arguments->config.name = text;
		break;
	case 'R':
		command_check(state, option_rails(text, &arguments->rails, &error), &error);
		session->rails = arguments->rails.list;
		session->n_rails = arguments->rails.n;
		break;
	case 'b':
		command_check(
			state,
			option_rate("--bandwidth", text, &session->bandwidth_bytes_per_s, &error),
			&error);
		break;
	default:
		command_check(state, option_divergence(text, &divergence, &error), &error);
		if (divergence == RAMLIFT_DIVERGENCE_STOP)
			command_usage(state, "QEMU decides when to stop its guest: raise "
					     "--max-downtime instead of --on-divergence stop");
		arguments->config.auto_converge = divergence == RAMLIFT_DIVERGENCE_THROTTLE;
	}
}

static void set_numbers(const struct argp_state *state, struct arguments *arguments, int key,
			const char *text)
{
	struct ramlift_source_config *session = &arguments->config.session;

	switch (key) {
	case KEY_PID:
		arguments->config.pid = (pid_t)number(state, "--pid", text, 1, INT32_MAX);
		break;
	case KEY_MULTIFD:
		arguments->multifd_given = true;
		arguments->config.n_multifd =
			(unsigned)number(state, "--multifd", text, 0, RAMLIFT_MAX_LANES);
		break;
	case 'l':
		session->lanes_per_rail =
			(unsigned)number(state, "--lanes", text, 1, RAMLIFT_MAX_LANES);
		break;
	case KEY_DOWNTIME:
		session->max_downtime_ns =
			number(state, "--max-downtime", text, 1, 2000000) * NS_PER_MS;
		break;
	default:
		session->max_total_ns = number(state, "--timeout", text, 1, 365 * 86400) * NS_PER_S;
	}
}

static void check(const struct argp_state *state, struct arguments *arguments)
{
	struct ramlift_source_config *session = &arguments->config.session;
	unsigned n_rails = arguments->rails.n ? arguments->rails.n : 1;
	unsigned n_lanes = n_rails * arguments->config.session.lanes_per_rail;

	if (!arguments->config.qmp_path)
		command_usage(state, "say which QEMU: --qmp SOCKET");
	if (!arguments->config.session.to)
		command_usage(state, "say where to: --to host:7440");
	if (n_lanes > RAMLIFT_MAX_LANES)
		command_usage(state, "%u lanes are more than %u", n_lanes, RAMLIFT_MAX_LANES);
	if (!arguments->multifd_given)
		arguments->config.n_multifd = n_lanes;
	option_security_apply(&arguments->security, &session->security, &session->timeouts);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case KEY_QMP:
		arguments->config.qmp_path = text;
		break;
	case 't':
	case 'T':
	case 'R':
	case 'b':
	case KEY_NAME:
	case KEY_DIVERGENCE:
		set_words(state, arguments, key, text);
		break;
	case 'l':
	case KEY_PID:
	case KEY_MULTIFD:
	case KEY_DOWNTIME:
	case KEY_TIMEOUT:
		set_numbers(state, arguments, key, text);
		break;
	case KEY_VERIFY:
		arguments->config.session.verify = true;
		break;
	case KEY_QUIT:
		arguments->config.quit = true;
		break;
	case KEY_JSON:
		arguments->json = true;
		break;
	case 'q':
		arguments->quiet = true;
		break;
	case ARGP_KEY_END:
		check(state, arguments);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "Move the guest of a QEMU on this host to another host, where 'ramlift qemu "
	       "receive' "
	       "has a QEMU waiting; return with the outcome.\v"
	       "An interrupt cancels. Exit status: 0 the guest runs there, 1 failed and 3 "
	       "cancelled: it runs here as before, 4 in doubt: it is paused here, see 'ramlift "
	       "status'; 2 wrong usage.",
};

static struct qemu_source *interrupted; /* what a signal cancels */
static volatile sig_atomic_t settling;	/* what is left to cancel is the asking */

static void cancel(int signal_number)
{
	(void)signal_number;
	if (settling)
		qemu_source_leave(interrupted);
	else
		qemu_source_cancel(interrupted);
}

static void show_progress(void *context, const struct ramlift_stats *stats)
{
	struct session_audit *session = context;
	static uint64_t next_ns;
	uint64_t now_ns = clock_now_ns();
	json_t *event;

	if (stats->phase >= RAMLIFT_PHASE_DONE || now_ns < next_ns)
		return;
	next_ns = now_ns + PROGRESS_EVERY_NS;
	event = report_stats(stats);
	progress_show(&session->progress, event);
	json_decref(event);
}

static json_t *make_result(const struct arguments *arguments, struct qemu_source *source, int ret,
			   const struct ramlift_error *error)
{
	struct ramlift_stats stats = { .phase = RAMLIFT_PHASE_FAILED };
	const char *name = arguments->config.name ? arguments->config.name : "";
	json_t *result;

	if (source) {
		qemu_source_stats(source, &stats);
		name = qemu_source_name(source);
	}
	result = report_stats(&stats);
	json_object_set_new(result, "direction", json_string("outgoing"));
	json_object_set_new(result, "outcome", json_string(report_outcome(ret)));
	json_object_set_new(result, "guest", json_string(name));
	json_object_set_new(result, "to", json_string(arguments->config.session.to));
	json_object_set_new(result, "multifd", json_integer(arguments->config.n_multifd));
	json_object_set_new(result, "verify_requested",
			    json_boolean(arguments->config.session.verify));
	if (source)
		json_object_set_new(result, "arrived_paused",
				    json_boolean(!qemu_source_ran(source)));
	if (ret)
		json_object_set_new(result, "error", report_error(ret, error->text));
	return result;
}

static void doubt_of(struct qemu_source *source, struct ramlift_doubt *doubt)
{
	struct ramlift_session_info info;

	qemu_source_info(source, &info);
	*doubt = (struct ramlift_doubt){ .generation = info.generation };
	strcpy(doubt->guest, info.guest);
	strcpy(doubt->session, info.session);
	strcpy(doubt->peer, info.peer);
}

/* The destination was told to run the guest, and did not answer: ask it for a while. */
static int settle(struct qemu_source *source, struct session_audit *session,
		  struct ramlift_error *error)
{
	struct sigaction action = { .sa_handler = cancel, .sa_flags = SA_RESTART };
	struct ramlift_error why = *error;
	struct ramlift_doubt doubt;
	int ret;

	fprintf(stderr, "%s\nasking the destination for up to %d s\n", error->text, SETTLE_S);
	/* For the record only: settling needs no reading. */
	if (ramlift_doubt_read(session->state_dir, qemu_source_name(source), &doubt, NULL))
		doubt_of(source, &doubt);
	settling = 1;
	sigaction(SIGALRM, &action, NULL);
	alarm(SETTLE_S);
	ret = qemu_source_settle(source, error);
	alarm(0);
	if (ret && ret != -EREMOTEIO) {
		*error = why;
		return -EINPROGRESS;
	}
	audit_write_resolved(&session->audit, &doubt,
			     ret ? RAMLIFT_OWNER_SOURCE : RAMLIFT_OWNER_DESTINATION, "destination",
			     NULL);
	return ret;
}

static void write_audit(struct session_audit *session, const struct arguments *arguments,
			struct qemu_source *source, int ret, const struct ramlift_error *error)
{
	struct ramlift_session_info info;
	struct ramlift_stats stats;

	qemu_source_info(source, &info);
	qemu_source_stats(source, &stats);
	session_audit_write(session, &info, &stats, arguments->config.session.to, ret, error);
}

static int migrate(struct arguments *arguments, struct session_audit *session,
		   struct qemu_source **source, struct ramlift_error *error)
{
	struct sigaction action = { .sa_handler = cancel, .sa_flags = SA_RESTART };
	int ret;

	if (arguments->security.tls_dir[0] || arguments->security.psk_file[0])
		privileges_forbid_dumps();
	ret = session_audit_init(session, error);
	if (!ret)
		ret = qemu_source_new(&arguments->config, source, error);
	if (ret)
		return ret;
	interrupted = *source;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	ret = qemu_source_run(*source, error);
	write_audit(session, arguments, *source, ret, error);
	progress_clear(&session->progress);
	return ret == -EINPROGRESS ? settle(*source, session, error) : ret;
}

int cmd_qemu_migrate(int argc, char **argv)
{
	static struct arguments arguments;
	static struct session_audit session;
	struct ramlift_error error = { .code = 0 };
	struct qemu_source *source = NULL;
	json_t *result;
	int ret;

	ramlift_source_config_init(&arguments.config.session);
	arguments.config.auto_converge = true;
	arguments.config.session.transports = arguments.transports;
	arguments.config.session.n_transports =
		option_transport_list(TRANSPORT_AUTO, arguments.transports);
	arguments.config.session.state_dir = session.state_dir;
	arguments.config.session.progress = show_progress;
	arguments.config.session.checked = session_audit_check;
	arguments.config.session.progress_context = &session;
	command_parse_secure(&argp, argc, argv, &arguments, &arguments.security);
	progress_start(&session.progress, arguments.quiet, arguments.json);
	ret = migrate(&arguments, &session, &source, &error);
	progress_clear(&session.progress);
	result = make_result(&arguments, source, ret, &error);
	ret = outcome_tell(result, "qemu migrate", arguments.json);
	if (ret == COMMAND_IN_DOUBT)
		fprintf(stderr,
			"guest %s is paused in QEMU here; 'ramlift status %s' says how to resolve "
			"that\n",
			read_text(result, "guest"), read_text(result, "guest"));
	json_decref(result);
	/* A second signal meanwhile ends the process: nothing is left to cancel. */
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	qemu_source_free(source);
	return ret;
}
