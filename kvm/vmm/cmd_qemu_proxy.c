/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ramlift qemu proxy`: one half of a transparent pair, the source's with --to, the destination's
 * with --connect. Serves one migration after the other until it is interrupted.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "kvm/qemu/proxy_destination.h"
#include "kvm/qemu/proxy_source.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/options_security.h"
#include "kvm/vmm/privileges.h"
#include "kvm/vmm/report_format.h"
#include "kvm/vmm/session_audit.h"

struct arguments {
	const char *listen;
	const char *to;
	const char *connect;
	const struct ramlift_transport *transports[2];
	unsigned n_transports;
	struct option_rails rails;
	struct option_security security;
	unsigned lanes;
	bool verify;
	bool once;
};

enum option_key { KEY_VERIFY = 0x100, KEY_CONNECT };

static const struct argp_option options[] = {
	{ "listen", 'l', "ADDRESS", 0,
	  "where to listen: with --to for QEMU, 127.0.0.1:PORT; with --connect for the other "
	  "proxy, "
	  "0.0.0.0:7440",
	  0 },
	{ "to", 't', "ADDRESS", 0, "source: where the other proxy listens, host:port", 0 },
	{ "connect", KEY_CONNECT, "ADDRESS", 0,
	  "destination: where the waiting QEMU listens on this host, 127.0.0.1:PORT", 0 },
	{ "transport", 'T', "KIND", 0,
	  "rdma, tcp, or auto: rdma where both sides have it (default)", 0 },
	{ "lanes", 'L', "N", 0,
	  "source: parallel connections to the other host, on each rail; default 4", 0 },
	{ "rails", 'R', "DEV[,DEV...]", 0, "RDMA devices, as many on both sides", 0 },
	{ "verify", KEY_VERIFY, NULL, 0,
	  "source: compare a digest of all memory while the guest is paused; adds to the downtime",
	  0 },
	{ "once", '1', NULL, 0, "end after one migration", 0 },
	{ 0 },
};

static void set_address(const struct argp_state *state, const char *option, const char *text,
			bool any_port, const char **address)
{
	struct ramlift_error error;

	command_check(state, option_address(option, text, any_port, &error), &error);
	*address = text;
}

static void set_choice(const struct argp_state *state, struct arguments *arguments, int key,
		       const char *text)
{
	enum option_transport transport = TRANSPORT_AUTO;
	struct ramlift_error error;
	uint64_t lanes = 0;

	if (key == 'T') {
		command_check(state, option_transport(text, &transport, &error), &error);
		arguments->n_transports = option_transport_list(transport, arguments->transports);
		return;
	}
	if (key == 'R') {
		command_check(state, option_rails(text, &arguments->rails, &error), &error);
		return;
	}
	command_check(state, option_number("--lanes", text, 1, RAMLIFT_MAX_LANES, &lanes, &error),
		      &error);
	arguments->lanes = (unsigned)lanes;
}

static void check(const struct argp_state *state, const struct arguments *arguments)
{
	if (!arguments->listen)
		command_usage(state, "say where to listen: --listen ADDRESS");
	if (!arguments->to == !arguments->connect)
		command_usage(state, "say which half this is: --to (source) or --connect "
				     "(destination)");
	if (arguments->to && strncmp(arguments->listen, "127.0.0.1:", 10))
		command_usage(state, "the source's half listens on its own host only, for QEMU: "
				     "--listen 127.0.0.1:PORT");
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 'l':
		set_address(state, "--listen", text, true, &arguments->listen);
		break;
	case 't':
		set_address(state, "--to", text, false, &arguments->to);
		break;
	case KEY_CONNECT:
		set_address(state, "--connect", text, false, &arguments->connect);
		break;
	case 'T':
	case 'R':
	case 'L':
		set_choice(state, arguments, key, text);
		break;
	case KEY_VERIFY:
		arguments->verify = true;
		break;
	case '1':
		arguments->once = true;
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
	.doc = "One half of a transparent pair of proxies, for a QEMU that somebody else manages: "
	       "what is sent to the source's half comes out of the destination's, guest memory by "
	       "way of the lanes. With libvirt: virsh migrate --live --parallel --migrateuri "
	       "tcp://127.0.0.1:PORT ..., see docs/qemu.md.\v"
	       "Needs the right to look at QEMU's memory: run it as root or as QEMU's user.",
};

static struct proxy_source *source;
static struct proxy_destination *destination;
static struct session_audit session;
static volatile sig_atomic_t was_interrupted;

static void cancel(int signal_number)
{
	(void)signal_number;
	was_interrupted = 1;
	if (source)
		proxy_source_cancel(source);
	if (destination)
		proxy_destination_cancel(destination);
}

static void watch_signals(void)
{
	struct sigaction action = { .sa_handler = cancel, .sa_flags = SA_RESTART };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static void tell_source(const struct arguments *arguments)
{
	char sent[FORMAT_BYTES], elapsed[FORMAT_BYTES], downtime[FORMAT_BYTES];
	struct ramlift_stats stats;

	proxy_source_stats(source, &stats);
	printf("carried the migration of process %d to %s: %s in %s over %s, %s from the end of "
	       "RAM "
	       "until QEMU let go\n",
	       (int)proxy_source_pid(source), arguments->to, format_size(sent, stats.bytes_sent),
	       format_time(elapsed, stats.elapsed_ns), stats.transport,
	       format_time(downtime, stats.downtime.total_ns));
}

/* What did not get as far as a session has left a word elsewhere. */
static void write_audit(const struct arguments *arguments, int ret,
			const struct ramlift_error *error)
{
	struct ramlift_session_info info;
	struct ramlift_stats stats;

	if (source) {
		proxy_source_info(source, &info);
		proxy_source_stats(source, &stats);
	} else {
		proxy_destination_info(destination, &info);
		proxy_destination_stats(destination, &stats);
	}
	if (info.session[0])
		session_audit_write(&session, &info, &stats, arguments->to, ret, error);
}

/* One migration after the other. */
static int serve(const struct arguments *arguments)
{
	struct ramlift_error error;
	int ret;

	do {
		error.code = 0;
		ret = source ? proxy_source_run(source, &error)
			     : proxy_destination_run(destination, &error);
		write_audit(arguments, ret, &error);
		if (was_interrupted)
			return COMMAND_CANCELLED;
		if (ret) {
			format_clean(error.text);
			command_failed("qemu proxy", &error);
		} else if (source) {
			tell_source(arguments);
		} else {
			printf("a migration has come through\n");
		}
	} while (!arguments->once && ret != -EADDRINUSE);
	return ret ? COMMAND_FAILED : COMMAND_DONE;
}

static int open_source(const struct arguments *arguments, uint16_t *port,
		       struct ramlift_error *error)
{
	struct ramlift_source_config config;
	uint64_t wanted = 0;
	int ret;

	ramlift_source_config_init(&config);
	config.to = arguments->to;
	config.transports = arguments->transports;
	config.n_transports = arguments->n_transports;
	config.lanes_per_rail = arguments->lanes;
	config.rails = arguments->rails.list;
	config.n_rails = arguments->rails.n;
	config.verify = arguments->verify;
	config.state_dir = session.state_dir;
	config.checked = session_audit_check;
	config.progress_context = &session;
	option_security_apply(&arguments->security, &config.security, &config.timeouts);
	ret = option_number("--listen", strrchr(arguments->listen, ':') + 1, 0, 65535, &wanted,
			    error);
	if (!ret)
		ret = proxy_source_new((uint16_t)wanted, &config, &source, error);
	if (!ret)
		*port = proxy_source_port(source);
	return ret;
}

static int open_destination(const struct arguments *arguments, uint16_t *port,
			    struct ramlift_error *error)
{
	struct ramlift_destination_config config;
	int ret;

	ramlift_destination_config_init(&config);
	config.listen = arguments->listen;
	config.transports = arguments->transports;
	config.n_transports = arguments->n_transports;
	config.rails = arguments->rails.list;
	config.n_rails = arguments->rails.n;
	config.state_dir = session.state_dir;
	config.checked = session_audit_check;
	config.turned_away = session_audit_refused;
	config.progress_context = &session;
	option_security_apply(&arguments->security, &config.security, &config.timeouts);
	ret = proxy_destination_new(arguments->connect, &config, &destination, error);
	if (!ret)
		*port = proxy_destination_port(destination);
	return ret;
}

int cmd_qemu_proxy(int argc, char **argv)
{
	static struct arguments arguments = { .lanes = 4 };
	struct ramlift_error error = { .code = 0 };
	uint16_t port = 0;
	int ret;

	arguments.n_transports = option_transport_list(TRANSPORT_AUTO, arguments.transports);
	command_parse_secure(&argp, argc, argv, &arguments, &arguments.security);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (arguments.security.tls_dir[0] || arguments.security.psk_file[0])
		privileges_forbid_dumps();
	if (session_audit_init(&session, &error))
		return command_failed("qemu proxy", &error);
	ret = arguments.to ? open_source(&arguments, &port, &error)
			   : open_destination(&arguments, &port, &error);
	if (ret)
		return command_failed("qemu proxy", &error);
	watch_signals();
	printf("listening on %.*s:%u for a migration, process %d\n",
	       (int)(strrchr(arguments.listen, ':') - arguments.listen), arguments.listen, port,
	       (int)getpid());
	ret = serve(&arguments);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	proxy_source_free(source);
	proxy_destination_free(destination);
	return ret;
}
