/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift`: the table of its commands. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "kvm/vmm/command.h"

static const struct command commands[] = {
	{ "run", cmd_run, "run a guest on this host" },
	{ "receive", cmd_receive, "wait for a guest from another host, then run it" },
	{ "migrate", cmd_migrate, "move a running guest to another host" },
	{ "cancel", cmd_cancel, "end a migration; the guest runs on at the source" },
	{ "status", cmd_status, "show the guests of this host, or one in detail" },
	{ "stop", cmd_stop, "stop a guest" },
	{ "resolve", cmd_resolve, "say where a guest is, after a hand-over without an answer" },
	{ "devices", cmd_devices, "list the RDMA devices of this host" },
	{ "qemu", cmd_qemu, "move guests of an unmodified QEMU" },
};

static const struct command_group ramlift = {
	.name = "ramlift",
	.about = "Live-migrate running KVM guests over RDMA, or TCP.",
	.commands = commands,
	.n_commands = sizeof(commands) / sizeof(commands[0]),
};

int main(int argc, char **argv)
{
	/* A client or a peer that goes away is an error of a call, never a signal. */
	signal(SIGPIPE, SIG_IGN);
	if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))) {
		printf("ramlift %s\n", RAMLIFT_VERSION);
		return COMMAND_DONE;
	}
	return command_group_run(&ramlift, argc, argv);
}
