/* SPDX-License-Identifier: Apache-2.0 */
/* The options of options_security.h on the command line: a part of every
 * command that needs them. */
#include "kvm/vmm/command_security.h"

#include "kvm/vmm/command.h"

enum option_key {
	KEY_TLS_DIR = 0x1000, /* above those of the commands */
	KEY_PSK_FILE,
	KEY_ALLOW,
	KEY_INSECURE,
	KEY_PEER_TIMEOUT,
	KEY_IO_TIMEOUT,
};

static const struct argp_option options[] = {
	{ "tls-dir", KEY_TLS_DIR, "DIR", 0,
	  "prove who this is, and who the peer is, by certificates: ca.pem, cert.pem and key.pem "
	  "in DIR",
	  0 },
	{ "allow", KEY_ALLOW, "PATTERN", 0,
	  "with --tls-dir: a name in the peer's certificate must be like this, '*.example.org'; "
	  "may be repeated",
	  0 },
	{ "psk-file", KEY_PSK_FILE, "FILE", 0,
	  "the same by a key that both sides have: 64 hexadecimal digits in FILE", 0 },
	{ "insecure", KEY_INSECURE, NULL, 0,
	  "neither: whoever is on the network may send, take or read a guest", 0 },
	{ "peer-timeout", KEY_PEER_TIMEOUT, "SECONDS", 0,
	  "silence after which the peer counts as dead; default 4", 0 },
	{ "io-timeout", KEY_IO_TIMEOUT, "SECONDS", 0,
	  "time for one write, after which its lane counts as dead; default 5", 0 },
	{ 0 },
};

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct option_security *security = state->input;
	struct ramlift_error error;

	switch (key) {
	case KEY_TLS_DIR:
		command_check(state, option_path("--tls-dir", text, security->tls_dir, &error),
			      &error);
		break;
	case KEY_PSK_FILE:
		command_check(state, option_path("--psk-file", text, security->psk_file, &error),
			      &error);
		break;
	case KEY_ALLOW:
		command_check(state, option_allow(text, security, &error), &error);
		break;
	case KEY_INSECURE:
		security->insecure = true;
		break;
	case KEY_PEER_TIMEOUT:
		command_check(
			state,
			option_wait("--peer-timeout", text, &security->peer_timeout_ns, &error),
			&error);
		break;
	case KEY_IO_TIMEOUT:
		command_check(state,
			      option_wait("--io-timeout", text, &security->io_timeout_ns, &error),
			      &error);
		break;
	case ARGP_KEY_END:
		command_check(state, option_security_check(security, &error), &error);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

const struct argp command_security_argp = { .options = options, .parser = parse };
