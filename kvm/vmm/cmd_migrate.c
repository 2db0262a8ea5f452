/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ramlift migrate`: ask the process that runs a guest to move it, show how that goes and how it
 * ended. If this command goes away the migration continues.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/vmm/command.h"
#include "kvm/vmm/control_client.h"
#include "kvm/vmm/doubt.h"
#include "kvm/vmm/options.h"
#include "kvm/vmm/options_security.h"
#include "kvm/vmm/outcome.h"
#include "kvm/vmm/progress.h"
#include "kvm/vmm/report_json.h"
#include "kvm/vmm/report_read.h"

struct arguments {
	const char *name;
	const char *to;
	json_t *request;
	struct option_rails rails;
	struct option_security security;
	uint64_t lanes; /* of all rails together; 0: not given */
	uint64_t lanes_per_rail;
	bool json;
	bool quiet;
};

/* What a running `ramlift migrate` knows. */
struct session {
	const char *name;
	struct control_client *client;
	struct progress progress;
	int signal_fd;
	unsigned n_signals;
	bool near_commit; /* the last phase heard of was the hand-over, or later */
	json_t *result;
};

enum option_key {
	KEY_DOWNTIME = 0x100,
	KEY_VERIFY,
	KEY_TIMEOUT,
	KEY_DIVERGENCE,
	KEY_PIN,
	KEY_ODP,
	KEY_LANES_PER_RAIL,
	KEY_FENCE,
	KEY_JSON
};

static const struct argp_option options[] = {
	{ "to", 't', "ADDRESS", 0, "where 'ramlift receive' listens: host:port", 0 },
	{ "transport", 'T', "KIND", 0,
	  "rdma, tcp, or auto: rdma where both sides have it "
	  "(default)",
	  0 },
	{ "lanes", 'l', "N", 0,
	  "parallel connections, 1 to 64 in all, a multiple of the number of rails; default 4 a "
	  "rail",
	  0 },
	{ "lanes-per-rail", KEY_LANES_PER_RAIL, "N", 0, "the same, said of each rail", 0 },
	{ "rails", 'R', "DEV[,DEV...]", 0,
	  "RDMA devices to send with, as many as the destination names; memory goes over those of "
	  "its own NUMA node; default the one that reaches the destination",
	  0 },
	{ "pin", KEY_PIN, "WHAT", 0,
	  "memory that is registered with the RDMA device, on both sides: what the guest has "
	  "touched (demand, the default), all of it, or at most so much at once (budget=SIZE)",
	  0 },
	{ "odp", KEY_ODP, NULL, 0,
	  "pin no memory, let the RDMA device fault it in (on-demand paging); slower", 0 },
	{ "max-downtime", KEY_DOWNTIME, "MS", 0,
	  "switch over once the predicted downtime is below; default 300", 0 },
	{ "bandwidth", 'b', "RATE", 0,
	  "send at most so much before the switchover: bytes a second like 500M or 10G (powers of "
	  "1024), or bits like 10Gbit (powers of 1000); default no limit",
	  0 },
	{ "verify", KEY_VERIFY, NULL, 0,
	  "compare a digest of all memory while the guest is paused; adds to the downtime", 0 },
	{ "timeout", KEY_TIMEOUT, "SECONDS", 0, "give up after so long before the switchover", 0 },
	{ "on-divergence", KEY_DIVERGENCE, "WHAT", 0,
	  "if the guest writes faster than the lanes send: throttle it (default), stop it and "
	  "switch over, or abort",
	  0 },
	{ "fence-command", KEY_FENCE, "COMMAND", 0,
	  "a line for sh -c that is run if the destination does not answer after the hand-over: "
	  "exit status 0: it is made sure that the guest never runs there, so it runs here; 10: it "
	  "belongs there; others: not known",
	  0 },
	{ "json", KEY_JSON, NULL, 0, "one JSON object on standard output at the end", 0 },
	{ "quiet", 'q', NULL, 0, "no progress", 0 },
	{ 0 },
};

static void set(struct arguments *arguments, const char *key, json_t *value)
{
	json_object_set_new(arguments->request, key, value);
}

static void set_number(const struct argp_state *state, const char *key, const char *option,
		       const char *text, uint64_t maximum, uint64_t factor)
{
	struct ramlift_error error;
	uint64_t number = 0;

	command_check(state, option_number(option, text, 1, maximum, &number, &error), &error);
	set(state->input, key, json_integer((json_int_t)number * (json_int_t)factor));
}

static uint64_t lanes(const struct argp_state *state, const char *option, const char *text)
{
	struct ramlift_error error;
	uint64_t number = 0;

	command_check(state, option_number(option, text, 1, RAMLIFT_MAX_LANES, &number, &error),
		      &error);
	return number;
}

static void set_rate(const struct argp_state *state, const char *text)
{
	struct ramlift_error error;
	uint64_t rate = 0;

	command_check(state, option_rate("--bandwidth", text, &rate, &error), &error);
	set(state->input, "bandwidth_bytes_per_s", json_integer((json_int_t)rate));
}

static void set_words(const struct argp_state *state, int key, const char *text)
{
	enum ramlift_on_divergence divergence;
	struct arguments *arguments = state->input;
	enum option_transport transport;
	struct ramlift_error error;
	enum ramlift_pin pin;
	uint64_t budget_bytes;

	if (key == 'R') {
		command_check(state, option_rails(text, &arguments->rails, &error), &error);
		set(state->input, "rails", json_string(text));
	} else if (key == KEY_PIN) {
		command_check(state, option_pin(text, &pin, &budget_bytes, &error), &error);
		set(state->input, "pin", json_string(text));
	} else if (key == 'T') {
		command_check(state, option_transport(text, &transport, &error), &error);
		set(state->input, "transport", json_string(text));
	} else if (key == KEY_DIVERGENCE) {
		command_check(state, option_divergence(text, &divergence, &error), &error);
		set(state->input, "on_divergence", json_string(text));
	} else {
		command_check(state, option_address("--to", text, false, &error), &error);
		set(state->input, "to", json_string(text));
	}
}

/* --lanes is for all rails together, the session wants to know it of each. */
static void check_lanes(const struct argp_state *state, struct arguments *arguments)
{
	uint64_t n_rails = arguments->rails.n ? arguments->rails.n : 1;
	uint64_t per_rail = arguments->lanes_per_rail;

	if (arguments->lanes && per_rail)
		command_usage(state, "give --lanes or --lanes-per-rail, not both");
	if (arguments->lanes % n_rails)
		command_usage(state,
			      "--lanes %llu cannot be shared by %llu rails: take a multiple, or "
			      "--lanes-per-rail",
			      (unsigned long long)arguments->lanes, (unsigned long long)n_rails);
	if (arguments->lanes)
		per_rail = arguments->lanes / n_rails;
	if (per_rail * n_rails > RAMLIFT_MAX_LANES)
		command_usage(state, "%llu lanes on each of %llu rails are more than %u in all",
			      (unsigned long long)per_rail, (unsigned long long)n_rails,
			      RAMLIFT_MAX_LANES);
	if (per_rail)
		set(arguments, "lanes_per_rail", json_integer((json_int_t)per_rail));
}

static void check(const struct argp_state *state, struct arguments *arguments)
{
	if (!arguments->name)
		command_usage(state, "say which guest: ramlift migrate db1 --to host:7440");
	if (!arguments->to)
		command_usage(state, "say where to: --to host:7440");
	check_lanes(state, arguments);
	option_security_put(&arguments->security, arguments->request);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 't':
		arguments->to = text;
		set_words(state, key, text);
		break;
	case 'T':
	case 'R':
	case KEY_PIN:
	case KEY_DIVERGENCE:
		set_words(state, key, text);
		break;
	case 'l':
		arguments->lanes = lanes(state, "--lanes", text);
		break;
	case KEY_LANES_PER_RAIL:
		arguments->lanes_per_rail = lanes(state, "--lanes-per-rail", text);
		break;
	case KEY_DOWNTIME:
		set_number(state, "max_downtime_ns", "--max-downtime", text, 3600000, NS_PER_MS);
		break;
	case KEY_TIMEOUT:
		set_number(state, "timeout_ns", "--timeout", text, 365 * 86400, NS_PER_S);
		break;
	case 'b':
		set_rate(state, text);
		break;
	case KEY_VERIFY:
		set(arguments, "verify", json_true());
		break;
	case KEY_ODP:
		set(arguments, "on_demand_paging", json_true());
		break;
	case KEY_FENCE:
		set(arguments, "fence_command", json_string(text));
		break;
	case KEY_JSON:
		arguments->json = true;
		break;
	case 'q':
		arguments->quiet = true;
		break;
	case ARGP_KEY_ARG:
		command_take_name(state, &arguments->name, text);
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
	.args_doc = "GUEST",
	.doc = "Move a running guest to another host, and wait for the outcome.\v"
	       "An interrupt asks to cancel, a second one stops waiting. Exit status: 0 the guest "
	       "runs there, 1 failed and 3 cancelled: it runs here as before, 4 in doubt: it is "
	       "paused here, see 'ramlift status'; 2 wrong usage. 1 is also for an outcome that is "
	       "unknown, for this command no longer hears of it: look with 'ramlift status'.",
};

static int watch_signals(struct ramlift_error *error)
{
	sigset_t signals;
	int fd;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? error_set(error, -errno, "cannot watch for signals: %s", strerror(errno))
		      : fd;
}

static int take_signal(struct session *session, struct ramlift_error *error)
{
	struct signalfd_siginfo info;

	if (read(session->signal_fd, &info, sizeof(info)) != sizeof(info))
		return 0;
	progress_clear(&session->progress);
	if (session->n_signals++)
		return error_set(error, -EINTR, "no longer waiting for the outcome");
	fprintf(stderr, "cancelling\n");
	return control_client_send(session->client, json_pack("{s:s}", "request", "cancel"), error);
}

static int take_message(struct session *session, json_t *message, struct ramlift_error *error)
{
	const char *event = read_text(message, "event"), *phase = read_text(message, "phase");
	int ret = 0;

	if (strcmp(read_text(message, "request"), "migrate")) {
		/* The answer to our cancel, or a word from the socket itself. */
		ret = control_client_refusal(message, error);
		if (ret && !strcmp(read_text(message, "request"), "cancel")) {
			progress_clear(&session->progress);
			fprintf(stderr, "ramlift migrate: %s\n", error->text);
			ret = 0;
		}
	} else if (!strcmp(event, "progress")) {
		session->near_commit = !strcmp(phase, "hand-over") || !strcmp(phase, "committed");
		progress_show(&session->progress, message);
	} else if (!strcmp(event, "result")) {
		session->result = json_incref(message);
	} else {
		ret = control_client_refusal(message, error);
	}
	json_decref(message);
	return ret;
}

/* Until there is a result. */
static int follow(struct session *session, struct ramlift_error *error)
{
	struct pollfd fds[] = {
		{ .fd = control_client_fd(session->client), .events = POLLIN },
		{ .fd = session->signal_fd, .events = POLLIN },
	};
	json_t *message;
	int ret = 0;

	while (!ret && !session->result) {
		ret = control_client_read(session->client, 0, &message, error);
		if (!ret) {
			ret = take_message(session, message, error);
			continue;
		}
		if (ret != -EAGAIN)
			break;
		ret = 0;
		poll(fds, 2, -1);
		if (fds[1].revents)
			ret = take_signal(session, error);
	}
	return ret;
}

/* What to say when the process did not tell an outcome. */
static json_t *own_result(const struct session *session, int ret, const struct ramlift_error *error)
{
	const char *outcome = "failed";

	if (ret == -ECONNRESET && session->near_commit)
		outcome = "in-doubt";
	else if (ret == -ECONNRESET || ret == -EINTR || ret == -EPROTO)
		outcome = "unknown"; /* the migration may go on without this command */
	return json_pack("{s:s, s:s, s:o}", "outcome", outcome, "guest", session->name, "error",
			 report_error(ret, error->text));
}

static int run_session(struct session *session, json_t *request, struct ramlift_error *error)
{
	struct ramlift_doubt doubt;
	int ret;

	session->signal_fd = watch_signals(error);
	if (session->signal_fd < 0) {
		json_decref(request);
		return session->signal_fd;
	}
	ret = control_client_open(session->name, &session->client, error);
	if (ret) {
		json_decref(request);
		if (ret == -ENOENT && !doubt_find(session->name, &doubt, NULL))
			doubt_refuse(&doubt, error);
		goto close_signals;
	}
	ret = control_client_send(session->client, request, error);
	if (!ret)
		ret = follow(session, error);
	progress_clear(&session->progress);
	control_client_close(session->client);

close_signals:
	close(session->signal_fd);
	return ret;
}

static void tell_what_next(const json_t *result)
{
	const char *outcome = read_text(result, "outcome"), *name = read_text(result, "guest");

	if (!strcmp(outcome, "in-doubt"))
		fprintf(stderr,
			"guest %s is in doubt; 'ramlift status %s' says how to resolve that\n",
			name, name);
	else if (!strcmp(outcome, "unknown"))
		fprintf(stderr,
			"how the migration of guest %s ends is not known here, it may go on: look "
			"with 'ramlift status %s'\n",
			name, name);
}

int cmd_migrate(int argc, char **argv)
{
	static struct arguments arguments;
	struct ramlift_error error = { .code = 0 };
	struct session session = { .n_signals = 0 };
	int ret;

	arguments.request = json_pack("{s:s}", "request", "migrate");
	command_parse_secure(&argp, argc, argv, &arguments, &arguments.security);
	session.name = arguments.name;
	progress_start(&session.progress, arguments.quiet, arguments.json);
	ret = run_session(&session, arguments.request, &error);
	if (!session.result)
		session.result = own_result(&session, ret, &error);
	json_object_del(session.result, "request");
	json_object_del(session.result, "event");
	ret = outcome_tell(session.result, "migrate", arguments.json);
	tell_what_next(session.result);
	json_decref(session.result);
	return ret;
}
